"""The strategy contract as tests to inherit.

A strategy is tested by three lines in a file of its own (pytest: pip install 'naslite[dev]'):

    class TestMySearch(StrategyContract):
        def make(self) -> Strategy:
            return MySearch()
"""

from __future__ import annotations

import copy
import importlib.util
import json
import operator
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from .base import Exhausted, Proposal, Strategy, View, capabilities, trial_rng
from .space import Choice, Int, Space, candidate_key
from .testing_histories import views
from .testing_toys import SPACES, Toy, play

__all__ = ["SPACES", "StrategyContract", "Toy", "play", "views"]


class StrategyContract:
    """What every strategy promises; inherit it as a test class and supply `make`.

    A test that asks for more than the strategy declares in its `capabilities` is skipped.
    """

    examples: ClassVar[int] = 60  # drawn by Hypothesis
    long: ClassVar[int] = 60  # trials of the one test that needs many
    short: ClassVar[int] = 18  # of those that need to get beyond a start at random

    def make(self) -> Strategy:
        """A new strategy object."""
        raise NotImplementedError

    def toy(self, space: str, **changes: Any) -> Toy:
        """A toy study of one of `SPACES`, with as many objectives as the strategy takes.

        Where it takes ordered knobs only, the unordered ones of the space are made ordered.
        """
        toy, able = Toy(SPACES[space], **changes), capabilities(self.make())
        if not able.unordered:
            knobs = [replace(k, ordered=True) if isinstance(k, Choice) else k for k in toy.space]
            toy = replace(toy, space=Space(knobs))
        if "objectives" not in changes:
            toy = replace(toy, objectives=min(toy.objectives, able.max_objectives or 3))
        toy = replace(toy, constrained=toy.constrained and able.constraints)
        problems = able.problems(toy.space, toy.objectives, int(toy.constrained))
        if problems:
            pytest.skip(f"the strategy {problems[0]}")
        return toy

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
        for step in play(self.make(), self.toy(space, lag=lag, trials=self.short)):
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
        toy = self.toy(space, lag=2, trials=self.short)
        warm = self.make()
        play(warm, self.toy("small"))
        steps = play(warm, toy)
        for step in steps:
            again = self.make().propose(step.view, step.number, toy.rng(step.number))
            assert again == step.proposal, f"trial {step.number} depends on the object's past"
        for step in reversed(steps):
            again = warm.propose(step.view, step.number, toy.rng(step.number))
            assert again == step.proposal, f"trial {step.number} depends on the order of calls"

    def test_true_is_not_one_to_an_object_that_knew_both(self) -> None:
        def toy(off: bool | int, on: bool | int) -> Toy:
            flag = Choice(name="flag", values=(off, on), neutral=off, ordered=True)
            level = Int(name="level", low=0, high=3, neutral=0, direction=1)
            return replace(self.toy("steps", trials=7), space=Space([flag, level]))

        warm = self.make()
        play(warm, toy(False, True))
        found = [step.proposal for step in play(warm, toy(0, 1))]
        assert found == [step.proposal for step in play(self.make(), toy(0, 1))]
        assert not any(isinstance(p.candidate["flag"], bool) for p in found)

    def test_another_process_proposes_the_same(self) -> None:
        proposed = proposals_for_another_process(self)
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
        assert json.loads(done.stdout) == proposed

    def test_global_random_state_is_neither_read_nor_written(self) -> None:
        toy = self.toy("conditional")
        before = random.getstate(), np.random.get_state()  # noqa: NPY002
        played = []
        try:
            for seed in (1, 2):
                random.seed(seed)
                np.random.seed(seed)  # noqa: NPY002
                states = _global_states()
                played.append([step.proposal for step in play(self.make(), toy)])
                assert _global_states() == states, "a global random state was used"
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
        assert played[0] == played[1], "the proposals depend on a global random state"

    @pytest.mark.parametrize("state", ["complete", "refused", "stopped", "failed"])
    def test_trials_that_all_end_alike_are_digested(self, state: str) -> None:
        steps = play(self.make(), self.toy("conditional", states=(state,)))
        assert len(steps) == 12

    def test_without_a_feasible_trial_the_search_moves_towards_one(self) -> None:
        toy = self.toy("steps", trials=self.long, states=("complete",), infeasible=True)
        steps = play(self.make(), toy)
        assert len(steps) == self.long
        if not toy.constrained or not capabilities(self.make()).adaptive:
            return
        broken = [sum(toy.observed(s.number, s.proposal.candidate, {}).violations) for s in steps]
        third = self.long // 3
        first, last = sum(broken[:third]) / third, sum(broken[-third:]) / third
        assert last < 0.9 * first, f"violations stay at {first:.2f}, then {last:.2f}"

    def test_any_space_and_any_history(self) -> None:
        @settings(
            max_examples=self.examples,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(view=views())
        def law(view: View) -> None:
            able = capabilities(self.make())
            assume(not able.problems(view.space, len(view.objectives), len(view.constraints)))
            number = len(view.done) + len(view.pending)
            answers = [_answer(self.make(), view, number) for _ in range(2)]
            assert answers[0] == answers[1], "two fresh objects differ"
            answer = answers[0]
            if answer == "exhausted":
                assert _nothing_is_left(view), "gave up with candidates left"
            elif answer == "wait":
                assert view.pending, "waits for nothing"
            else:
                candidate = json.loads(answer)
                assert view.space.contains(candidate)
                assert candidate_key(candidate) not in view.seen_keys()

        law()

    @pytest.mark.parametrize("objectives", [1, 2, 3])
    def test_one_to_three_objectives(self, objectives: int) -> None:
        assert len(play(self.make(), self.toy("conditional", objectives=objectives))) == 12

    def test_a_study_without_constraints(self) -> None:
        toy = self.toy("conditional", states=("complete",), constrained=False)
        steps = play(self.make(), toy)
        assert len(steps) == 12
        assert not any(step.view.constraints for step in steps)

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


def _global_states() -> tuple[object, ...]:
    states: list[object] = [random.getstate(), repr(np.random.get_state())]  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        states.append(torch.get_rng_state().tolist())
    return tuple(states)


def _answer(strategy: Strategy, view: View, number: int) -> str:
    """The proposed candidate as JSON, or exhausted, or wait."""
    try:
        proposal = strategy.propose(view, number, trial_rng(view.seed, "law", number))
    except Exhausted:
        return "exhausted"
    return "wait" if proposal is None else json.dumps(dict(proposal.candidate))


def _nothing_is_left(view: View) -> bool:
    space, seen = view.space, view.seen_keys()
    if space.size is not None:
        return all(candidate_key(space.at(i)) in seen for i in range(space.size))
    rng = np.random.default_rng(0)  # a continuum is used up only if nothing switches it on
    drawn = [space.sample(rng) for _ in range(200)]
    return all(candidate_key(c) in seen for c in drawn)


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
