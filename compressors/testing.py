"""The contracts of compressors as tests to inherit.

A compressor is tested by a few lines in a file of its own:

    class TestMyPruning(ModelCompressorContract):
        options = [{"ratio": 0.5}]

        def make(self) -> ModelCompressor:
            return MyPruning()

        def task(self) -> Task:
            return ToyTask()
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from strategies.space import Choice, Knob, Space, SpaceError

from .base import ArtifactCompressor, Context, ModelCompressor, Options, Recipe, Refused, Task
from .inspect import forward, tensors_in, weights_digest

__all__ = ["ArtifactCompressorContract", "ModelCompressorContract"]


class _Contract:
    """What model and artifact compressors have in common.

    Attributes:
        options: Options under which the seed must not matter. Leave out what is neutral: a
            compressor at its neutral values is never applied.
        seeded_options: Options under which another seed must give another result.
    """

    options: ClassVar[Sequence[Options]] = ()
    seeded_options: ClassVar[Sequence[Options]] = ()

    def make(self) -> Any:
        """A new compressor object."""
        raise NotImplementedError

    def task(self) -> Task:
        """A small task on which the compressor works."""
        raise NotImplementedError

    def test_there_are_options_to_test(self) -> None:
        assert self._all_options()

    def test_version_and_libraries_can_be_part_of_a_cache_key(self) -> None:
        compressor = self.make()
        assert isinstance(compressor.version, int)
        assert all(version(library) for library in compressor.libraries)

    def test_knobs_have_names_of_their_own(self) -> None:
        names = [knob.name for knob in self._knobs()]
        assert names
        for name in names:  # without the compressor's name; a module's path comes after @
            assert name.partition("@")[0].isidentifier(), name

    def test_neutral_values_are_legal(self) -> None:
        for knob in self._knobs():
            assert knob.contains(knob.neutral), knob

    def test_defaults_resolve_to_a_space_with_parents_before_children(self) -> None:
        assert len(Space(knob.resolve() for knob in self._knobs()))

    def test_options_name_exactly_the_active_knobs(self) -> None:
        for options in self._all_options():
            space = Space(knob.resolve(options.get(knob.name)) for knob in self._knobs())
            assert space.canonical(options) == options

    @pytest.mark.parametrize("wrong", ["no such value", float("nan"), [], {"low": 2, "high": 1}])
    def test_values_that_are_not_a_knobs_own_are_found_before_anything_is_applied(
        self, wrong: object
    ) -> None:
        for knob in self._knobs():
            with pytest.raises(SpaceError):
                knob.resolve(wrong)

    def test_declaring_knobs_changes_nothing(self) -> None:
        compressor, task, model = self.make(), self.task(), self._model()
        before, states = weights_digest(model), random_states()
        compressor.knobs(model, task)
        assert weights_digest(model) == before
        assert random_states() == states

    def _all_options(self) -> list[Options]:
        return [*self.options, *self.seeded_options]

    def _legal_options(self) -> list[Options]:
        """The first options with one value changed at a time, to each choice or either end of the
        numbers (of epochs the lower); knobs that this makes active compress least."""
        knobs, first = self._knobs(), self._all_options()[0]
        found: list[Options] = []
        for knob in knobs:
            ends = [0.0] if knob.name == "epochs" else [0.0, 1.0]
            for value in knob.values if isinstance(knob, Choice) else map(knob.from_unit, ends):
                wanted = {**first, knob.name: value}
                space = Space(other.resolve(wanted.get(other.name)) for other in knobs)
                options = space.complete(wanted)
                if not space.is_neutral(options, ""):
                    found.append(options)
        return found

    def _knobs(self) -> list[Knob]:
        knobs: list[Knob] = self.make().knobs(self._model(), self.task())
        return knobs

    def _model(self) -> nn.Module:
        return copy.deepcopy(self.task().model()).eval()

    def _context(self, workdir: Path, seed: int = 0) -> Context:
        return Context(task=self.task(), original=self._model, seed=seed, workdir=workdir)


class ModelCompressorContract(_Contract):
    """What every model compressor promises; inherit it and supply `make`, `task`, `options`."""

    def make(self) -> ModelCompressor:
        raise NotImplementedError

    def test_follows_the_protocol(self) -> None:
        assert isinstance(self.make(), ModelCompressor)

    @pytest.mark.parametrize("training", [False, True])
    def test_the_input_is_not_changed(self, tmp_path: Path, training: bool) -> None:
        for options in self._all_options():
            model = self._model().train(training)
            parameters = {name: id(p) for name, p in model.named_parameters()}
            before = weights_digest(model)
            self.make().apply(model, options, self._context(tmp_path))
            assert weights_digest(model) == before, options
            assert {name: id(p) for name, p in model.named_parameters()} == parameters, options
            assert {module.training for module in model.modules()} == {training}, options

    def test_the_result_shares_no_tensor_with_the_input(self, tmp_path: Path) -> None:
        for options in self._all_options():
            model = self._model()
            result, _ = self.make().apply(model, options, self._context(tmp_path))
            assert not _storages(model) & _storages(result), options

    def test_one_seed_gives_one_result(self, tmp_path: Path) -> None:
        for options in self._all_options():
            first = self._applied(options, tmp_path)
            _stir_random_states()
            assert _facts(first) == _facts(self._applied(options, tmp_path)), options

    def test_the_seed_matters_only_where_it_should(self, tmp_path: Path) -> None:
        for options in self._all_options():
            first = self._applied(options, tmp_path, seed=1)
            second = self._applied(options, tmp_path, seed=2)
            depends = _facts(first) != _facts(second)
            assert depends == (options in self.seeded_options), options

    def test_random_states_outside_are_left_alone(self, tmp_path: Path) -> None:
        for options in self._all_options():
            _stir_random_states()
            model, context = self._model(), self._context(tmp_path)
            before = random_states()
            _, recipe = self.make().apply(model, options, context)
            assert random_states() == before, options
            self.make().replay(model, recipe)
            assert random_states() == before, options

    def test_recipe_and_weights_restore_the_result(self, tmp_path: Path) -> None:
        for options in self._all_options():
            result, recipe = self._applied(options, tmp_path)
            model = self._model()
            before = weights_digest(model)
            restored = self._restored(model, [recipe], result)
            assert weights_digest(model) == before, options
            assert self._outputs_are_equal(restored, result), options
            assert _trainable(restored) == _trainable(result), options

    def test_applies_to_its_own_result(self, tmp_path: Path) -> None:
        for options in self._all_options():
            first, recipe = self._applied(options, tmp_path)
            second, other = self.make().apply(first, options, self._context(tmp_path))
            restored = self._restored(self._model(), [recipe, other], second)
            assert self._outputs_are_equal(restored, second), options

    def test_all_legal_values_are_applied_or_refused(self, tmp_path: Path) -> None:
        batch, applied = next(iter(self.task().eval_batches())), 0
        for options in self._legal_options():
            with contextlib.suppress(Refused):
                result, _ = self._applied(options, tmp_path)
                with torch.no_grad():
                    outputs = tensors_in(forward(result.eval(), self.task().inputs(batch)))
                assert all(torch.isfinite(output).all() for output in outputs), options
                applied += 1
        assert applied

    def _applied(self, options: Options, workdir: Path, seed: int = 0) -> tuple[nn.Module, Recipe]:
        return self.make().apply(self._model(), options, self._context(workdir, seed))

    def _restored(
        self, model: nn.Module, recipes: Sequence[Recipe], weights: nn.Module
    ) -> nn.Module:
        for recipe in recipes:
            model = self.make().replay(model, json.loads(json.dumps(recipe, allow_nan=False)))
        model.load_state_dict(weights.state_dict(), strict=True)
        return model

    def _outputs_are_equal(self, a: nn.Module, b: nn.Module) -> bool:
        """Bit by bit, on all evaluation batches."""
        task = self.task()
        for batch in task.eval_batches():
            with torch.no_grad():
                pair = [tensors_in(forward(m.eval(), task.inputs(batch))) for m in (a, b)]
            if not all(torch.equal(x, y) for x, y in zip(*pair, strict=True)):
                return False
        return True


class ArtifactCompressorContract(_Contract):
    """What every artifact compressor promises; supply `artifact` and `load` too."""

    def make(self) -> ArtifactCompressor:
        raise NotImplementedError

    @pytest.fixture
    def artifact(self) -> Path:
        """The main file of the task's exported model, alone with its file set in a folder."""
        raise NotImplementedError

    def load(self, path: Path) -> object:
        """Load an artifact as its runtime does; raises if it cannot be loaded."""
        raise NotImplementedError

    def test_follows_the_protocol(self) -> None:
        assert isinstance(self.make(), ArtifactCompressor)
        assert self.make().formats

    def test_the_source_is_not_changed(self, artifact: Path, tmp_path: Path) -> None:
        before = _contents(artifact.parent)
        for workdir, options in self._runs(tmp_path):
            self.make().apply(artifact, options, self._context(workdir))
            assert _contents(artifact.parent) == before, options

    def test_the_result_is_a_complete_file_set(self, artifact: Path, tmp_path: Path) -> None:
        for workdir, options in self._runs(tmp_path):
            path = self.make().apply(artifact, options, self._context(workdir))
            assert path == workdir / artifact.name, options
            elsewhere = shutil.copytree(workdir, workdir.with_name(f"{workdir.name} moved"))
            self.load(elsewhere / path.name)

    def test_nothing_but_the_file_set_is_left(self, artifact: Path, tmp_path: Path) -> None:
        for workdir, options in self._runs(tmp_path):
            path = self.make().apply(artifact, options, self._context(workdir))
            for other in sorted(set(workdir.rglob("*")) - {path}):
                assert other.is_file(), options
                other.rename(tmp_path / "hidden")
                with pytest.raises(Exception):  # noqa: B017, PT011 - the runtime needs every file
                    self.load(path)
                (tmp_path / "hidden").rename(other)

    def test_one_seed_gives_one_result(self, artifact: Path, tmp_path: Path) -> None:
        for workdir, options in self._runs(tmp_path):
            first = self._made(artifact, options, workdir / "first")
            _stir_random_states()
            assert first == self._made(artifact, options, workdir / "second"), options

    def test_the_seed_matters_only_where_it_should(self, artifact: Path, tmp_path: Path) -> None:
        for workdir, options in self._runs(tmp_path):
            first = self._made(artifact, options, workdir / "first", seed=1)
            second = self._made(artifact, options, workdir / "second", seed=2)
            assert (first != second) == (options in self.seeded_options), options

    def test_random_states_outside_are_left_alone(self, artifact: Path, tmp_path: Path) -> None:
        for workdir, options in self._runs(tmp_path):
            _stir_random_states()
            context = self._context(workdir)
            before = random_states()
            self.make().apply(artifact, options, context)
            assert random_states() == before, options

    def test_all_legal_values_are_applied_or_refused(self, artifact: Path, tmp_path: Path) -> None:
        applied = 0
        for workdir, options in self._runs(tmp_path, self._legal_options()):
            with contextlib.suppress(Refused):
                self.load(self.make().apply(artifact, options, self._context(workdir)))
                applied += 1
        assert applied

    def _runs(
        self, folder: Path, runs: Sequence[Options] | None = None
    ) -> Iterator[tuple[Path, Options]]:
        """All options, each with an empty folder."""
        for number, options in enumerate(self._all_options() if runs is None else runs):
            workdir = folder / f"run {number}"
            workdir.mkdir()
            yield workdir, options

    def _made(
        self, artifact: Path, options: Options, workdir: Path, seed: int = 0
    ) -> dict[str, bytes]:
        workdir.mkdir()
        self.make().apply(artifact, options, self._context(workdir, seed))
        return _contents(workdir)


def random_states() -> tuple[object, ...]:
    """The states of the global generators of torch, numpy and random, to compare."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    torch_state = torch.get_rng_state().numpy().tobytes()
    return torch_state, kind, np.asarray(keys).tobytes(), *rest, random.getstate()


def _stir_random_states() -> None:
    torch.rand(1)
    np.random.random()  # noqa: NPY002
    random.random()


def _facts(applied: tuple[nn.Module, Recipe]) -> tuple[str, str]:
    model, recipe = applied
    return weights_digest(model), json.dumps(recipe, sort_keys=True)


def _storages(model: nn.Module) -> set[int]:
    tensors = (*model.parameters(), *model.buffers())
    return {t.untyped_storage().data_ptr() for t in tensors if t.numel()}


def _trainable(model: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def _contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
