"""Moves towards more compression: the levels of a knob as rungs away from its neutral value."""

from __future__ import annotations

from functools import lru_cache

from .knobs import Knob, Value
from .space import Candidate, Space

Move = tuple[str, Value]


@lru_cache(maxsize=10_000)
def rungs(knob: Knob, levels: int) -> tuple[Value, ...]:
    """The values of a knob that a search by steps visits, in the knob's own order.

    Every level of a Choice; of a number every level, or where there are more than `levels` steps
    (or a continuum) the values nearest to `levels` equal steps through the range.
    """
    if knob.size is not None and (not knob.ordered or knob.size <= levels + 1):
        return tuple(knob.at(i) for i in range(knob.size))
    found: list[Value] = []
    for i in range(levels + 1):
        value = knob.from_unit(i / levels)
        if value not in found:
            found.append(value)
    return tuple(found)


@lru_cache(maxsize=10_000)
def further_rungs(knob: Knob, value: Value, levels: int) -> tuple[tuple[Value, ...], ...]:
    """The rungs that compress more than `value`, nearest first; one list for each way to go.

    Along the knob's direction where it has one, else away from the neutral value. Levels without
    an order are ways of their own: each leads from the neutral value to one of them, or from one
    to another.
    """
    every = rungs(knob, levels)
    neutral = knob.least_compressed()
    if not knob.ordered:
        known = (knob.index(value), knob.index(neutral))
        return tuple((other,) for i, other in enumerate(every) if i not in known)
    here = knob.to_unit(value)
    up = tuple(v for v in every if knob.to_unit(v) > here)
    down = tuple(v for v in reversed(every) if knob.to_unit(v) < here)
    origin = knob.to_unit(neutral)
    ways = []
    if knob.direction > 0 or (knob.direction == 0 and here >= origin):
        ways.append(up)
    if knob.direction < 0 or (knob.direction == 0 and here <= origin):
        ways.append(down)
    return tuple(way for way in ways if way)


def next_moves(space: Space, candidate: Candidate, levels: int) -> list[Move]:
    """Every one-knob move by one rung towards more compression."""
    return [
        (knob.name, way[0])
        for knob in space
        if knob.name in candidate
        for way in further_rungs(knob, candidate[knob.name], levels)
    ]


def single_moves(space: Space, candidate: Candidate, levels: int) -> list[Move]:
    """Every one-knob move to any rung that compresses more, inactive knobs included."""
    found: list[Move] = []
    for knob in space:
        value = candidate.get(knob.name, knob.least_compressed())
        found += [(knob.name, rung) for way in further_rungs(knob, value, levels) for rung in way]
    return found


def activation(space: Space, candidate: Candidate, name: str, levels: int) -> list[Move] | None:
    """The moves that switch a knob on, outermost first; [] if it is on, None if none can."""
    knob = space[name]
    if knob.active_when is None or name in candidate:
        return []
    parent, when = space[knob.active_when.knob], knob.active_when
    outer = activation(space, candidate, parent.name, levels)
    if outer is None:
        return None
    value = candidate.get(parent.name, parent.least_compressed())
    reachable = [value, *(v for way in further_rungs(parent, value, levels) for v in way)]
    for rung in reachable:
        if when.holds(rung):
            return outer if rung == value else [*outer, (parent.name, rung)]
    return None


def moved(space: Space, candidate: Candidate, moves: list[Move]) -> dict[str, Value]:
    """The candidate after some moves."""
    return space.complete({**candidate, **dict(moves)})
