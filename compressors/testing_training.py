"""The contract of compressors that train, beyond that of all model compressors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from .base import Context, Earlier, Options, TrainingCompressor
from .inspect import weights_digest
from .testing import ModelCompressorContract

__all__ = ["TrainingCompressorContract"]


class TrainingCompressorContract(ModelCompressorContract):
    """What a compressor promises that trains; supply `make`, `task` and options."""

    def make(self) -> TrainingCompressor:
        raise NotImplementedError

    def test_it_says_that_it_trains(self) -> None:
        assert isinstance(self.make(), TrainingCompressor)

    def test_each_epoch_is_told_with_its_model(self, tmp_path: Path) -> None:
        for options in self._all_options():
            model, epochs, _ = self._trained(options, self._context(tmp_path))
            total = self.make().epochs(options)
            assert [epoch[:2] for epoch in epochs] == [(n + 1, total) for n in range(total)]
            assert epochs[-1][2] == weights_digest(model), options

    def test_what_is_raised_after_an_epoch_ends_the_training(self, tmp_path: Path) -> None:
        def epoch_ended(epoch: int, epochs: int, model: nn.Module) -> None:
            raise _Enough

        for options in self._all_options():
            context = replace(self._context(tmp_path), epoch_ended=epoch_ended)
            with pytest.raises(_Enough):
                self.make().apply(self._model(), options, context)

    def test_going_on_gives_what_training_from_the_start_does(self, tmp_path: Path) -> None:
        for options in self._all_options():
            count, context = self.make().epochs(options), self._context(tmp_path)
            if not self.make().continues(options):
                continue
            longer = {**options, "epochs": count + 1}
            assert self.make().continues(longer)
            begun, _, kept = self._trained(options, context)
            whole, _, _ = self._trained(longer, context)
            context = replace(context, earlier=Earlier(count, begun, kept))
            rest, epochs, _ = self._trained(longer, context)
            assert weights_digest(rest) == weights_digest(whole), options
            assert [epoch[0] for epoch in epochs] == [count + 1], options

    def _trained(
        self, options: Options, context: Context
    ) -> tuple[nn.Module, list[Any], dict[str, Tensor]]:
        """The result, the epochs that were told (number, total, weights), and what was kept."""
        epochs: list[Any] = []
        kept: dict[str, Tensor] = {}

        def epoch_ended(epoch: int, total: int, model: nn.Module) -> None:
            epochs.append((epoch, total, weights_digest(model)))

        context = replace(context, epoch_ended=epoch_ended, keep=kept.update)
        model, _ = self.make().apply(self._model(), options, context)
        return model, epochs, kept


class _Enough(Exception):
    pass
