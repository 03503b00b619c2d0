"""What a stored study says: its trials as rows, the front, and answers to queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from storage import Store, Study, Trial, UnknownTrial

from .errors import UnknownName
from .expressions import Expression, parse
from .goals import Goals
from .metrics import metric_names
from .registry import unknown_name

TRIAL_FIELDS = ("number", "state", "seconds")


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
        self._trials = store.trials(self.study)
        self._rows: list[Row] | None = None

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

    def rows(self) -> list[Row]:
        """All trials by number; trial 0 is the baseline."""
        if self._rows is None:
            complete = [t for t in self._trials if t.state == "complete"]
            front = self.goals.on_front([t.metrics for t in complete])
            on_front = {t.number for t, kept in zip(complete, front, strict=True) if kept}
            self._rows = [self._row(trial, trial.number in on_front) for trial in self._trials]
        return list(self._rows)

    def row(self, number: int) -> Row:
        """One trial.

        Raises:
            UnknownTrial: There is no such number.
        """
        for row in self.rows():
            if row.number == number:
                return row
        last = f"0 to {self._trials[-1].number}" if self._trials else "none yet"
        raise UnknownTrial(f"no trial {number} in study {self.name!r}; its trials: {last}")

    def baseline(self) -> Row | None:
        """Trial 0, once it is complete."""
        rows = self.rows()[:1]
        return rows[0] if rows and rows[0].trial.state == "complete" else None

    def front(self) -> list[Row]:
        """The non-dominated rows, feasible before infeasible, sorted by the first cost."""
        return self._sorted([row for row in self.rows() if row.on_front], None)

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
        rows = self.rows()
        if where is None:
            found = [row for row in rows if row.on_front]
        else:
            expression = self.parse(where)
            found = [
                r for r in rows if r.trial.state == "complete" and expression.holds(_facts(r))
            ]
        return self._sorted(found, sort)[:limit]

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
