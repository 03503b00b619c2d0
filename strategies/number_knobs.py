"""Int and Float: numeric knobs with a range, a step or a log scale. And any knob from JSON."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from .knobs import Choice, Condition, Knob, SpaceError, Value, clip

_TOLERANCE = 1e-6  # of a step: a value this near to a level is that level


@dataclass(frozen=True, slots=True, kw_only=True)
class _Number(Knob):
    """A number in [low, high]; `step` makes levels, `log` a logarithmic scale (without step)."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def ordered(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise SpaceError(f"low and high must be finite, got {self.low!r} and {self.high!r}")
        if self.low > self.high:
            raise SpaceError(
                f"`low <= high` must hold, got low={self.low!r}, high={self.high!r}", "high"
            )
        if self.log and self.low <= 0:
            raise SpaceError(f"a log range needs `low > 0`, got low={self.low!r}", "low")
        if self.step is None:
            return
        if self.step <= 0:
            raise SpaceError(f"`step > 0` must hold, got step={self.step!r}", "step")
        if self.log and self.step != 1:
            raise SpaceError("a log range takes no step; remove `step` or `log`", "step")
        count = (self.high - self.low) / self.step
        if abs(count - round(count)) > _TOLERANCE:
            last = round(self.low + math.floor(count) * self.step, _decimals(self.step))
            raise SpaceError(
                f"`high - low` must be a multiple of step, got low={self.low!r},"
                f" high={self.high!r}, step={self.step!r}; the last level would be {last!r}",
                "step",
            )

    @abstractmethod
    def _cast(self, value: float) -> Value: ...

    @abstractmethod
    def _check_type(self, value: object, path: str = "") -> float: ...

    @property
    def size(self) -> int | None:
        if self.step is None:
            return 1 if self.low == self.high else None
        return round((self.high - self.low) / self.step) + 1

    def normal(self, value: object) -> Value:
        number = self._check_type(value)
        if not self.low <= number <= self.high:
            raise SpaceError(f"the value must lie in [{self.low}, {self.high}], got {value!r}")
        if self.step is None:
            return self._cast(number)
        level = self.at(self.index(number))
        if abs(float(level) - number) > _TOLERANCE * self.step:
            raise SpaceError(f"must be a level of {self.low} + k x {self.step}, got {value!r}")
        return level

    def at(self, index: int) -> Value:
        if self.step is None:
            return self._cast(self.low)
        level = round(self.low + index * self.step, _decimals(self.step))
        return self._cast(min(max(level, self.low), self.high))

    def index(self, value: object) -> int:
        return round((float(value) - self.low) / self.step) if self.step else 0  # type: ignore[arg-type]

    def to_unit(self, value: Value) -> float:
        if self.low == self.high:
            return 0.0
        scale = math.log if self.log else float
        low, high = scale(self.low), scale(self.high)
        return (scale(float(value)) - low) / (high - low)

    def from_unit(self, position: float) -> Value:
        position = clip(position)
        if self.log:
            number = self.low * (self.high / self.low) ** position
        else:
            number = self.low + position * (self.high - self.low)
        number = min(max(number, self.low), self.high)
        return self._cast(number) if self.step is None else self.at(self.index(number))

    def adjacent(self, value: Value) -> list[Value]:
        if self.step is None:  # continuous: a tenth of the range down and up
            here = self.to_unit(value)
            near = [self.from_unit(here - 0.1), self.from_unit(here + 0.1)]
            return [v for i, v in enumerate(near) if v != value and v not in near[:i]]
        i = self.index(value)
        return [self.at(j) for j in (i - 1, i + 1) if 0 <= j < (self.size or 0)]

    def narrow(self, spec: object) -> Knob:
        if isinstance(spec, list):
            return self.chosen(spec, ordered=True)
        if not isinstance(spec, dict):
            return self.fixed(spec)
        unknown = set(spec) - {"low", "high", "step", "log"}
        if unknown:
            raise SpaceError(
                f"a range takes low, high, step, log; got {sorted(map(str, unknown))[0]!r}"
            )
        low = self._check_type(spec.get("low", self.low), "low")
        high = self._check_type(spec.get("high", self.high), "high")
        for path, number in (("low", low), ("high", high)):
            if not self.low <= number <= self.high:
                raise SpaceError(f"must lie in [{self.low}, {self.high}], got {number!r}", path)
            if not self.contains(number):
                raise SpaceError(
                    f"must be a level of {self.low} + k x {self.step}, got {number!r}", path
                )
        log = spec.get("log", self.log)
        if not isinstance(log, bool):
            raise SpaceError(f"must be true or false, got {log!r}", "log")
        step = spec.get("step")
        if step is None:
            step = self.step
        else:
            step = self._check_type(step, "step")
            if self.step and abs(step / self.step - round(step / self.step)) > _TOLERANCE:
                raise SpaceError(f"must be a multiple of {self.step}, got {step!r}", "step")
        return replace(self, low=low, high=high, step=step, log=log)


@dataclass(frozen=True, slots=True, kw_only=True)
class Int(_Number):
    """An integer in [low, high] on the levels low, low + step, ..."""

    KIND = "int"
    step: float | None = 1

    def _cast(self, value: float) -> Value:
        return round(value)

    def _check_type(self, value: object, path: str = "") -> float:
        if isinstance(value, bool) or not isinstance(value, int):
            raise SpaceError(f"must be an integer, got {value!r}", path)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Float(_Number):
    """A real number in [low, high]; with `step` on a grid, without it continuous."""

    KIND = "float"

    def _cast(self, value: float) -> Value:
        return float(value) + 0.0  # -0.0 would be another candidate than 0.0

    def _check_type(self, value: object, path: str = "") -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SpaceError(f"must be a number, got {value!r}", path)
        if not math.isfinite(value):
            raise SpaceError(f"must be finite, got {value!r}", path)
        return float(value)


@cache
def _decimals(step: float) -> int:
    """The decimals kept on a stepped grid: 0.1 + 0.2 is the level 0.3."""
    return 9 + max(0, -math.floor(math.log10(step)))


KINDS: dict[str, type[Knob]] = {kind.KIND: kind for kind in (Choice, Int, Float)}


def knob_from_json(record: Mapping[str, Any]) -> Knob:
    """A knob of any kind; the inverse of `to_json`."""
    arguments = {name: value for name, value in record.items() if name != "kind"}
    if arguments.get("active_when") is not None:
        arguments["active_when"] = Condition(**arguments["active_when"])
    return KINDS[record["kind"]](**arguments)
