"""The epochs of a build's trainings: told as they end, scored, and given up where hopeless."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from compressors.base import Task
from compressors.devices import moved
from compressors.inspect import forward, tensors_in
from compressors.training import seeded
from storage.artifacts import Holder

from .cutting import CannotCut, cut_out
from .jobs import Epoch, Progress
from .stages import Stage
from .stopping import Metric, Rule, Training, given_up

if TYPE_CHECKING:
    from torch import nn

    from storage import StageRun

SAMPLES = 1024  # at most, that a model is scored on after an epoch

log = logging.getLogger("naslite.search")


class GivenUp(Exception):
    """A rule has stopped a training; it says why."""


class EpochScore:
    """The task's score of a torch model on at most 1,024 samples of the search split.

    They are the same ones in every trial of a study, drawn without replacement. Where batches
    cannot be cut, all samples count.

    Args:
        seed: Of the study.
        device: Where the models lie.
    """

    def __init__(self, task: Task, seed: int, device: str = "cpu") -> None:
        self._task = task
        self._seed = seed
        self._device = device
        self._batches: list[Any] | None = None

    def __call__(self, model: nn.Module) -> float | None:
        """The score; None where the task has none of such outputs, or it is not finite."""
        import torch

        were_training = [module for module in model.modules() if module.training]
        model.eval()
        try:
            with seeded(0), torch.no_grad():
                if self._batches is None:
                    self._batches = self._drawn()
                batches = self._batches or self._task.eval_batches()
                records = np.concatenate([self._records(model, batch) for batch in batches])
                try:
                    found = float(self._task.score(records))
                except Exception:  # such as F1 without a positive
                    return None
        finally:
            for module in were_training:
                module.training = True
        return found if np.isfinite(found) else None

    def _records(self, model: nn.Module, batch: Any) -> np.ndarray:
        inputs = moved(self._task.inputs(batch), self._device)
        arrays = tuple(t.cpu().numpy() for t in tensors_in(forward(model, inputs)))
        return np.asarray(self._task.records(arrays[0] if len(arrays) == 1 else arrays, batch))

    def _drawn(self) -> list[Any]:
        """Batches of the drawn samples; none where batches cannot be cut."""
        try:
            _, total = cut_out(self._task, [])
            order = np.random.default_rng((self._seed, total)).permutation(total)
            return cut_out(self._task, [np.sort(order[:SAMPLES])])[0][0]
        except CannotCut as error:
            log.warning("stop: every epoch is scored on the whole search split: %s", error)
            return []


class Epochs:
    """The trainings of one build.

    Scores are kept one by one in the stage cache, so that a training is judged in the same way
    when it comes from there, or was given up before, as when it is trained.

    Args:
        rule: None where nothing is given up; then no epoch is scored.
        peers: The trainings that the trial may see.
        cache: Holds what is cached; what it raises as OSError, `warn` is told.
    """

    def __init__(
        self,
        rule: Rule | None,
        metric: Metric,
        score: EpochScore,
        peers: Sequence[Training],
        cache: Holder,
        warn: Callable[[OSError], None],
        progress: Progress,
    ) -> None:
        self._rule = rule
        self._metric = metric
        self._score = score
        self._peers = peers
        self._cache = cache
        self._warn = warn
        self._progress = progress
        self._scores: dict[str, list[float | None]] = {}  # by stage key

    def review(self, stages: Sequence[Stage]) -> tuple[int, str]:
        """Judge what is known of trainings already.

        Returns:
            How many leading stages may come from the cache: up to a training that must run to be
            judged; and the cause where the training after them is given up as it stands.
        """
        if self._rule is None:
            return len(stages), ""
        for position, stage in enumerate(stages):
            known = self._known(stage)
            self._scores[stage.key] = []
            for score in known:
                self._scores[stage.key].append(score)
                if cause := self._cause(stage):
                    return position, cause
            if len(known) < stage.epochs:
                return position, ""
        return len(stages), ""

    def scores(self, stage: Stage) -> tuple[float | None, ...]:
        """What is known of a stage's epochs, as far as it was judged."""
        return tuple(self._scores.get(stage.key, ()))

    def may_skip(self, stage: Stage, epochs: int) -> bool:
        """Whether a training need not run through its first epochs to be judged after them."""
        return self._rule is None or len(self.scores(stage)) >= epochs

    def listener(
        self, stage: Stage, ended: Sequence[StageRun]
    ) -> Callable[[int, int, nn.Module], None]:
        """What the compressor of a stage is to call after each epoch.

        Args:
            ended: The stages before it.

        Raises:
            GivenUp: By what it gives.
        """

        def epoch_ended(epoch: int, epochs: int, model: nn.Module) -> None:
            scores = self._scores.setdefault(stage.key, [])
            is_new = self._rule is not None and epoch == len(scores) + 1
            if is_new:
                scores.append(self._score(model))
                self._keep(stage, epoch, scores[-1])
            told = scores[epoch - 1] if epoch <= len(scores) else None
            self._progress(stage.name, ended, Epoch(epoch, epochs, told))
            if is_new and (cause := self._cause(stage)):
                raise GivenUp(cause)

        return epoch_ended

    def _cause(self, stage: Stage) -> str:
        assert self._rule is not None
        own = Training(stage.name, stage.key, stage.epochs, self.scores(stage))
        return given_up(self._rule, self._metric, own, self._peers)

    def _known(self, stage: Stage) -> list[float | None]:
        """The scores that need not be computed, from the first epoch on."""
        known: list[float | None] = []
        for peer in self._peers:
            if peer.key == stage.key and len(peer.scores) > len(known):
                known = list(peer.scores)
        while len(known) < stage.epochs:
            try:
                entry = self._cache.get(stage.score_key(len(known) + 1))
            except OSError as error:
                self._warn(error)
                break
            if entry is None:
                break
            known.append(entry[1]["score"])
        return known

    def _keep(self, stage: Stage, epoch: int, score: float | None) -> None:
        try:
            self._cache.put(stage.score_key(epoch), [], {"score": score})
        except OSError as error:
            self._warn(error)
