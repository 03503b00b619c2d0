"""What a stored study says: its trials as rows, the front, and answers to queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from storage import Facts, Store, Study, Trial, UnknownTrial

from .goals import Goals
from .metrics import drop_name, metric_names
from .questions import Question, Ranking, known_metrics, question, ranked
from .verdicts import NOT_PROVEN, verdict_of

MAIN = ("size_bytes", "latency_ms", "latency_ratio", "macs")


@dataclass(frozen=True, slots=True)
class Row:
    """A trial seen under objectives and constraints: the study's, or those of a question.

    Args:
        values: The objectives in their own direction, by metric; empty unless complete.
        violations: By constraint, relative to its bound, 0 = met; empty unless complete.
        verdicts: By constraint, proven, not proven or violated; empty unless complete.
    """

    trial: Trial
    values: Mapping[str, float]
    violations: Mapping[str, float]
    on_front: bool
    verdicts: Mapping[str, str] = field(default_factory=dict)

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
                    "level": m.level,
                    "n": m.n,
                    "noisy": m.noisy,
                }
                for m in trial.measurements
            },
            "values": dict(self.values),
            "violations": dict(self.violations),
            "verdicts": dict(self.verdicts),
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


@dataclass(frozen=True, slots=True)
class Answer:
    """What `best` was asked, and the rows that answer it.

    Args:
        rows: The best first; where nothing meets the limits, those that come nearest.
        found: How many rows there are without a limit on their number.
    """

    question: Question
    ranking: Ranking
    rows: tuple[Row, ...]
    found: int


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
        return self.shown()

    def shown(self, more: Sequence[str] = ()) -> list[str]:
        """The metrics that tables show, and some more."""
        score = self.study.facts["score_name"]
        wanted = {score, drop_name(score), *self.goals.names, *more}
        return [
            name
            for name in known_metrics(self.study)
            if name in wanted or name.partition("_batch")[0] in MAIN
        ]

    def rows(self) -> list[Row]:
        """All trials by number; trial 0 is the baseline."""
        if self._rows is None:
            trials = self.store.trials(self.study)
            asked = question(self.study)
            self._on_front = frozenset(ranked(asked, facts(asked, trials)).numbers)
            self._rows = [self._row(trial, self.goals, self._on_front) for trial in trials]
        return list(self._rows)

    def row(self, number: int) -> Row:
        """One trial.

        Raises:
            UnknownTrial: There is no such number.
        """
        found = self.seen([number])
        if found:
            return found[0]
        numbers = [row.number for row in self.rows()]
        last = f"0 to {numbers[-1]}" if numbers else "none yet"
        raise UnknownTrial(f"no trial {number} in study {self.name!r}; its trials: {last}")

    def baseline(self) -> Row | None:
        """Trial 0, once it is complete."""
        rows = self.seen([0])
        return rows[0] if rows and rows[0].trial.state == "complete" else None

    def front(self) -> list[Row]:
        """The non-dominated rows, feasible before infeasible, sorted by the first objective
        that is not about the score."""
        return self.best()

    @property
    def on_front(self) -> frozenset[int]:
        """The numbers of the non-dominated trials."""
        if self._on_front is None:
            _, ranking = self._ranked(None, None, None)
            self._on_front = frozenset(ranking.numbers)
        return self._on_front

    def best(
        self,
        where: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        objectives: str | None = None,
    ) -> list[Row]:
        """The front, or all complete rows that meet `where`; none if nothing does.

        Args:
            where: An expression over metrics, knobs and number, state, seconds.
            sort: A metric (or number, seconds), the best first; default: the first objective
                that is not about the score.
            limit: At most so many rows.
            objectives: Such as `accuracy: max, size_bytes: min`: the front under these, with
                `where` instead of the study's constraints.

        Raises:
            ExpressionError: `where` or `objectives` are malformed or name something unknown.
            UnknownName: `sort` names something unknown.
        """
        asked, ranking = self._ranked(where, sort, objectives)
        return self._seen(asked, ranking.numbers[:limit], ranking.numbers)

    def answer(
        self,
        where: str | None = None,
        sort: str | None = None,
        limit: int | None = None,
        objectives: str | None = None,
    ) -> Answer:
        """Like `best`, but never without rows while there are any: where nothing meets the
        limits these are the ones that come nearest, and the ranking says which limit binds."""
        asked, ranking = self._ranked(where, sort, objectives)
        close = ranking.nearest
        numbers = ranking.numbers if close is None else close.numbers
        rows = self._seen(asked, numbers[:limit], ranking.numbers)
        return Answer(asked, ranking, tuple(rows), len(numbers))

    def seen(self, numbers: Sequence[int]) -> list[Row]:
        """The rows of these numbers in their order, as far as there are any: cheap in a long
        study."""
        if self._rows is None:
            return self._as_rows(numbers, self.goals, self.on_front)
        found = {row.number: row for row in self._rows}
        return [found[number] for number in numbers if number in found]

    def _ranked(
        self, where: str | None, sort: str | None, objectives: str | None
    ) -> tuple[Question, Ranking]:
        asked = question(self.study, where, sort, objectives)
        if self._rows is None:
            return asked, ranked(asked, self.store.facts(self.study, asked.metrics, asked.knobs))
        return asked, ranked(asked, facts(asked, [row.trial for row in self._rows]))

    def _seen(self, asked: Question, numbers: Sequence[int], front: Sequence[int]) -> list[Row]:
        """The rows of these numbers; `front` are those that the question puts on its front."""
        if asked.goals != self.goals:
            on_front = frozenset(front) if asked.wants_front else self.on_front
            return self._as_rows(numbers, asked.goals, on_front)
        if self._on_front is None and asked.wants_front:
            self._on_front = frozenset(front)
        return self.seen(numbers)

    def _as_rows(
        self, numbers: Sequence[int], goals: Goals, on_front: frozenset[int]
    ) -> list[Row]:
        if self._rows is None:
            trials = self.store.trials(self.study, numbers=list(numbers))
        else:
            trials = [row.trial for row in self._rows]
        found = {trial.number: trial for trial in trials}
        return [self._row(found[n], goals, on_front) for n in numbers if n in found]

    def _row(self, trial: Trial, goals: Goals, on_front: frozenset[int]) -> Row:
        if trial.state != "complete":
            return Row(trial, {}, {}, False)
        metrics, measured = trial.metrics, {m.metric: m for m in trial.measurements}
        limits = goals.constraints
        broken = dict(zip(map(str, limits), goals.violations(metrics), strict=True))
        return Row(
            trial,
            {name: metrics[name] for name in goals.objectives if name in metrics},
            broken,
            trial.number in on_front,
            {
                str(limit): verdict_of(limit, measured) if limit.name in measured else NOT_PROVEN
                for limit in limits
            },
        )


def facts(asked: Question, trials: Sequence[Trial]) -> Facts:
    """What a question sees of the complete trials among these, as `Store.facts` reads it."""
    complete = [trial for trial in trials if trial.state == "complete"]
    values = {t.number: {**t.candidate, **t.metrics, "seconds": t.seconds} for t in complete}
    columns = {
        name: {number: found[name] for number, found in values.items() if name in found}
        for name in ("seconds", *asked.metrics, *asked.knobs)
    }
    return Facts(tuple(values), columns)
