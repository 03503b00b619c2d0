"""Knobs: the named, typed dimensions of a search space."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

PER_LAYER = "@"  # in the name of a knob that each layer, block or group of a model has

Value = int | float | str | bool

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, options: value in options,
}


class SpaceError(ValueError):
    """A knob, a space or a candidate breaks a rule; `path` says which part (`high`, `step`...)."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Condition:
    """When a knob is active: its parent is active and `<parent's value> <op> <value>` holds."""

    knob: str
    op: str
    value: Value | tuple[Value, ...]

    def __post_init__(self) -> None:
        if self.op not in _OPERATORS:
            raise SpaceError(f"op must be one of {', '.join(_OPERATORS)}, got {self.op!r}")
        if isinstance(self.value, list):  # JSON has no tuples
            object.__setattr__(self, "value", tuple(self.value))

    def holds(self, value: Value) -> bool:
        return _OPERATORS[self.op](value, self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob(ABC):
    """What every knob has.

    Args:
        neutral: The value that means "no compression"; it need not be among the values searched.
        default: What is searched where a config does not mention the knob: a scalar, a list or a
            range, as in a config; None = all values.
        direction: 1 if later (greater) values compress more, -1 if less, 0 if neither is known.
        active_when: The condition under which the knob means anything; None = always.
    """

    KIND: ClassVar[str]

    name: str
    neutral: Value
    default: Any = None
    direction: int = 0
    active_when: Condition | None = None

    @property
    @abstractmethod
    def size(self) -> int | None:
        """The number of levels; None for a continuous knob."""

    @property
    @abstractmethod
    def ordered(self) -> bool:
        """Whether neighbouring levels are neighbours in meaning."""

    @abstractmethod
    def normal(self, value: object) -> Value:
        """The value in the knob's own type (4 -> 4.0 for a Float).

        Raises:
            SpaceError: The value is not one of the knob's.
        """

    @abstractmethod
    def at(self, index: int) -> Value:
        """The level with this index, 0 <= index < size."""

    @abstractmethod
    def index(self, value: Value) -> int:
        """The index of a level; the inverse of `at`."""

    @abstractmethod
    def to_unit(self, value: Value) -> float:
        """The value's position in [0, 1], on a log scale where the knob is logarithmic."""

    @abstractmethod
    def from_unit(self, position: float) -> Value:
        """The nearest value to a position in [0, 1] (clipped); the inverse of `to_unit`."""

    @abstractmethod
    def adjacent(self, value: Value) -> list[Value]:
        """The values one move away: the levels beside it if ordered, else all others."""

    @abstractmethod
    def narrow(self, spec: object) -> Knob:
        """The knob restricted by what a config says: a scalar, a list or a range.

        Raises:
            SpaceError: The spec is malformed or leaves the knob's own domain.
        """

    def least_compressed(self) -> Value:
        """The value nearest to no compression: the neutral one, if it is the knob's own."""
        if self.contains(self.neutral):
            return self.normal(self.neutral)
        if self.direction:
            return self.from_unit(0.0 if self.direction > 0 else 1.0)
        low, high = self.from_unit(0.0), self.from_unit(1.0)
        return high if self._distance(high) < self._distance(low) else low

    def most_compressed(self) -> Value:
        """The value at the end of the knob's direction; without one, the end far from neutral."""
        low, high = self.from_unit(0.0), self.from_unit(1.0)
        if self.direction:
            return high if self.direction > 0 else low
        farther_low = self._distance(low) > self._distance(high) or high == self.neutral
        return low if farther_low else high

    def _distance(self, value: Value) -> float:
        """How far a number is from the neutral one; 0 for what is no number."""
        both = (value, self.neutral)
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in both):
            return abs(float(value) - float(self.neutral))
        return 0.0

    @property
    def is_fixed(self) -> bool:
        return self.size == 1

    def contains(self, value: object) -> bool:
        try:
            self.normal(value)
        except SpaceError:
            return False
        return True

    def resolve(self, spec: object = None) -> Knob:
        """The knob as one study searches it; `spec` None takes the default."""
        if spec is None:
            spec = self.default
        return replace(self if spec is None else self.narrow(spec), default=None)

    def fixed(self, value: object) -> Choice:
        return self.chosen([value], ordered=True)

    def chosen(self, values: list[Any], *, ordered: bool) -> Choice:
        """A Choice among some of the knob's values, in the knob's own order where it has one."""
        levels = []
        for value in values:
            if isinstance(value, (list, dict)) or value is None:
                raise SpaceError(f"a value must be a number, text or true/false, got {value!r}")
            levels.append(self.normal(value))
        if not levels:
            raise SpaceError("a list must name at least one value, got []")
        if _repeats(levels):
            raise SpaceError(f"the values of a list must differ, got {values!r}")
        if ordered and len(levels) > 1:
            levels.sort(key=self.to_unit)
        return Choice(
            name=self.name,
            values=tuple(levels),
            neutral=self.neutral,
            ordered=ordered,
            direction=self.direction,
            active_when=self.active_when,
        )

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"kind": self.KIND}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Condition):
                value = {"knob": value.knob, "op": value.op, "value": value.value}
            if value != field.default and field.name != "default":
                record[field.name] = list(value) if isinstance(value, tuple) else value
        return record


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Knob):
    """One of some values; `ordered` if neighbours in the list are neighbours in meaning."""

    KIND = "choice"
    values: tuple[Value, ...]
    ordered: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise SpaceError(f"knob {self.name!r} needs at least one value")
        if _repeats(self.values):
            raise SpaceError(f"the values of knob {self.name!r} must differ, got {self.values!r}")

    @property
    def size(self) -> int:
        return len(self.values)

    def normal(self, value: object) -> Value:
        return self.values[self.index(value)]

    def at(self, index: int) -> Value:
        return self.values[index]

    def index(self, value: object) -> int:
        for i, own in enumerate(self.values):
            if own == value and _same(own, value):
                return i
        known = ", ".join(repr(v) for v in self.values)
        raise SpaceError(f"the value must be one of {known}, got {value!r}")

    def to_unit(self, value: Value) -> float:
        return self.index(value) / max(1, self.size - 1)

    def from_unit(self, position: float) -> Value:
        return self.values[round(clip(position) * (self.size - 1))]

    def adjacent(self, value: Value) -> list[Value]:
        i = self.index(value)
        if self.ordered:
            return [self.values[j] for j in (i - 1, i + 1) if 0 <= j < self.size]
        return [v for j, v in enumerate(self.values) if j != i]

    def narrow(self, spec: object) -> Knob:
        if isinstance(spec, dict):
            raise SpaceError(f"takes one value or a list of values, not a range; got {spec!r}")
        return self.chosen(spec if isinstance(spec, list) else [spec], ordered=self.ordered)


def _same(a: object, b: object) -> bool:
    """Equal and of one type, where True is not 1 but 1 is 1.0."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _repeats(values: Sequence[object]) -> bool:
    return any(_same(a, b) for i, a in enumerate(values) for b in values[:i])


def clip(position: float) -> float:
    """The position moved into [0, 1]."""
    return min(1.0, max(0.0, float(position)))
