"""What a stored study says: its trials as rows, the front, and answers to queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from storage import Store, Study, Trial, UnknownTrial

from .errors import UnknownName
from .expressions import Expression, parse
from .goals import Goals
from .metrics import drop_name, metric_names
from .registry import unknown_name

MAIN = ("size_bytes", "latency_ms", "latency_ratio", "macs")
TRIAL_FIELDS = ("number", "state", "seconds")
FEW = 500  # rows that are asked for by number; SQL limits how many numbers a query names


@dataclass(frozen=True, slots=True)
class Row:
    """A trial seen under the study's objectives and constraints.

    Args:
        values: The objectives in their own direction, by metric; empty unless complete.
        violations: By constraint, relative to its bound, 0 = met; empty unless complete.
    """

    trial: Trial
    values: Mapping[str, float]
    violations: Mapping[str, float]
    on_front: bool

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def metrics(self) -> dict[str, float]:
        return self.trial.metrics

    @property
    def is_feasible(self) -> bool:
        return self.trial.state == "complete" and not any(self.violations.values())

    def to_json(self) -> dict[str, Any]:
        """The documented JSON of a trial."""
        trial = self.trial
        return {
            "number": trial.number,
            "state": trial.state,
            "candidate": dict(trial.candidate),
            "metrics": {
                m.metric: {
                    "value": m.value,
                    "unit": m.unit,
                    "low": m.low,
                    "high": m.high,
                    "n": m.n,
                    "noisy": m.noisy,
                }
                for m in trial.measurements
            },
            "values": dict(self.values),
            "violations": dict(self.violations),
            "on_front": self.on_front,
            "stages": [asdict(stage) for stage in trial.stages],
            "cause": trial.cause,
            "artifact": asdict(trial.artifact) if trial.artifact else None,
            "seconds": trial.seconds,
            "origin": trial.origin,
            "attempt": trial.attempt,
            "deaths": trial.deaths,
            "reused_from": trial.reused_from,
            "reused_study": trial.reused_study,
        }


class StudyResults:
    """A stored study, read. Nothing here needs torch."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.study: Study = store.study(name)
        self.goals = Goals.of_config(self.study.config)
        self._rows: list[Row] | None = None
        self._on_front: frozenset[int] | None = None

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def state(self) -> str:
        return self.study.state

    @property
    def metric_names(self) -> list[str]:
        return metric_names(
            self.study.facts["score_name"], self.study.config["runtime"]["batch_sizes"]
        )

    @property
    def shown_metrics(self) -> list[str]:
        """The metrics that tables show: the main ones, and those that the study is after."""
        score = self.study.facts["score_name"]
        wanted = {score, drop_name(score), *self.goals.names}
        return [
            name
            for name in self.metric_names
            if name in wanted or name.partition("_batch")[0] in MAIN
        ]

    def rows(self) -> list[Row]:
        """All trials by number; trial 0 is the baseline."""
        if self._rows is None:
            trials = self.store.trials(self.study)
            complete = {t.number: t.metrics for t in trials if t.state == "complete"}
            names = self.goals.names
            self._on_front = self._non_dominated(
                {number: [metrics[n] for n in names] for number, metrics in complete.items()}
            )
            self._rows = self._as_rows(trials)
        return list(self._rows)

    def row(self, number: int) -> Row:
        """One trial.

        Raises:
            UnknownTrial: There is no such number.
        """
        found = self._some_rows([number])
        if found:
            return found[0]
        numbers = [row.number for row in self.rows()]
        last = f"0 to {numbers[-1]}" if numbers else "none yet"
        raise UnknownTrial(f"no trial {number} in study {self.name!r}; its trials: {last}")

    def baseline(self) -> Row | None:
        """Trial 0, once it is complete."""
        rows = self._some_rows([0])
        return rows[0] if rows and rows[0].trial.state == "complete" else None

    def front(self) -> list[Row]:
        """The non-dominated rows, feasible before infeasible, sorted by the first cost."""
        return self._sorted(self._some_rows(sorted(self.on_front)), None)

    @property
    def on_front(self) -> frozenset[int]:
        """The numbers of the non-dominated trials."""
        if self._on_front is None:
            self._on_front = self._non_dominated(self.store.metrics(self.study, self.goals.names))
        return self._on_front

    def best(
        self, where: str | None = None, sort: str | None = None, limit: int | None = None
    ) -> list[Row]:
        """The front, or all complete rows that meet `where`.

        Args:
            where: An expression over metrics, knobs and number, state, seconds.
            sort: A metric (or number, seconds), the best first; default: the first objective
                to be minimised.
            limit: At most so many rows.

        Raises:
            ExpressionError: `where` is malformed or names something unknown.
            UnknownName: `sort` names something unknown.
        """
        if where is None:
            return self._sorted(self._some_rows(sorted(self.on_front)), sort)[:limit]
        expression = self.parse(where)
        rows = [row for row in self.rows() if row.trial.state == "complete"]
        return self._sorted([row for row in rows if expression.holds(_facts(row))], sort)[:limit]

    def parse(self, where: str) -> Expression:
        knobs = [record["name"] for record in self.study.space]
        return parse(where, [*self.metric_names, *knobs, *TRIAL_FIELDS])

    def _sorted(self, rows: list[Row], sort: str | None) -> list[Row]:
        objectives = self.goals.objectives
        if sort is None:
            costs = [name for name, way in objectives.items() if way == "minimize"]
            sort = (costs or list(objectives))[0]
        known = [*self.metric_names, "number", "seconds"]
        if sort not in known:
            raise UnknownName(unknown_name("metric", sort, known))
        greater_first = objectives.get(sort) == "maximize" or (
            sort == self.study.facts["score_name"] and self.study.facts["higher_is_better"]
        )

        def position(row: Row) -> tuple[bool, float, int]:
            value = float(_facts(row).get(sort, float("inf")))
            return (not row.is_feasible, -value if greater_first else value, row.number)

        return sorted(rows, key=position)

    def _some_rows(self, numbers: Sequence[int]) -> list[Row]:
        """The rows of these numbers, as far as there are any: cheap in a long study."""
        if self._rows is not None or len(numbers) > FEW:
            wanted = set(numbers)
            return [row for row in self.rows() if row.number in wanted]
        return self._as_rows(self.store.trials(self.study, numbers=numbers))

    def _non_dominated(self, metrics: Mapping[int, Sequence[float | None]]) -> frozenset[int]:
        """Those on the front; `metrics` are in the order of the goals' names."""
        if not metrics:
            return frozenset()
        kept = self.goals.on_front(np.array(list(metrics.values()), dtype=float))
        return frozenset(np.array(list(metrics))[kept].tolist())

    def _as_rows(self, trials: Sequence[Trial]) -> list[Row]:
        return [self._row(trial, trial.number in self.on_front) for trial in trials]

    def _row(self, trial: Trial, on_front: bool) -> Row:
        if trial.state != "complete":
            return Row(trial, {}, {}, False)
        metrics = trial.metrics
        broken = self.goals.violations(metrics)
        return Row(
            trial,
            {name: metrics[name] for name in self.goals.objectives},
            {str(c): v for c, v in zip(self.goals.constraints, broken, strict=True)},
            on_front,
        )


def _facts(row: Row) -> dict[str, Any]:
    trial = row.trial
    fields = {"number": trial.number, "state": trial.state, "seconds": trial.seconds}
    return {**trial.candidate, **fields, **trial.metrics}
