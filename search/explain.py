"""One row beside the baseline and its nearest neighbours on the front, knob by knob."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from storage import Measurement

from .errors import NasliteError
from .formats import TIMES, UNPAIRED, format_value, plain, short
from .results import Row, StudyResults
from .verdicts import speed

NEIGHBOURS = 2


@dataclass(frozen=True, slots=True)
class Explanation:
    """A row and those that it is compared with.

    Args:
        baseline: None where the row is the baseline itself.
        neighbours: The nearest on the front, in the objectives; the nearest first.
        dominated_by: Those of the front that are no worse in any objective, and better in one, or
            that break the constraints less.
    """

    results: StudyResults
    row: Row
    baseline: Row | None
    neighbours: tuple[Row, ...]
    dominated_by: tuple[int, ...]

    @property
    def columns(self) -> tuple[Row, ...]:
        """All of them: the baseline, the row, its neighbours."""
        return tuple(r for r in (self.baseline, self.row, *self.neighbours) if r is not None)

    @property
    def knobs(self) -> dict[str, list[Any]]:
        """The knobs in which the columns differ, in the order of the space; None where a knob is
        inactive."""
        names = [record["name"] for record in self.results.study.space]
        values = {n: [row.trial.candidate.get(n) for row in self.columns] for n in names}
        return {
            name: found for name, found in values.items() if found.count(found[0]) < len(found)
        }

    @property
    def metrics(self) -> dict[str, list[Measurement | None]]:
        """Every metric that one of the columns has."""
        measured = [{m.metric: m for m in row.trial.measurements} for row in self.columns]
        names = dict.fromkeys(name for found in measured for name in found)
        return {name: [found.get(name) for found in measured] for name in names}

    def to_json(self) -> dict[str, Any]:
        def by_number(values: Sequence[Any]) -> dict[str, Any]:
            return {str(r.number): v for r, v in zip(self.columns, values, strict=True)}

        rows = [row.to_json() for row in self.columns]
        return {
            "number": self.row.number,
            "on_front": self.row.on_front,
            "dominated_by": list(self.dominated_by),
            "neighbours": [row.number for row in self.neighbours],
            "knobs": {name: by_number(found) for name, found in self.knobs.items()},
            "metrics": {
                name: by_number([row["metrics"].get(name) for row in rows])
                for name in self.metrics
            },
            "verdicts": by_number([dict(row.verdicts) for row in self.columns]),
        }


def explain(results: StudyResults, number: int) -> Explanation:
    """Compare a row with the baseline and its nearest neighbours on the front.

    Near is measured in the objectives, each divided by its range over the front and the row.

    Raises:
        UnknownTrial: There is no such trial.
        NasliteError: It is not complete.
    """
    row = results.row(number)
    if row.trial.state != "complete":
        cause = f" ({row.trial.cause})" if row.trial.cause else ""
        raise NasliteError(
            f"trial {number} of {results.name!r} has no figures to compare: it is"
            f" {row.trial.state}{cause}; `naslite show` tells more"
        )
    front = [other for other in results.front() if other.number != number]
    costs = {r.number: results.goals.values(r.metrics) for r in (row, *front)}
    ranges = [max(column) - min(column) or 1.0 for column in zip(*costs.values(), strict=True)]

    def distance(other: Row) -> float:
        own, its = costs[number], costs[other.number]
        return math.hypot(*((a - b) / r for a, b, r in zip(own, its, ranges, strict=True)))

    front.sort(key=lambda other: (distance(other), other.number))
    dominating = [r for r in front if not row.on_front and _dominates(r, row, costs)]
    baseline = results.baseline() if number else None
    return Explanation(
        results,
        row,
        baseline,
        tuple(r for r in front if r.number)[:NEIGHBOURS],
        tuple(r.number for r in dominating),
    )


def explanation_view(explained: Explanation) -> RenderableType:
    """The knobs that differ and all metrics as a table with a column for each row."""
    number, columns = explained.row.number, explained.columns
    table = Table(box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("", overflow="fold")
    for row in columns:
        kind = "baseline" if row.number == 0 else ("" if row.number == number else "front")
        table.add_column(f"#{row.number}\n{kind}", justify="right")
    for name, values in explained.knobs.items():
        table.add_row(name, *("" if value is None else plain(value) for value in values))
    table.add_section()
    position = columns.index(explained.row)
    for name, found in explained.metrics.items():
        own = found[position]
        table.add_row(name, *(_cell(m, own, i == position) for i, m in enumerate(found)))
    table.add_section()
    for limit in explained.row.verdicts:
        table.add_row(limit, *(row.verdicts.get(limit, "") for row in columns))
    equal = len(explained.results.study.space) - len(explained.knobs)
    lines = [
        f"trial {number} of {explained.results.name}: {short(explained.results, explained.row)}"
    ]
    lines.append(_standing(explained))
    notes = [f"{TIMES}: times the value of #{number}; [ ]: its interval"]
    if equal:
        notes.append(f"{equal} more knobs are the same in all of these")
    return Group(*lines, table, *notes)


def lines_of(explained: Explanation) -> list[Mapping[str, Any]]:
    """The same flat, for CSV: a line for each knob that differs and for each metric."""
    numbers = [f"#{row.number}" for row in explained.columns]
    found = [
        {"kind": "knob", "name": name, **dict(zip(numbers, values, strict=True))}
        for name, values in explained.knobs.items()
    ]
    for name, measured in explained.metrics.items():
        values = [None if m is None else m.value for m in measured]
        found.append({"kind": "metric", "name": name, **dict(zip(numbers, values, strict=True))})
    return list(found)


def _standing(explained: Explanation) -> str:
    if explained.row.on_front:
        return "on the front: no other trial dominates it"
    if not explained.dominated_by:
        return "not on the front: those on it meet the constraints, or come nearer to it"
    shown = ", ".join(f"#{number}" for number in explained.dominated_by)
    return f"not on the front, dominated by {shown}: as good or better in every objective"


def _dominates(one: Row, other: Row, costs: Mapping[int, tuple[float, ...]]) -> bool:
    """In the objectives; a row that breaks the constraints more is behind whatever those say."""
    if sum(one.violations.values()) != sum(other.violations.values()):
        return False
    a, b = costs[one.number], costs[other.number]
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def _cell(m: Measurement | None, own: Measurement | None, is_own: bool) -> str:
    """Value, what it is to the explained row's, and the interval."""
    if m is None:
        return ""
    cell = format_value(m.metric, m.value)
    # A drop is a difference, and times of different moments do not compare: their ratio does.
    is_comparable = not m.metric.endswith("_drop") and not m.metric.startswith(
        ("latency_ms", "throughput_per_s", *UNPAIRED)
    )
    if own is not None and own.value > 0 and not is_own and is_comparable:
        cell += f" {TIMES}{m.value / own.value:.3f}"
    if m.low is not None and m.high is not None and m.low != m.high:
        low, high = format_value(m.metric, m.low), format_value(m.metric, m.high)
        cell += f"\n[{low}, {high}]"
    if m.metric.startswith("latency_ratio") and m.low != m.high:
        cell += f"\n{speed(m)}" + ", noisy" * m.noisy
    return cell
