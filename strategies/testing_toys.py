"""Spaces and studies that cost nothing, to test strategies on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .base import Budget, Exhausted, Observation, Proposal, Strategy, View, trial_rng
from .space import Candidate, Choice, Condition, Float, Int, Space

METRICS = ("quality_drop", "size_bytes", "latency_ratio")
FEASIBLE = 0.6
MIXED = ("complete", "complete", "refused", "complete", "stopped", "complete", "failed")

_RATIO = Float(name="ratio", low=0.0, high=0.9, step=0.1, neutral=0.0, direction=1)
_SCHEME = Choice(name="scheme", values=("none", "dynamic", "static"), neutral="none")

SPACES: dict[str, Space] = {
    "one": Space([replace(_SCHEME, values=("dynamic",))]),
    "three": Space([replace(_SCHEME, values=("dynamic", "static", "qat"))]),
    "three with baseline": Space([_SCHEME]),
    "conditional": Space(
        [
            _RATIO,
            Choice(
                name="importance",
                values=("l1", "l2"),
                neutral="l2",
                active_when=Condition("ratio", ">", 0),
            ),
            _SCHEME,
            Choice(
                name="calibrator",
                values=("minmax", "percentile"),
                neutral="minmax",
                active_when=Condition("scheme", "in", ("static", "qat")),
            ),
            Int(
                name="percentile",
                low=1,
                high=64,
                log=True,
                neutral=1,
                active_when=Condition("calibrator", "==", "percentile"),
            ),
            Choice(name="per_channel", values=(False, True), neutral=False, ordered=True),
        ]
    ),
    "small": Space(
        [
            Int(name="epochs", low=0, high=4, step=2, neutral=0),
            Choice(
                name="teacher",
                values=("self", "wide", "deep"),
                neutral="self",
                active_when=Condition("epochs", ">", 0),
            ),
            replace(_SCHEME, values=("none", "dynamic")),
        ]
    ),
    "continuous": Space(
        [
            Choice(name="optimizer", values=("none", "sgd"), neutral="none"),
            Float(
                name="lr",
                low=1e-5,
                high=1e-1,
                log=True,
                neutral=1e-3,
                active_when=Condition("optimizer", "==", "sgd"),
            ),
            Int(name="round_to", low=1, high=8, neutral=1),
        ]
    ),
    "steps": Space(Int(name=f"level{i}", low=0, high=5, neutral=0, direction=1) for i in range(4)),
    "huge": Space(replace(_RATIO, name=f"ratio@layer{i}") for i in range(60)),
}


@dataclass(frozen=True, slots=True)
class Toy:
    """A study that costs nothing: outcomes are functions of candidate and trial number.

    Args:
        states: How trials end, in turn; the baseline is always complete.
        lag: Trial n sees the outcomes of the trials up to n - lag.
        infeasible: Every trial but the baseline breaks the constraint, the less the nearer its
            knobs are to `FEASIBLE`; the baseline breaks it most.
        constrained: Whether there is a constraint at all.
    """

    space: Space
    trials: int = 12
    objectives: int = 2
    lag: int = 1
    seed: int = 0
    states: Sequence[str] = MIXED
    infeasible: bool = False
    constrained: bool = True

    def rng(self, number: int) -> np.random.Generator:
        return trial_rng(self.seed, "contract", number)

    def observed(self, number: int, candidate: Candidate, memo: Mapping[str, Any]) -> Observation:
        """How a trial ended, with its memo as a database gives it back."""
        memo = json.loads(json.dumps(memo, allow_nan=False))
        state = self.states[number % len(self.states)] if number else "complete"
        if state != "complete":
            return Observation(number, candidate, state, seconds=1.0, memo=memo)
        values, violation = (1.0, 1.0, 1.0), 1.0 if self.infeasible else 0.0
        if number:
            units = self.space.encode(candidate)
            mean = float(units.mean())
            values = (round(mean**2, 2), round(1 - mean, 2), round(abs(math.sin(9 * mean)), 2))
            violation = max(0.0, float(units[0]) - 0.7)
            if self.infeasible:
                violation = 0.05 + float(np.mean(np.abs(units - FEASIBLE)))
        return Observation(
            number,
            candidate,
            state,
            values=values[: self.objectives],
            violations=(violation,) if self.constrained else (),
            metrics=dict(zip(METRICS, values, strict=True)),
            seconds=1.0,
            memo=memo,
        )

    def view(self, rows: Sequence[Observation], memo: Mapping[str, Any], lag: int) -> View:
        seen = max(0, len(rows) - lag + 1)
        return View(
            space=self.space,
            objectives=METRICS[: self.objectives],
            constraints=("size_bytes <= 1000",) if self.constrained else (),
            seed=self.seed,
            budget=Budget(self.trials),
            done=tuple(rows[:seen]),
            pending=tuple(_running(row) for row in rows[seen:]),
            memo=memo,
            drop=METRICS[0],
            costs=tuple(range(1, self.objectives)),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A proposal and what it was made from."""

    number: int
    view: View
    proposal: Proposal


def play(strategy: Strategy, toy: Toy) -> list[Step]:
    """Run a toy study as a controller would: to its budget, or until nothing is left."""
    rows = [toy.observed(0, toy.space.baseline(), {})]
    memo: dict[str, Any] = {}
    steps: list[Step] = []
    for number in range(1, toy.trials + 1):
        try:
            view = toy.view(rows, memo, toy.lag)
            proposal = strategy.propose(view, number, toy.rng(number))
            if proposal is None:  # a barrier: every earlier trial ends, then it is asked again
                view = toy.view(rows, memo, 1)
                proposal = strategy.propose(view, number, toy.rng(number))
        except Exhausted:
            break
        assert proposal is not None, f"trial {number}: a second None, with no trial to wait for"
        steps.append(Step(number, view, proposal))
        rows.append(toy.observed(number, proposal.candidate, proposal.memo))
        memo = {**memo, **json.loads(json.dumps(dict(proposal.study_memo), allow_nan=False))}
    return steps


def _running(row: Observation) -> Observation:
    return Observation(row.number, row.candidate, "running", memo=row.memo)
