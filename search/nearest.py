"""When nothing meets the limits: the rows that come nearest, and which limit binds."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .expressions import Comparison, Expression, shortfall


@dataclass(frozen=True, slots=True)
class Gap:
    """How the nearest row does against one limit.

    Args:
        limit: An expression, in words.
        metric: What it bounds, if it compares a value with a number; else empty.
        value: Of the nearest row; None if it has none.
        bound: That number.
        shortfall: How far the row is off, relative to the bound; 0 = met.
        meeting: How many rows meet this limit.
        without: How many rows meet all the others.
        binds: Whether this limit is what leaves nothing (see `Nearest`).
    """

    limit: str
    metric: str
    value: float | None
    bound: float | None
    shortfall: float
    meeting: int
    without: int
    binds: bool


@dataclass(frozen=True, slots=True)
class Nearest:
    """The rows with the least total shortfall, after any preferred ones, and how the first does.

    A limit binds if rows would meet all the others. Where there is none such, the one that the
    nearest row breaks most binds: more than one limit is in the way then.

    Args:
        numbers: Of the rows, the nearest first.
        rows: Out of how many.
    """

    numbers: tuple[int, ...]
    rows: int
    gaps: tuple[Gap, ...]

    @property
    def binding(self) -> tuple[Gap, ...]:
        return tuple(gap for gap in self.gaps if gap.binds)


def nearest(
    limits: Sequence[Expression],
    facts: Mapping[int, Mapping[str, Any]],
    most: int,
    preferred: Container[int] = (),
) -> Nearest:
    """The rows that come nearest to meeting the limits, none of which meets them all.

    Args:
        facts: Values by name, by the number of the row; ties keep their order.
        most: Rows that are wanted.
        preferred: Numbers of rows that come before all others.
    """
    off = {number: [shortfall(x, row) for x in limits] for number, row in facts.items()}
    numbers = sorted(off, key=lambda n: (n not in preferred, sum(off[n])))[:most]
    if not numbers:
        return Nearest((), 0, ())
    # Of each row how many limits it breaks: without one of them, it must break no other.
    broken = {number: sum(value > 0 for value in values) for number, values in off.items()}
    row, values = facts[numbers[0]], off[numbers[0]]
    without = [
        sum(broken[n] == (each[i] > 0) for n, each in off.items()) for i in range(len(limits))
    ]
    most_broken = max(range(len(limits)), key=lambda i: values[i])
    gaps = []
    for i, limit in enumerate(limits):
        metric, value, bound = _numbers(limit, row)
        meeting = sum(each[i] == 0 for each in off.values())
        binds = without[i] > 0 if any(without) else i == most_broken
        gaps.append(Gap(str(limit), metric, value, bound, values[i], meeting, without[i], binds))
    return Nearest(tuple(numbers), len(facts), tuple(gaps))


def _numbers(limit: Expression, row: Mapping[str, Any]) -> tuple[str, float | None, float | None]:
    """The name, its value and the bound of a comparison with a number."""
    if not isinstance(limit, Comparison) or isinstance(limit.literal, str):
        return "", None, None
    value = row.get(limit.name)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return limit.name, float(value or 0) if is_number else None, float(limit.literal)
