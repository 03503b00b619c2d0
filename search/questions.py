"""Questions to the complete trials of a study: which rows, under which objectives and limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage import Facts, Study

from .errors import ExpressionError, UnknownName
from .expressions import Comparison, Expression, comparisons, conjuncts, is_limit, parse
from .goals import Goals, parse_objectives
from .metrics import audit_names, audit_ratio_names, drop_name, metric_names
from .nearest import Nearest, nearest
from .registry import unknown_name

FIELDS = ("number", "state", "seconds")  # of a trial, beside its metrics and knobs
NEAREST = 5  # rows that are shown where none meets the limits


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the complete trials.

    Args:
        goals: The objectives and constraints that rows are seen under.
        where: What every row must meet.
        sort: What they are sorted by, a name.
        greater_first: Whether a greater value of it is better.
        wants_front: Whether only the rows are wanted that no other dominates.
        metrics: The names of metrics in all that.
        knobs: Those of knobs.
    """

    goals: Goals
    where: Expression | None
    sort: str
    greater_first: bool
    wants_front: bool
    metrics: tuple[str, ...]
    knobs: tuple[str, ...]

    @property
    def limits(self) -> tuple[Expression, ...]:
        """What a row must meet to be an answer, each by itself."""
        asked = () if self.where is None else conjuncts(self.where)
        return tuple(dict.fromkeys((*asked, *self.goals.constraints)))


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer to a question, as numbers of trials.

    Args:
        numbers: The best first.
        complete: How many trials are complete.
        lacking: Of these how many were left out, by the metric that they have not got.
        nearest: Where nothing meets the limits of the question: what comes nearest. `numbers` are
            then those of the least broken rows, or none.
    """

    numbers: tuple[int, ...]
    complete: int
    lacking: Mapping[str, int]
    nearest: Nearest | None


def known_metrics(study: Study) -> list[str]:
    """All metrics that trials of a study may have, in the order in which they are shown."""
    score, sizes = study.facts["score_name"], study.config["runtime"]["batch_sizes"]
    return [*metric_names(score, sizes), *audit_names(score), *audit_ratio_names(sizes)]


def question(
    study: Study, where: str | None = None, sort: str | None = None, objectives: str | None = None
) -> Question:
    """What `best` is asked.

    With `objectives` the limits are those of `where`, or the study's own without it; without
    `objectives`, `where` asks for all rows that meet it, and the study's constraints hold too.

    Args:
        objectives: Such as `accuracy: max, size_bytes: min`; default: the study's.

    Raises:
        ExpressionError: `where` or `objectives` are malformed, or `where` names something unknown.
        UnknownName: `sort` or `objectives` name something unknown.
    """
    metrics, own = known_metrics(study), Goals.of_config(study.config)
    knobs = [record["name"] for record in study.space]
    wanted = None if where is None else parse(where, [*metrics, *knobs, *FIELDS])
    if wanted is not None:
        _check_literals(wanted, metrics, study.space)
    limits = [] if wanted is None else _limits(wanted, metrics)
    if objectives is not None:
        asked = parse_objectives(objectives)
        for name in asked:
            _check(name, metrics)
        goals = Goals(asked, own.constraints if wanted is None else tuple(limits))
    else:
        goals = Goals(own.objectives, tuple(dict.fromkeys([*own.constraints, *limits])))
    if sort is None:
        score = study.facts["score_name"]
        costs = goals.costs(score, drop_name(score), *audit_names(score))
        sort = list(goals.objectives)[costs[0] if costs else 0]
    _check(sort, [*metrics, "number", "seconds"])
    names = {*goals.names, sort, *(wanted.names() if wanted else ())}
    return Question(
        goals,
        wanted,
        sort,
        _greater_first(sort, study, goals.objectives),
        wanted is None or objectives is not None,
        tuple(name for name in metrics if name in names),
        tuple(name for name in knobs if name in names),
    )


def ranked(asked: Question, facts: Facts) -> Ranking:
    """The rows that a question asks for, feasible before infeasible, the best first.

    Args:
        facts: With the metrics and knobs of the question.
    """
    columns = [facts.columns[name] for name in asked.metrics]
    kept = facts.numbers
    if any(len(column) < len(kept) for column in columns):
        kept = tuple(n for n in kept if all(n in column for column in columns))
    counts = {name: len(facts.columns[name]) for name in asked.metrics}
    lacking = {n: len(facts.numbers) - c for n, c in counts.items() if c < len(facts.numbers)}
    where = asked.where
    meeting = kept if where is None else [n for n in kept if where.holds(facts.row(n))]
    names = asked.goals.names
    table = np.array([_column(facts, name, meeting) for name in names], dtype=float)
    table = table.reshape(len(names), len(meeting)).T
    broken = asked.goals.broken(table)
    positions: Iterable[int] = range(len(meeting))
    if asked.wants_front and meeting:
        positions = np.flatnonzero(asked.goals.on_front(table)).tolist()
    sign = -1.0 if asked.greater_first else 1.0
    values = [sign * float(value) for value in _column(facts, asked.sort, meeting)]
    order = sorted(positions, key=lambda i: (bool(broken[i]), values[i], meeting[i]))
    close = None
    if kept and broken.all():  # or none of them meets `where`
        by_value = dict(zip(kept, _column(facts, asked.sort, kept), strict=True))
        by_sort = sorted(kept, key=lambda n: sign * float(by_value[n]))
        found = frozenset() if where is None else frozenset(meeting)  # and broke a constraint
        close = nearest(asked.limits, {n: facts.row(n) for n in by_sort}, NEAREST, found)
    return Ranking(tuple(meeting[i] for i in order), len(facts.numbers), lacking, close)


def _column(facts: Facts, name: str, numbers: Sequence[int]) -> list[Any]:
    """The values under a name, such as a metric, of these trials, which all have it."""
    if name == "number":
        return list(numbers)
    return list(map(facts.columns[name].__getitem__, numbers))


def _limits(where: Expression, metrics: Sequence[str]) -> list[Comparison]:
    """What a `where` says as constraints could: they get verdicts."""
    return [
        part
        for part in conjuncts(where)
        if isinstance(part, Comparison) and is_limit(part) and part.name in metrics
    ]


def _check_literals(
    where: Expression, metrics: Sequence[str], space: Sequence[Mapping[str, Any]]
) -> None:
    """Numbers compare with numbers, and choices with their values: anything else holds nowhere.

    Raises:
        ExpressionError
    """
    words: dict[str, list[str]] = {}
    for knob in space:
        values = knob["values"] if knob["kind"] == "choice" else []
        if any(isinstance(value, (str, bool)) for value in values):
            words[knob["name"]] = [
                str(v).lower() if isinstance(v, bool) else str(v) for v in values
            ]
    numbers = {*metrics, *(knob["name"] for knob in space), "number", "seconds"} - words.keys()
    for part in comparisons(where):
        word = part.literal
        if part.name in numbers and isinstance(word, str):
            raise ExpressionError(f"{part.name} is a number, so it takes a number, got {word!r}")
        if part.name in words and word not in words[part.name]:
            shown = word if isinstance(word, str) else f"{word:g}"
            known = unknown_name("value", shown, words[part.name])
            raise ExpressionError(f"{part.name} {known}")
        if part.name == "state" and word != "complete" and part.op != "!=":
            raise ExpressionError(
                f"only complete trials are ranked, got state {part.op} {word!r}; `naslite trials`"
                " lists the others"
            )


def _check(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UnknownName(unknown_name("metric", name, known))


def _greater_first(name: str, study: Study, objectives: Mapping[str, str]) -> bool:
    if name in objectives:
        return objectives[name] == "maximize"
    score = study.facts["score_name"]
    if name in (score, audit_names(score)[0]):
        return bool(study.facts["higher_is_better"])
    return name.startswith("throughput_per_s")
