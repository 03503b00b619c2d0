"""Moves towards more compression: the levels of a knob as rungs away from its neutral value."""

from __future__ import annotations

from .knobs import Knob, Value
from .space import Candidate, Space

Move = tuple[str, Value]
Ways = tuple[tuple[Value, ...], ...]


class Ladder:
    """The rungs of every knob of a space, and the moves along them.

    Args:
        levels: The most steps into which the range of a numeric knob is divided.
    """

    def __init__(self, space: Space, levels: int) -> None:
        self.space = space
        self.levels = levels
        self._ways: dict[tuple[str, type, Value], Ways] = {}

    def next_moves(self, candidate: Candidate) -> list[Move]:
        """Every one-knob move by one rung towards more compression."""
        return [
            (name, way[0])
            for name, value in candidate.items()
            for way in self._further(name, value)
        ]

    def single_moves(self, candidate: Candidate) -> list[Move]:
        """Every one-knob move to any rung that compresses more, inactive knobs included."""
        return [
            (knob.name, rung)
            for knob in self.space
            for way in self._further(knob.name, _value(knob, candidate))
            for rung in way
        ]

    def activation(self, candidate: Candidate, name: str) -> list[Move] | None:
        """The moves that switch a knob on, outermost first; [] if it is on, None if none can."""
        when = self.space[name].active_when
        if when is None or name in candidate:
            return []
        outer = self.activation(candidate, when.knob)
        if outer is None:
            return None
        value = _value(self.space[when.knob], candidate)
        if when.holds(value):
            return outer
        for way in self._further(when.knob, value):
            for rung in way:
                if when.holds(rung):
                    return [*outer, (when.knob, rung)]
        return None

    def _further(self, name: str, value: Value) -> Ways:
        place = name, type(value), value  # True is not 1
        if place not in self._ways:
            self._ways[place] = further_rungs(self.space[name], value, self.levels)
        return self._ways[place]


def rungs(knob: Knob, levels: int) -> list[Value]:
    """The values of a knob that a search by steps visits, in the knob's own order.

    Every level of a Choice; of a number every level, or where there are more than `levels` steps
    (or a continuum) the values nearest to `levels` equal steps through the range.
    """
    if knob.size is not None and (not knob.ordered or knob.size <= levels + 1):
        return [knob.at(i) for i in range(knob.size)]
    found: list[Value] = []
    for i in range(levels + 1):
        value = knob.from_unit(i / levels)
        if value not in found:
            found.append(value)
    return found


def further_rungs(knob: Knob, value: Value, levels: int) -> Ways:
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
    here, origin = knob.to_unit(value), knob.to_unit(neutral)
    up = tuple(v for v in every if knob.to_unit(v) > here)
    down = tuple(v for v in reversed(every) if knob.to_unit(v) < here)
    ways = []
    if knob.direction > 0 or (knob.direction == 0 and here >= origin):
        ways.append(up)
    if knob.direction < 0 or (knob.direction == 0 and here <= origin):
        ways.append(down)
    return tuple(way for way in ways if way)


def _value(knob: Knob, candidate: Candidate) -> Value:
    """Its value in the candidate, or the one it would start with."""
    return candidate.get(knob.name, knob.least_compressed())
