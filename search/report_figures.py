"""What the figures of a report draw: complete trials as points, and as lines over their knobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .formats import short
from .knob_importance import Importance
from .metrics import AUDIT
from .results import Row, StudyResults

LINES = 1_000  # of the parallel coordinates
KNOB_AXES = 10
LABELLED = 1_000  # trials whose candidate is written out: the front, then the latest
LABEL = 160  # characters of a candidate in short form


@dataclass(frozen=True, slots=True)
class Points:
    """Every complete trial as a point.

    Args:
        kinds: baseline, front, feasible or infeasible; in the order of `numbers`, as are the rest.
        values: By metric; None where a trial has not got it.
    """

    numbers: tuple[int, ...]
    kinds: tuple[str, ...]
    labels: tuple[str, ...]
    values: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the parallel coordinates.

    Args:
        names: What the numbers mean, if they count values of a choice.
    """

    name: str
    values: tuple[float, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lines:
    """Complete trials as lines over searched knobs and objectives."""

    numbers: tuple[int, ...]
    kinds: tuple[str, ...]
    axes: tuple[Axis, ...]
    note: str


def is_audit(metric: str) -> bool:
    return metric.startswith(AUDIT)


def label(results: StudyResults, row: Row) -> str:
    """A candidate in short form, however many knobs it has."""
    text = short(results, row)
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _kind(row: Row) -> str:
    if row.number == 0:
        return "baseline"
    if not row.is_feasible:
        return "infeasible"
    return "front" if row.on_front else "feasible"


def points(results: StudyResults, rows: Sequence[Row]) -> Points:
    """Every complete trial, and the metrics that a person may choose as axes."""
    complete = [row for row in rows if row.trial.state == "complete"]
    metrics = [row.metrics for row in complete]
    known = dict.fromkeys(name for found in metrics for name in found if not is_audit(name))
    names = [name for name in results.metric_names if name in known]
    first = sorted(complete, key=lambda row: (not row.on_front, -row.number))[:LABELLED]
    labelled = {0, *(row.number for row in first)}
    return Points(
        tuple(row.number for row in complete),
        tuple(map(_kind, complete)),
        tuple(label(results, row) if row.number in labelled else "" for row in complete),
        {name: tuple(found.get(name) for found in metrics) for name in names},
    )


def lines(results: StudyResults, rows: Sequence[Row], found: Sequence[Importance]) -> Lines | None:
    """The knobs that matter most and the objectives, over the front and the latest others."""
    complete = [row for row in rows if row.trial.state == "complete" and row.number]
    searched = [k for k in results.study.space if k["kind"] != "choice" or len(k["values"]) > 1]
    if not complete or not searched:
        return None
    best = sorted(complete, key=lambda row: (not row.on_front, -row.number))[:LINES]
    shown = sorted(best, key=lambda row: row.number)
    weight = Counter[str]()
    for one in found:
        weight.update(one.shares)
    kept = {k["name"] for k in sorted(searched, key=lambda k: -weight[k["name"]])[:KNOB_AXES]}
    axes = [_knob_axis(knob, shown) for knob in searched if knob["name"] in kept]
    axes += [
        Axis(name, tuple(row.metrics[name] for row in shown)) for name in results.goals.objectives
    ]
    note = f"{len(shown)} of {len(complete)} trials; an inactive knob stands at its neutral value."
    if len(searched) > len(kept):
        note += f" The {len(kept)} of {len(searched)} knobs that matter most are shown."
    return Lines(tuple(row.number for row in shown), tuple(map(_kind, shown)), tuple(axes), note)


def _knob_axis(knob: Mapping[str, Any], rows: Sequence[Row]) -> Axis:
    values = [row.trial.candidate.get(knob["name"], knob["neutral"]) for row in rows]
    if knob["kind"] != "choice":
        return Axis(knob["name"], tuple(map(float, values)))
    # Values that are not the knob's own: of the baseline, and of continued trainings.
    marks = list(dict.fromkeys([*knob["values"], *values]))
    if not any(isinstance(mark, str) for mark in marks):
        marks.sort()
    positions = tuple(float(marks.index(value)) for value in values)
    return Axis(knob["name"], positions, tuple(map(str, marks)))
