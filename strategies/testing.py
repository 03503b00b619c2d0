"""The strategy contract as tests to inherit.

A strategy is tested by three lines in a file of its own:

    class TestMySearch(StrategyContract):
        def make(self) -> Strategy:
            return MySearch()
"""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import operator
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from .base import Budget, Exhausted, Observation, Proposal, Strategy, View, trial_rng
from .space import Candidate, Choice, Condition, Float, Int, Space, candidate_key

__all__ = ["SPACES", "StrategyContract", "Toy", "play"]

METRICS = ("quality_drop", "size_bytes", "latency_ratio")
MIXED = ("complete", "complete", "refused", "complete", "stopped", "complete", "failed")

_RATIO = Float(name="ratio", low=0.0, high=0.9, step=0.1, neutral=0.0, direction=1)

SPACES: dict[str, Space] = {
    "one": Space([Choice(name="scheme", values=("dynamic",), neutral="none")]),
    "three": Space([Choice(name="scheme", values=("dynamic", "static", "qat"), neutral="none")]),
    "three with baseline": Space(
        [Choice(name="scheme", values=("none", "dynamic", "static"), neutral="none")]
    ),
    "conditional": Space(
        [
            _RATIO,
            Choice(
                name="importance",
                values=("l1", "l2"),
                neutral="l2",
                active_when=Condition("ratio", ">", 0),
            ),
            Choice(name="scheme", values=("none", "dynamic", "static"), neutral="none"),
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
            Choice(name="scheme", values=("none", "dynamic"), neutral="none"),
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
    "huge": Space(replace(_RATIO, name=f"ratio@layer{i}") for i in range(60)),
}


@dataclass(frozen=True, slots=True)
class Toy:
    """A study that costs nothing: outcomes are functions of candidate and trial number.

    Args:
        states: How trials end, in turn; the baseline is always complete.
        lag: Trial n sees the outcomes of the trials up to n - lag.
        infeasible: Every trial but the baseline breaks the constraint.
    """

    space: Space
    trials: int = 12
    objectives: int = 2
    lag: int = 1
    seed: int = 0
    states: Sequence[str] = MIXED
    infeasible: bool = False

    def observed(self, number: int, candidate: Candidate, memo: Mapping[str, Any]) -> Observation:
        """How a trial ended, with its memo as a database gives it back."""
        memo = json.loads(json.dumps(memo, allow_nan=False))
        state = self.states[number % len(self.states)] if number else "complete"
        if state != "complete":
            return Observation(number, candidate, state, seconds=1.0, memo=memo)
        values, violation = (1.0, 1.0, 1.0), 0.0
        if number:
            units = self.space.encode(candidate)
            mean = float(units.mean())
            values = (round(mean**2, 2), round(1 - mean, 2), round(abs(math.sin(9 * mean)), 2))
            violation = 1.0 if self.infeasible else max(0.0, float(units[0]) - 0.7)
        return Observation(
            number,
            candidate,
            state,
            values=values[: self.objectives],
            violations=(violation,),
            metrics=dict(zip(METRICS, values, strict=True)),
            seconds=1.0,
            memo=memo,
        )

    def view(self, rows: Sequence[Observation], memo: Mapping[str, Any], lag: int) -> View:
        seen = max(0, len(rows) - lag + 1)
        return View(
            space=self.space,
            objectives=METRICS[: self.objectives],
            constraints=("size_bytes <= 1000",),
            seed=self.seed,
            budget=Budget(self.trials),
            done=tuple(rows[:seen]),
            pending=tuple(_running(row) for row in rows[seen:]),
            memo=memo,
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
            proposal = strategy.propose(view, number, trial_rng(toy.seed, "contract", number))
            if proposal is None:  # a barrier: every earlier trial ends, then it is asked again
                view = toy.view(rows, memo, 1)
                proposal = strategy.propose(view, number, trial_rng(toy.seed, "contract", number))
        except Exhausted:
            break
        assert proposal is not None, f"trial {number}: a second None, with no trial to wait for"
        steps.append(Step(number, view, proposal))
        rows.append(toy.observed(number, proposal.candidate, proposal.memo))
        memo = {**memo, **json.loads(json.dumps(dict(proposal.study_memo), allow_nan=False))}
    return steps


class StrategyContract:
    """What every strategy promises; inherit it as a test class and supply `make`."""

    # Lower it for a strategy that cannot take three objectives.
    max_objectives: ClassVar[int] = 3

    def make(self) -> Strategy:
        """A new strategy object."""
        raise NotImplementedError

    def toy(self, space: str, **changes: Any) -> Toy:
        toy = Toy(SPACES[space], **changes)
        return replace(toy, objectives=min(toy.objectives, self.max_objectives))

    @pytest.mark.parametrize("space", SPACES)
    def test_candidates_are_canonical_and_lie_in_the_space(self, space: str) -> None:
        steps = play(self.make(), self.toy(space))
        assert steps or space == "one", "nothing was proposed"
        for step in steps:
            candidate = step.proposal.candidate
            assert step.view.space.contains(candidate), f"not in the space: {candidate!r}"

    @pytest.mark.parametrize("lag", [1, 4, 16])
    @pytest.mark.parametrize("space", ["small", "conditional", "continuous", "huge"])
    def test_no_visible_candidate_is_proposed_again(self, space: str, lag: int) -> None:
        for step in play(self.make(), self.toy(space, lag=lag, trials=18)):
            candidate = step.proposal.candidate
            assert candidate_key(candidate) not in step.view.seen_keys(), (
                f"trial {step.number} repeats a visible candidate: {candidate!r}"
            )

    @pytest.mark.parametrize("lag", [1, 4, 16])
    @pytest.mark.parametrize("space", ["one", "three", "three with baseline", "small"])
    def test_every_candidate_comes_once_and_then_exhausted(self, space: str, lag: int) -> None:
        toy = self.toy(space, lag=lag)
        size = toy.space.size
        assert size is not None
        left = size - toy.space.contains(toy.space.baseline())
        steps = play(self.make(), replace(toy, trials=size + 3))
        assert len(steps) == left, f"{left} candidates were left, {len(steps)} were proposed"
        assert len({candidate_key(step.proposal.candidate) for step in steps}) == left

    @pytest.mark.parametrize("space", ["conditional", "continuous", "huge"])
    def test_a_fresh_object_proposes_what_a_warm_one_does(self, space: str) -> None:
        toy = self.toy(space, lag=2, trials=15)
        warm = self.make()
        play(warm, self.toy("small"))
        steps = play(warm, toy)
        for step in steps:
            again = self.make().propose(step.view, step.number, _rng(toy, step.number))
            assert again == step.proposal, f"trial {step.number} depends on the object's past"
        for step in reversed(steps):
            again = warm.propose(step.view, step.number, _rng(toy, step.number))
            assert again == step.proposal, f"trial {step.number} depends on the order of calls"

    def test_another_process_proposes_the_same(self) -> None:
        test = type(self)
        source = sys.modules[test.__module__].__file__
        assert source is not None
        hash_seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
        done = subprocess.run(
            [sys.executable, "-c", _OTHER_PROCESS, source, test.__qualname__],
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == proposals_for_another_process(self)

    def test_global_random_state_is_neither_read_nor_written(self) -> None:
        toy = self.toy("conditional")
        before = random.getstate(), np.random.get_state()  # noqa: NPY002
        played = []
        try:
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                states = random.getstate(), repr(np.random.get_state())  # noqa: NPY002
                played.append([step.proposal for step in play(self.make(), toy)])
                after = random.getstate(), repr(np.random.get_state())  # noqa: NPY002
                assert after == states, "a global random state was used"
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
        assert played[0] == played[1], "the proposals depend on a global random state"

    @pytest.mark.parametrize("state", ["complete", "refused", "stopped", "failed"])
    def test_trials_that_all_end_alike_are_digested(self, state: str) -> None:
        steps = play(self.make(), self.toy("conditional", states=(state,)))
        assert len(steps) == 12

    def test_infeasible_trials_are_digested(self) -> None:
        toy = self.toy("conditional", states=("complete",), infeasible=True)
        assert len(play(self.make(), toy)) == 12

    @pytest.mark.parametrize("objectives", [1, 2, 3])
    def test_one_to_three_objectives(self, objectives: int) -> None:
        if objectives > self.max_objectives:
            pytest.skip(f"takes at most {self.max_objectives}")
        assert len(play(self.make(), self.toy("conditional", objectives=objectives))) == 12

    def test_a_study_without_constraints(self) -> None:
        toy = self.toy("conditional", states=("complete",))
        for step in play(self.make(), toy):
            done = tuple(replace(row, violations=()) for row in step.view.done)
            view = replace(step.view, constraints=(), done=done)
            proposal = self.make().propose(view, step.number, _rng(toy, step.number))
            assert proposal is None or toy.space.contains(proposal.candidate)

    @pytest.mark.parametrize("lag", [1, 4])
    def test_memos_are_plain_json(self, lag: int) -> None:
        for step in play(self.make(), self.toy("conditional", lag=lag)):
            for memo in (step.proposal.memo, step.proposal.study_memo):
                json.dumps(dict(memo), allow_nan=False)

    def test_the_view_is_not_changed(self) -> None:
        assert play(_Watched(self.make()), self.toy("conditional", lag=3))


class _Watched:
    """A strategy that fails if the strategy inside changes what it was given."""

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal | None:
        parts = (view.done, view.pending, view.memo, view.space.to_json())
        before = copy.deepcopy(parts)
        proposal = self.inner.propose(view, number, rng)
        after = (view.done, view.pending, view.memo, view.space.to_json())
        assert after == before, f"trial {number} changed its view"
        return proposal


_OTHER_PROCESS = """
import json, sys
from strategies.testing import contract_in_file, proposals_for_another_process
print(json.dumps(proposals_for_another_process(contract_in_file(*sys.argv[1:]))))
"""


def proposals_for_another_process(contract: StrategyContract) -> list[Any]:
    steps = play(contract.make(), contract.toy("conditional", trials=9, lag=2))
    return [[dict(s.proposal.candidate), dict(s.proposal.memo)] for s in steps]


def contract_in_file(path: str, qualname: str) -> StrategyContract:
    spec = importlib.util.spec_from_file_location("contract_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    test: StrategyContract = operator.attrgetter(qualname)(module)()
    return test


def _running(row: Observation) -> Observation:
    return Observation(row.number, row.candidate, "running", memo=row.memo)


def _rng(toy: Toy, number: int) -> np.random.Generator:
    return trial_rng(toy.seed, "contract", number)
