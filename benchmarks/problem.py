"""A search problem whose best possible hypervolume is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import moocore
import numpy as np

from search.goals import Goals
from strategies.space import Candidate, Space


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an evaluation gave.

    Args:
        metrics: Every metric by name, in its own direction; None = the candidate was refused.
        values: The objectives, all minimised; empty if refused.
        violations: One per limit: 0 = met, else how far off relative to its bound.
    """

    metrics: Mapping[str, float] | None = None
    values: tuple[float, ...] = ()
    violations: tuple[float, ...] = ()

    @property
    def is_refused(self) -> bool:
        return self.metrics is None

    @property
    def is_feasible(self) -> bool:
        return self.metrics is not None and not any(self.violations)


class Evaluator(Protocol):
    """The metrics of a candidate, known in advance or computed by a formula."""

    def exact(self, candidate: Candidate) -> Mapping[str, float] | None:
        """The true metrics; None if the candidate is refused."""
        ...

    def measured(self, candidate: Candidate, seed: int, visit: int) -> Mapping[str, float] | None:
        """What one measurement gives: the true metrics, or a draw of noisy ones.

        Args:
            seed: Of the run; the same seed and candidate give the same draws to all strategies.
            visit: How often this run has evaluated the candidate before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Knobs, objectives, limits, and the hypervolume of the true front.

    Args:
        reference: The worst corner of the hypervolume, in minimised values.
        hypervolume: Of the true front; > 0.
        quality: The metric that says how good a model is (lower is better where it is no
            objective); the other objectives are its costs.
        refuses: Whether some candidates are refused.
        facts: What a report says about the problem: name -> text.
    """

    name: str
    title: str
    space: Space
    goals: Goals
    reference: tuple[float, ...]
    hypervolume: float
    quality: str
    evaluator: Evaluator
    refuses: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def objectives(self) -> tuple[str, ...]:
        return tuple(self.goals.objectives)

    @property
    def costs(self) -> tuple[int, ...]:
        """The positions of the objectives that compression is meant to lower."""
        return self.goals.costs(self.quality)

    def exact(self, candidate: Candidate) -> Outcome:
        return self._outcome(self.evaluator.exact(candidate))

    def measured(self, candidate: Candidate, seed: int, visit: int) -> Outcome:
        return self._outcome(self.evaluator.measured(candidate, seed, visit))

    def _outcome(self, metrics: Mapping[str, float] | None) -> Outcome:
        if metrics is None:
            return Outcome()
        return Outcome(metrics, self.goals.values(metrics), self.goals.violations(metrics))


class Archive:
    """The non-dominated values so far and their hypervolume, computed only when they change.

    Args:
        reference: The worst corner; what does not lie below it in every objective counts nothing.
    """

    def __init__(self, reference: Sequence[float]) -> None:
        self.reference = np.array(reference, float)
        self.front = np.empty((0, len(self.reference)))
        self.hypervolume = 0.0

    def add(self, values: Sequence[float]) -> bool:
        """Take a point in; whether the hypervolume grew."""
        point = np.array(values, float)
        if not (point < self.reference).all() or (self.front <= point).all(axis=1).any():
            return False
        kept = self.front[~(point <= self.front).all(axis=1)]
        self.front = np.vstack([kept, point])
        self.hypervolume = float(moocore.hypervolume(self.front, ref=self.reference))
        return True


def true_front(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The distinct non-dominated rows of minimised values, by brute force."""
    distinct = np.unique(values, axis=0)
    front: np.ndarray[Any, Any] = distinct[moocore.is_nondominated(distinct)]
    return front


def hypervolume_of(values: np.ndarray[Any, Any], reference: Sequence[float]) -> float:
    """The hypervolume of minimised values; 0 where none lies below the reference."""
    corner = np.array(reference, float)
    inside = values[(values < corner).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=corner)) if len(inside) else 0.0
