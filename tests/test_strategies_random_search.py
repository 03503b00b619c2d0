from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from strategies.base import Exhausted, Observation, Strategy, View
from strategies.random_search import RandomSearch
from strategies.space import Choice, Condition, Float, Int, Space, candidate_key
from strategies.testing import SPACES, StrategyContract, Toy, play


class TestRandomSearch(StrategyContract):
    def make(self) -> Strategy:
        return RandomSearch()


# 1 + 9 candidates: half of them would be "off" if the knobs were drawn one by one.
SWITCHED = Space(
    [
        Choice(name="mode", values=("off", "on"), neutral="off"),
        Int(name="level", low=1, high=9, neutral=1, active_when=Condition("mode", "==", "on")),
    ]
)


def view_after(space: Space, candidates: list[dict[str, object]], *, pending: int = 0) -> View:
    rows = [Observation(n, c, "refused") for n, c in enumerate(candidates)]
    seen = len(rows) - pending
    return View(space, ("quality_drop",), done=rows[:seen], pending=rows[seen:])


def draws(view: View, count: int) -> Counter[str]:
    rng = np.random.default_rng(7)
    search = RandomSearch()
    return Counter(candidate_key(search.propose(view, 1, rng).candidate) for _ in range(count))


def chi_square(counts: Counter[str], levels: int) -> float:
    expected = counts.total() / levels
    missing = levels - len(counts)
    return sum((n - expected) ** 2 for n in counts.values()) / expected + missing * expected


def test_first_proposals_are_uniform_over_canonical_candidates():
    counts = draws(view_after(SWITCHED, []), 2000)

    assert len(counts) == SWITCHED.size == 10
    assert chi_square(counts, 10) < 27.9  # 9 degrees of freedom, p = 0.001


def test_proposals_are_uniform_in_a_forest_of_conditions():
    space = SPACES["small"]
    counts = draws(view_after(space, []), 2800)

    assert len(counts) == space.size == 14
    assert chi_square(counts, 14) < 34.5  # 13 degrees of freedom, p = 0.001


def test_the_last_candidates_are_drawn_uniformly():
    space = Space(
        [
            Choice(name="mode", values=("off", "on"), neutral="off"),
            Int(
                name="bits", low=1, high=299, neutral=1, active_when=Condition("mode", "==", "on")
            ),
        ]
    )
    left = {0, 171, 172, 299}
    seen = [space.at(i) for i in range(300) if i not in left]
    counts = draws(view_after(space, seen, pending=100), 200)

    assert set(counts) == {candidate_key(space.at(i)) for i in left}
    assert chi_square(counts, 4) < 16.3  # 3 degrees of freedom, p = 0.001


def test_all_candidates_of_a_small_space_come_once():
    steps = play(RandomSearch(), Toy(SPACES["small"], trials=50, lag=4))
    keys = {candidate_key(step.proposal.candidate) for step in steps}

    assert len(keys) == len(steps) == 14 - 1  # without the baseline


def test_candidates_outside_the_space_take_nothing_away():
    space = SPACES["three"]
    outside = [{"scheme": "none"}, {"scheme": "gone"}]
    view = view_after(space, [*outside, {"scheme": "qat"}, {"scheme": "dynamic"}])

    proposal = RandomSearch().propose(view, 4, np.random.default_rng(0))
    assert proposal.candidate == {"scheme": "static"}


def test_a_used_up_space_says_how_many_were_tried():
    space = SPACES["three"]
    view = view_after(space, [space.at(i) for i in range(3)], pending=2)

    with pytest.raises(Exhausted, match="all 3 candidates of the space were tried"):
        RandomSearch().propose(view, 3, np.random.default_rng(0))


def test_a_continuum_is_found_among_thousands_of_tried_candidates():
    space = Space(
        [
            Int(name="bits", low=0, high=3000, neutral=0),
            Float(
                name="lr", low=0.0, high=1.0, neutral=0.0, active_when=Condition("bits", "==", 7)
            ),
        ]
    )
    tried = [{"bits": i} for i in range(3001) if i != 7] + [{"bits": 7, "lr": 0.5}]
    proposals = [
        RandomSearch().propose(view_after(space, tried), 1, np.random.default_rng(seed))
        for seed in range(2)
    ]

    assert [p.candidate["bits"] for p in proposals] == [7, 7]
    assert len({p.candidate["lr"] for p in proposals}) == 2


def test_a_continuum_that_nothing_switches_on_does_not_keep_a_study_alive():
    space = Space(
        [
            Choice(name="mode", values=("a", "b"), neutral="a"),
            Float(
                name="lr", low=0.0, high=1.0, neutral=0.0, active_when=Condition("mode", "==", "c")
            ),
        ]
    )
    view = view_after(space, [{"mode": "a"}, {"mode": "b"}])

    with pytest.raises(Exhausted):
        RandomSearch().propose(view, 3, np.random.default_rng(0))


def test_a_huge_space_is_drawn_beyond_64_bits():
    space = SPACES["huge"]
    steps = play(RandomSearch(), Toy(space, trials=40))
    indices = [space.index(step.proposal.candidate) for step in steps]

    assert len(indices) == 40
    assert min(indices) < space.size / 4
    assert max(indices) > 3 * space.size / 4
