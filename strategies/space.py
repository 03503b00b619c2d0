"""The space of compression configs: knobs, conditions and canonical candidates.

A candidate is a flat `dict[str, int | float | str | bool]` that names exactly the active knobs.
Every knob has at most one condition, so knobs form a forest: the discrete part of a space can be
counted and numbered exactly (`size`, `at`, `index`), however large it is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .knobs import Choice, Condition, Knob, SpaceError, Value
from .number_knobs import Float, Int, knob_from_json

__all__ = [
    "Candidate",
    "Choice",
    "Condition",
    "Float",
    "Int",
    "Knob",
    "Space",
    "SpaceError",
    "Value",
    "candidate_key",
]

Candidate = Mapping[str, Value]

MAX_LEVELS_OF_PARENT = 10_000


def candidate_key(candidate: Candidate) -> str:
    """SHA-256 (hex) of a canonical candidate: equal exactly for equal candidates."""
    text = json.dumps(dict(candidate), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Space:
    """An ordered set of knobs in which every parent stands before the knobs it switches on.

    Raises:
        SpaceError: Two knobs share a name, a parent is missing or stands later, or a parent has
            too many levels to count its children.
    """

    def __init__(self, knobs: Iterable[Knob]) -> None:
        self.knobs: tuple[Knob, ...] = tuple(knobs)
        self._by_name: dict[str, Knob] = {}
        self._children: dict[str, list[Knob]] = {}
        self._roots: list[Knob] = []
        for knob in self.knobs:
            if knob.name in self._by_name:
                raise SpaceError(f"knob names must differ, got {knob.name!r} twice")
            if knob.active_when is None:
                self._roots.append(knob)
            else:
                self._adopt(knob, knob.active_when.knob)
            self._by_name[knob.name] = knob
            self._children[knob.name] = []
        # Level counts of each subtree, children before parents; continuous knobs count as 1.
        self._counts: dict[str, int] = {}
        self._level_counts: dict[str, list[int]] = {}
        self._normal: dict[str, dict[tuple[type, Value], Value]] = {n: {} for n in self._by_name}
        for knob in reversed(self.knobs):
            self._count(knob)

    def _adopt(self, knob: Knob, parent_name: str) -> None:
        parent = self._by_name.get(parent_name)
        if parent is None:
            raise SpaceError(
                f"knob {knob.name!r} depends on {parent_name!r}, which must stand before it"
            )
        if (parent.size or 0) > MAX_LEVELS_OF_PARENT:
            raise SpaceError(
                f"knob {parent_name!r} switches others on, so it may have at most"
                f" {MAX_LEVELS_OF_PARENT} levels, got {parent.size}; set a larger step"
            )
        self._children[parent_name].append(knob)

    def _count(self, knob: Knob) -> None:
        if not self._children[knob.name] or knob.size is None:
            self._counts[knob.name] = knob.size or 1
            return
        levels = [
            math.prod(self._counts[child.name] for child in self._active(knob, knob.at(i)))
            for i in range(knob.size)
        ]
        self._level_counts[knob.name] = levels
        self._counts[knob.name] = sum(levels)

    def _active(self, parent: Knob, value: Value) -> list[Knob]:
        return [
            child
            for child in self._children[parent.name]
            if child.active_when is not None and child.active_when.holds(value)
        ]

    def __len__(self) -> int:
        return len(self.knobs)

    def __iter__(self) -> Any:
        return iter(self.knobs)

    def __getitem__(self, name: str) -> Knob:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def size(self) -> int | None:
        """The number of canonical candidates; None if a knob is continuous."""
        return None if any(knob.size is None for knob in self.knobs) else self.skeletons

    @property
    def skeletons(self) -> int:
        """The number of candidates if all values of a continuous knob count as one."""
        return math.prod(self._counts[root.name] for root in self._roots)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the knobs and their conditions."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def baseline(self) -> dict[str, Value]:
        """The uncompressed candidate, trial 0, even where the space does not hold its values."""
        chosen: dict[str, Value] = {}
        for knob in self.knobs:
            if self._is_active(knob, chosen):
                own = knob.contains(knob.neutral)
                chosen[knob.name] = knob.normal(knob.neutral) if own else knob.neutral
        return chosen

    def origin(self) -> dict[str, Value]:
        """The least compressed candidate that the space holds: the baseline, if it does."""
        return self.complete({})

    def extreme(self) -> dict[str, Value]:
        """The most compressed candidate: every active knob as far as its direction leads."""
        chosen: dict[str, Value] = {}
        for knob in self.knobs:
            if self._is_active(knob, chosen):
                chosen[knob.name] = knob.most_compressed()
        return chosen

    def complete(self, partial: Mapping[str, Value]) -> dict[str, Value]:
        """The candidate with these values, other active knobs at their least compressed ones.

        Values of inactive knobs are dropped, and so are those that their knobs do not know.
        """
        chosen: dict[str, Value] = {}
        for knob in self.knobs:
            if not self._is_active(knob, chosen):
                continue
            try:
                value = partial[knob.name]
                known = self._normal[knob.name].get((type(value), value))
                chosen[knob.name] = self._learnt(knob, value) if known is None else known
            except (KeyError, TypeError, SpaceError):
                chosen[knob.name] = knob.least_compressed()
        return chosen

    def _learnt(self, knob: Knob, value: Value) -> Value:
        """The value in its knob's type; remembered for levels, of which there are few."""
        normal = knob.normal(value)
        if knob.size is not None:
            self._normal[knob.name][type(value), value] = normal
        return normal

    def is_neutral(self, candidate: Candidate, prefix: str) -> bool:
        """Whether all knobs whose names begin with `prefix` are at their neutral values."""
        return all(
            value == self._by_name[name].neutral
            for name, value in candidate.items()
            if name.startswith(prefix)
        )

    def canonical(self, raw: Mapping[str, object]) -> dict[str, Value]:
        """The candidate that `raw` means: values in their knobs' types, inactive knobs dropped.

        Raises:
            SpaceError: An unknown knob, a missing active knob, or a value that is not its knob's.
        """
        unknown = [name for name in raw if name not in self._by_name]
        if unknown:
            raise SpaceError(f"unknown knob {unknown[0]!r}; known: {', '.join(self._by_name)}")
        chosen: dict[str, Value] = {}
        for knob in self.knobs:
            if not self._is_active(knob, chosen):
                continue
            if knob.name not in raw:
                raise SpaceError(f"the candidate must give {knob.name!r}, got {dict(raw)!r}")
            try:
                chosen[knob.name] = knob.normal(raw[knob.name])
            except SpaceError as error:
                raise SpaceError(f"knob {knob.name!r}: {error}") from None
        return chosen

    def contains(self, candidate: Mapping[str, object]) -> bool:
        """Whether this is a canonical candidate of the space."""
        try:
            canonical = self.canonical(candidate)
        except SpaceError:
            return False
        plain = all(type(value) in (int, float, str, bool) for value in candidate.values())
        return plain and candidate_key(canonical) == candidate_key(candidate)  # type: ignore[arg-type]

    def at(self, index: int) -> dict[str, Value]:
        """The candidate with this number, 0 <= index < size.

        Raises:
            SpaceError: The space is continuous or the index is out of range.
        """
        if self.size is None or not 0 <= index < self.size:
            raise SpaceError(f"index must be in [0, size={self.size}), got {index}")
        return self._build(index, None)

    def index(self, candidate: Candidate) -> int:
        """The number of a canonical candidate; the inverse of `at` (continuous knobs count 1)."""
        total = 0
        for root in self._roots:
            total = total * self._counts[root.name] + self._index_of(root, candidate)
        return total

    def sample(self, rng: np.random.Generator) -> dict[str, Value]:
        """A candidate drawn uniformly over canonical candidates.

        A continuous knob is drawn uniformly over its range, on a log scale where it has one.
        """
        return self.fill(random_below(self.skeletons, rng), rng)

    def fill(self, skeleton: int, rng: np.random.Generator) -> dict[str, Value]:
        """The candidate with this number, 0 <= skeleton < skeletons, continuous knobs drawn."""
        return self._build(skeleton, rng)

    def neighbours(self, candidate: Candidate) -> list[dict[str, Value]]:
        """All candidates one knob's move away; a knob switched on by a move starts neutral.

        A candidate with values that are not its knobs' own is moved into the space first.
        """
        here = self.complete(candidate)
        return [self.complete({**here, name: value}) for name, value in self.moves(here)]

    def moves(self, candidate: Candidate) -> list[tuple[str, Value]]:
        """Every move of one knob of a candidate of the space to an adjacent value."""
        return [(n, v) for n in candidate for v in self._by_name[n].adjacent(candidate[n])]

    def encode(self, candidate: Candidate) -> np.ndarray:
        """The candidate as a float64 vector in [0, 1]^len(space).

        Inactive knobs give 0, foreign values the position of the least compressed one.
        """
        vector = np.zeros(len(self.knobs))
        for i, knob in enumerate(self.knobs):
            if knob.name in candidate:
                value = candidate[knob.name]
                own = knob.contains(value)
                vector[i] = knob.to_unit(value if own else knob.least_compressed())
        return vector

    def decode(self, vector: np.ndarray) -> dict[str, Value]:
        """The canonical candidate nearest to a vector of length len(space) (clipped to [0, 1])."""
        chosen: dict[str, Value] = {}
        for knob, position in zip(self.knobs, vector, strict=True):
            if self._is_active(knob, chosen):
                chosen[knob.name] = knob.from_unit(float(position))
        return chosen

    def to_json(self) -> list[dict[str, Any]]:
        return [knob.to_json() for knob in self.knobs]

    @classmethod
    def from_json(cls, records: Iterable[Mapping[str, Any]]) -> Space:
        return cls(knob_from_json(record) for record in records)

    def _is_active(self, knob: Knob, chosen: Candidate) -> bool:
        when = knob.active_when
        return when is None or (when.knob in chosen and when.holds(chosen[when.knob]))

    def _build(self, index: int, rng: np.random.Generator | None) -> dict[str, Value]:
        numbers: list[int] = []
        for root in reversed(self._roots):
            index, remainder = divmod(index, self._counts[root.name])
            numbers.append(remainder)
        chosen: dict[str, Value] = {}
        for root, number in zip(self._roots, reversed(numbers), strict=True):
            self._place(root, number, chosen, rng)
        if len(self._roots) == len(self.knobs):
            return chosen
        return {knob.name: chosen[knob.name] for knob in self.knobs if knob.name in chosen}

    def _place(
        self, knob: Knob, number: int, chosen: dict[str, Value], rng: np.random.Generator | None
    ) -> None:
        if knob.size is None:
            assert rng is not None
            chosen[knob.name] = value = knob.from_unit(rng.random())
            for child in self._active(knob, value):
                self._place(child, random_below(self._counts[child.name], rng), chosen, rng)
            return
        levels = self._level_counts.get(knob.name)
        if levels is None:
            chosen[knob.name] = knob.at(number)
            return
        level = 0
        while number >= levels[level]:
            number -= levels[level]
            level += 1
        chosen[knob.name] = value = knob.at(level)
        for child in reversed(self._active(knob, value)):
            number, remainder = divmod(number, self._counts[child.name])
            self._place(child, remainder, chosen, rng)

    def _index_of(self, knob: Knob, candidate: Candidate) -> int:
        if knob.size is None:
            return 0
        value = candidate[knob.name]
        level = knob.index(value)
        levels = self._level_counts.get(knob.name)
        if levels is None:
            return level
        inner = 0
        for child in self._active(knob, value):
            inner = inner * self._counts[child.name] + self._index_of(child, candidate)
        return sum(levels[:level]) + inner


def random_below(bound: int, rng: np.random.Generator) -> int:
    """A uniform integer in [0, bound) for a bound of any size."""
    if bound < 2**63:
        return int(rng.integers(bound))
    bits = bound.bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes((bits + 7) // 8), "big") >> (-bits % 8)
        if drawn < bound:
            return drawn
