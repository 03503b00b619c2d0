"""When a training is hopeless: rules over its scores, and those of the trainings it may see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from storage.records import Trial

    from .config_sections import StopConfig


@dataclass(frozen=True, slots=True)
class Training:
    """A training of a trial.

    Args:
        stage: The compressor.
        key: Of the stage: equal keys, equal trainings.
        epochs: How many it was to have.
        scores: After each epoch that it had; None where nothing could be scored yet.
    """

    stage: str
    key: str
    epochs: int
    scores: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """The score of a task."""

    name: str
    higher_is_better: bool

    def best(self, scores: Iterable[float]) -> float:
        return max(scores) if self.higher_is_better else min(scores)

    def is_worse(self, score: float, other: float) -> bool:
        return score < other if self.higher_is_better else score > other


class Rule(Protocol):
    """Judges a training against others that came as far."""

    def cause(
        self, metric: Metric, own: Sequence[float | None], others: Sequence[Sequence[float | None]]
    ) -> str:
        """Why it is to be given up after its latest epoch; "" lets it go on.

        Args:
            own: Its scores after each epoch, the last of them known.
            others: Theirs after the same epochs, likewise.
        """
        ...


@dataclass(frozen=True, slots=True)
class MedianRule:
    """Gives up what is at its best worse than the median of the others' means so far.

    Source: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017,
    section 3.2.2. The others there are the completed trials; here, all that came as far: of the
    survivors alone, half would be given up again and again.

    Args:
        warmup_epochs: So many first epochs are not judged.
        min_trials: So many others must have come as far.
    """

    warmup_epochs: int = 1
    min_trials: int = 4

    def cause(
        self, metric: Metric, own: Sequence[float | None], others: Sequence[Sequence[float | None]]
    ) -> str:
        if len(own) <= self.warmup_epochs or len(others) < max(1, self.min_trials):
            return ""
        best = metric.best(score for score in own if score is not None)
        middle = median(fmean(s for s in other if s is not None) for other in others)
        if not metric.is_worse(best, middle):
            return ""
        side = "below" if metric.higher_is_better else "above"
        return (
            f"median rule: {metric.name} {best:.3g} at best by epoch {len(own)} of {{epochs}},"
            f" {side} the median {middle:.3g} of {len(others)} trainings"
        )


@dataclass(frozen=True, slots=True)
class HalvingRule:
    """Lets the best 1 / `reduction` go on beyond each rung.

    Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020,
    algorithm 2 (asynchronous successive halving), in its form that stops: what is not among the
    best when it comes to a rung is given up then, and none that was given up goes on later. Where
    fewer than `reduction` have come to a rung, all go on.

    Args:
        reduction: How many reach a rung for each that goes on.
        min_epochs: The first rung; the k-th after it is at min_epochs * reduction**k.
    """

    reduction: int = 3
    min_epochs: int = 1

    def cause(
        self, metric: Metric, own: Sequence[float | None], others: Sequence[Sequence[float | None]]
    ) -> str:
        count, score = len(others) + 1, own[-1]
        if not self._is_rung(len(own)) or count < self.reduction or score is None:
            return ""
        ahead = sum(o[-1] is not None and metric.is_worse(score, o[-1]) for o in others)
        best = count // self.reduction
        if ahead < best:
            return ""
        return (
            f"successive halving: {metric.name} {score:.3g} after epoch {len(own)} of {{epochs}}"
            f" is number {ahead + 1} of {count} trainings, and the best {best} go on"
        )

    def _is_rung(self, epoch: int) -> bool:
        rung = self.min_epochs
        while rung < epoch:
            rung *= self.reduction
        return rung == epoch


def make_rule(config: StopConfig) -> Rule | None:
    """The rule that a config asks for."""
    if config.rule == "median":
        assert config.warmup_epochs is not None
        assert config.min_trials is not None
        return MedianRule(config.warmup_epochs, config.min_trials)
    if config.rule == "halving":
        assert config.reduction is not None
        assert config.min_epochs is not None
        return HalvingRule(config.reduction, config.min_epochs)
    return None


def trainings(trials: Iterable[Trial]) -> tuple[Training, ...]:
    """What ended trials tell of their trainings, each once, as far as one of them went.

    Failed trials tell nothing: how far they came may be chance.
    """
    found: dict[str, Training] = {}
    for trial in trials:
        for stage in trial.stages if trial.state != "failed" else ():
            known = found.get(stage.key)
            if stage.scores and (known is None or len(known.scores) < len(stage.scores)):
                found[stage.key] = Training(stage.name, stage.key, stage.epochs, stage.scores)
    return tuple(found.values())


def given_up(rule: Rule, metric: Metric, own: Training, peers: Iterable[Training]) -> str:
    """Why a training is given up after its latest epoch; "" if it goes on.

    It is compared with those of the same compressor that were to have as many epochs, at the same
    epoch: a schedule has another learning rate there under another total. One that a peer has gone
    through to its end goes on: it costs nothing any more.
    """
    epoch = len(own.scores)
    if epoch in (0, own.epochs) or own.scores[-1] is None:
        return ""
    others = []
    for peer in peers:
        if peer.key == own.key:
            if len(peer.scores) == own.epochs:
                return ""
        elif (peer.stage, peer.epochs) == (own.stage, own.epochs):
            theirs = peer.scores[:epoch]
            if len(theirs) == epoch and theirs[-1] is not None:
                others.append(theirs)
    return rule.cause(metric, own.scores, others).format(epochs=own.epochs)
