"""What a strategy is given and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .space import Candidate, Space, candidate_key


class Exhausted(Exception):
    """Nothing is left to propose; the study ends."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One visible trial.

    Args:
        number: 0 is the uncompressed baseline.
        state: queued, running, complete, refused, stopped or failed.
        values: One per objective, all minimised; empty unless complete.
        violations: One per constraint: 0 = met, else how far off relative to its bound.
        metrics: Every metric by name; empty unless complete.
        seconds: What the trial cost.
        memo: What the strategy stored with the trial.
    """

    number: int
    candidate: Candidate
    state: str
    values: tuple[float, ...] = ()
    violations: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    memo: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", candidate_key(self.candidate))

    @property
    def is_feasible(self) -> bool:
        return self.state == "complete" and not any(self.violations)


@dataclass(frozen=True, slots=True)
class Budget:
    """When a study ends: after `trials` trials without the baseline or `minutes` of work."""

    trials: int
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All that a strategy may know: a pure function of stored rows.

    Args:
        objectives: Metric names; `Observation.values` stand in this order.
        constraints: Their texts; `Observation.violations` stand in this order.
        drop: The metric in `Observation.metrics` that says how much quality was lost, lower is
            better; "" where none is known: the first objective then says it.
        costs: Which objectives (by position) compression is meant to lower, such as size and
            latency; the others say quality.
        budget: As it is now: a proposal that depends on it changes with a new total.
        done: Visible trials that ended, by number, the baseline first.
        pending: Trials proposed but not visible yet: candidate known, outcome not.
        memo: What the strategy stored with the study.
    """

    space: Space
    objectives: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    seed: int = 0
    budget: Budget = Budget(trials=60)
    done: Sequence[Observation] = ()
    pending: Sequence[Observation] = ()
    memo: Mapping[str, Any] = field(default_factory=dict)
    drop: str = ""
    costs: tuple[int, ...] = ()

    def seen_keys(self) -> set[str]:
        """The keys of all visible candidates, pending ones included."""
        return {trial.key for trial in (*self.done, *self.pending)}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a strategy can take; a study that asks for more is refused before it begins.

    Args:
        name: What messages call the strategy; "" = its name in the config.
        max_objectives: None = any number.
        constraints: Whether it takes constraints into account.
        continuous: Whether knobs without levels are allowed.
        unordered: Whether knobs whose levels have no order are allowed.
        max_candidates: The largest space; None = any, continuous ones included.
        adaptive: Whether outcomes steer later proposals.
    """

    name: str = ""
    max_objectives: int | None = None
    constraints: bool = True
    continuous: bool = True
    unordered: bool = True
    max_candidates: int | None = None
    adaptive: bool = True

    def problems(self, space: Space, objectives: int, constraints: int) -> list[str]:
        """Why a study of this space with so many objectives and constraints cannot be searched."""
        found = []
        if self.max_objectives is not None and objectives > self.max_objectives:
            found.append(f"takes at most {self.max_objectives} objective(s), got {objectives}")
        if constraints and not self.constraints:
            found.append(f"takes no constraints, got {constraints}")
        open_knobs = [knob.name for knob in space if knob.size is None]
        if open_knobs and not self.continuous:
            found.append(f"needs knobs with levels, got {open_knobs[0]!r} without; give it a step")
        loose = [knob.name for knob in space if not knob.is_fixed and not knob.ordered]
        if loose and not self.unordered:
            found.append(f"needs ordered knobs, got {loose[0]!r}; fix it to one value")
        if self.max_candidates is not None and space.skeletons > self.max_candidates:
            found.append(
                f"takes a space of at most {self.max_candidates:,} candidates,"
                f" got {space.skeletons:,}"
            )
        return found


def capabilities(strategy: object) -> Capabilities:
    """What a strategy declares in its attribute `capabilities`; by default it takes anything.

    Raises:
        TypeError: The attribute is something else.
    """
    declared = getattr(strategy, "capabilities", Capabilities())
    if not isinstance(declared, Capabilities):
        raise TypeError(f"`capabilities` must be a Capabilities, got {declared!r}")
    return declared


@dataclass(frozen=True, slots=True)
class Proposal:
    """A canonical candidate, and small JSON to get back with this trial and with the study."""

    candidate: Candidate
    memo: Mapping[str, Any] = field(default_factory=dict)
    study_memo: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Strategy(Protocol):
    """Chooses candidates. A pure function: no generator of its own, no I/O, no global state.

    A cache inside a strategy is allowed if dropping it changes no proposal. What it cannot take
    it may declare in an attribute `capabilities`.
    """

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal | None:
        """The candidate of trial `number`.

        None is a barrier: the controller finishes every trial below `number` and asks again with
        all of them in `view.done`; a second None is an error.

        Raises:
            Exhausted: Nothing is left to propose.
        """
        ...


def trial_rng(seed: int, strategy: str, number: int) -> np.random.Generator:
    """The generator of one proposal, a function of study seed, strategy name and trial number."""
    digest = hashlib.sha256(f"{seed}/{strategy}/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
