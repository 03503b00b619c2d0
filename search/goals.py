"""What a study is after: objectives and constraints over metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from strategies.pareto import front

from .errors import ExpressionError
from .expressions import Comparison, parse_constraint, violation, violations

DIRECTIONS = {
    "max": "maximize",
    "maximize": "maximize",
    "min": "minimize",
    "minimize": "minimize",
}
MOST = 3  # objectives
_FORM = 'write them as "METRIC: max, METRIC: min"'


@dataclass(frozen=True, slots=True)
class Goals:
    """One to three objectives (metric -> minimize | maximize), and constraints."""

    objectives: Mapping[str, str]
    constraints: tuple[Comparison, ...] = ()

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Goals:
        constraints = tuple(parse_constraint(text) for text in config["constraints"])
        return cls(dict(config["objectives"]), constraints)

    def values(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """The objectives' values, all to be minimised."""
        return tuple(
            -metrics[name] if direction == "maximize" else metrics[name]
            for name, direction in self.objectives.items()
        )

    def violations(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """For each constraint how far it is broken, relative to its bound; 0 = met.

        One over a metric that was not measured is broken by 1.
        """
        return tuple(
            violation(c, metrics[c.name]) if c.name in metrics else 1.0 for c in self.constraints
        )

    def costs(self, *quality: str) -> tuple[int, ...]:
        """The positions of the objectives that are none of these metrics: what is to be lowered.

        Args:
            quality: The metrics that say how good a model is: its score, and the score's drop.
        """
        return tuple(i for i, name in enumerate(self.objectives) if name not in quality)

    @property
    def names(self) -> list[str]:
        """The metrics that decide who is on the front."""
        return list(dict.fromkeys([*self.objectives, *(c.name for c in self.constraints)]))

    def on_front(self, metrics: np.ndarray) -> np.ndarray:
        """Which of these rows no other dominates, feasible before infeasible: a mask.

        Args:
            metrics: Shape (rows, names), columns in the order of `names`.
        """
        columns = dict(zip(self.names, metrics.T, strict=True))
        signs = [-1.0 if way == "maximize" else 1.0 for way in self.objectives.values()]
        values = [s * columns[n] for s, n in zip(signs, self.objectives, strict=True)]
        costs, broken = _table(values, len(metrics)), self._violations(metrics)
        # Equal rows stand or fall together, and many are: of 5,000 that is most of the work.
        _, first, which = np.unique(
            np.hstack([costs, broken]), axis=0, return_index=True, return_inverse=True
        )
        mask: np.ndarray = front(costs[first], broken[first])[which.reshape(-1)]
        return mask

    def broken(self, metrics: np.ndarray) -> np.ndarray:
        """Which of these rows break a constraint: a mask."""
        return np.asarray(self._violations(metrics).any(axis=1))

    def _violations(self, metrics: np.ndarray) -> np.ndarray:
        columns = dict(zip(self.names, metrics.T, strict=True))
        found = [violations(c, columns[c.name]) for c in self.constraints]
        return _table(found, len(metrics))


def parse_objectives(text: str) -> dict[str, str]:
    """The objectives that a text names, such as `accuracy: max, size_bytes: min`.

    Raises:
        ExpressionError: It is malformed, or names a metric twice or more than three.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, colon, word = map(str.strip, part.partition(":"))
        direction = DIRECTIONS.get(word)
        if not name or not colon or direction is None:
            raise ExpressionError(f"cannot read objective {part.strip()!r} of {text!r}; {_FORM}")
        if name in found:
            raise ExpressionError(f"objective {name!r} stands twice in {text!r}; name it once")
        found[name] = direction
    if len(found) > MOST:
        raise ExpressionError(f"at most {MOST} objectives can be ranked, got {len(found)}")
    return found


def _table(columns: list[np.ndarray], rows: int) -> np.ndarray:
    return np.column_stack(columns) if columns else np.zeros((rows, 0))
