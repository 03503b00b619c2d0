"""A space as Optuna parameters that are all numbers, and candidates as values of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from .knobs import Knob, Value
from .number_knobs import Int
from .space import Candidate, Space

Number = int | float


class Parameters(Protocol):
    """How the candidates of a space look to a sampler.

    Attributes:
        distributions: Of every parameter; all trials share these objects.
        searched: Those with more than one value, sorted by name as Optuna's samplers have them.
        fixed: The values of the others.
    """

    distributions: dict[str, BaseDistribution]
    searched: dict[str, BaseDistribution]
    fixed: dict[str, Number]

    def numbers(self, candidate: Candidate, rest: Mapping[str, Any]) -> dict[str, Number]:
        """The parameters of a canonical candidate; `rest` gives those of inactive knobs."""
        ...

    def candidate(self, numbers: Mapping[str, Number]) -> dict[str, Value]:
        """The canonical candidate that parameters mean."""
        ...

    def is_asked(self, name: str, numbers: Mapping[str, Number]) -> bool:
        """Whether a parameter is sampled, given those that stand before it."""
        ...


class FlatParameters:
    """One parameter per knob, active or not, so that samplers see a space of fixed dimension.

    An unordered Choice is a category; an ordered one and every knob with a step is an integer
    that counts its levels, so steps need no floating point; a knob without levels and an Int on
    a log scale keep their own range.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._codes = {knob.name: _Code(knob) for knob in space}
        self.distributions = {name: code.distribution for name, code in self._codes.items()}
        self.searched = _searched(self.distributions)
        self.fixed = _fixed(self.distributions)
        self._rest = {knob.name: self._number(knob, knob.least_compressed()) for knob in space}

    def _number(self, knob: Knob, value: Value) -> Number:
        return self._codes[knob.name].number(value)

    def numbers(self, candidate: Candidate, rest: Mapping[str, Any]) -> dict[str, Number]:
        return {
            name: code.number(candidate[name])
            if name in candidate
            else rest.get(name, self._rest[name])
            for name, code in self._codes.items()
        }

    def candidate(self, numbers: Mapping[str, Number]) -> dict[str, Value]:
        codes = self._codes
        return self.space.canonical({name: codes[name].value(n) for name, n in numbers.items()})

    def is_asked(self, name: str, numbers: Mapping[str, Number]) -> bool:
        return True


class TreeParameters(FlatParameters):
    """One parameter per active knob, in the order of the space; for knobs with levels."""

    def numbers(self, candidate: Candidate, rest: Mapping[str, Any]) -> dict[str, Number]:
        return {
            name: code.number(candidate[name])
            for name, code in self._codes.items()
            if name in candidate
        }

    def is_asked(self, name: str, numbers: Mapping[str, Number]) -> bool:
        when = self.space[name].active_when
        if when is None:
            return True
        parent = when.knob
        return parent in numbers and when.holds(self._codes[parent].value(numbers[parent]))


class ListedParameters:
    """A single parameter, the number of the candidate; for spaces without continuous knobs."""

    NAME = "candidate"

    def __init__(self, space: Space) -> None:
        self.space = space
        self.distributions: dict[str, BaseDistribution] = {
            self.NAME: IntDistribution(0, space.skeletons - 1)
        }
        self.searched = _searched(self.distributions)
        self.fixed = _fixed(self.distributions)

    def numbers(self, candidate: Candidate, rest: Mapping[str, Any]) -> dict[str, Number]:
        return {self.NAME: self.space.index(candidate)}

    def candidate(self, numbers: Mapping[str, Number]) -> dict[str, Value]:
        return self.space.at(int(numbers[self.NAME]))

    def is_asked(self, name: str, numbers: Mapping[str, Number]) -> bool:
        return True


def _searched(distributions: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    return {name: kind for name, kind in sorted(distributions.items()) if not kind.single()}


def _fixed(distributions: Mapping[str, BaseDistribution]) -> dict[str, Number]:
    single = [(name, kind) for name, kind in distributions.items() if kind.single()]
    return {name: getattr(kind, "low", 0) for name, kind in single}  # of categories the first


class _Categories(CategoricalDistribution):
    """The numbers 0 .. count - 1 without an order: Optuna would take the choice True for 1."""

    def __init__(self, count: int) -> None:
        super().__init__(range(count))

    def to_internal_repr(self, param_value_in_external_repr: Any) -> float:
        return int(param_value_in_external_repr)


class _Code:
    """One knob's values as numbers, and the distribution of these."""

    __slots__ = ("distribution", "knob", "own_range")

    def __init__(self, knob: Knob) -> None:
        self.knob = knob
        size, log = knob.size, getattr(knob, "log", False)
        self.own_range = size is None or (log and isinstance(knob, Int))
        self.distribution: BaseDistribution
        if self.own_range:
            low, high = getattr(knob, "low"), getattr(knob, "high")  # noqa: B009
            kind = IntDistribution if isinstance(knob, Int) else FloatDistribution
            self.distribution = kind(low, high, log=log)
        else:
            assert size is not None
            self.distribution = IntDistribution(0, size - 1) if knob.ordered else _Categories(size)

    def number(self, value: Value) -> Number:
        return value if self.own_range else self.knob.index(value)  # type: ignore[return-value]

    def value(self, number: Number) -> Value:
        if not self.own_range:
            return self.knob.at(int(number))
        low, high = self.distribution.low, self.distribution.high  # type: ignore[attr-defined]
        inside = min(max(number, low), high)
        return int(inside) if isinstance(self.knob, Int) else float(inside)
