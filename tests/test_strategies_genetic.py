from __future__ import annotations

from collections import Counter
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from strategies.base import Observation, Strategy, View, trial_rng
from strategies.genetic import GeneticSearch, best_parents, compressed, crossed, mutated
from strategies.pareto import front
from strategies.random_search import RandomSearch
from strategies.space import Choice, Condition, Float, Int, Space
from strategies.testing import SPACES, StrategyContract, Toy, play


class TestGenetic(StrategyContract):
    def make(self) -> Strategy:
        return GeneticSearch()


class TestSmallGenetic(StrategyContract):
    """Breeds from the third trial on, so that the contract's short studies breed much."""

    def make(self) -> Strategy:
        return GeneticSearch(population=4, initial=3)


LAYERS = Space(Int(name=f"layer{i}", low=0, high=4, neutral=0, direction=1) for i in range(12))


def fronts(trials: list[Observation]) -> list[set[int]]:
    """Fronts under constraint domination, one peeled off after the other."""
    left, found = list(trials), []
    while left:
        mask = front(np.array([t.values for t in left]), np.array([t.violations for t in left]))
        found.append({t.number for t, kept in zip(left, mask, strict=True) if kept})
        left = [t for t, kept in zip(left, mask, strict=True) if not kept]
    return found


values = st.integers(0, 4).map(float)


@settings(max_examples=200)
@given(
    rows=st.integers(1, 3).flatmap(
        lambda m: st.lists(
            st.tuples(st.tuples(*[values] * m), st.sampled_from([0.0, 0.0, 1.0, 2.0])),
            min_size=1,
            max_size=25,
        )
    ),
    count=st.integers(1, 12),
)
def test_parents_are_the_first_fronts_under_constraint_domination(rows, count):
    trials = [
        Observation(i, {"n": i}, "complete", values=row, violations=(broken,))
        for i, (row, broken) in enumerate(rows)
    ]
    parents = best_parents(trials, count)
    chosen = [parent.candidate["n"] for parent in parents]
    assert len(chosen) == len(set(chosen)) == min(count, len(trials))
    rank = {n: r for r, members in enumerate(fronts(trials)) for n in members}
    worst = max(rank[n] for n in chosen)
    assert all(rank[n] >= worst for n in rank if n not in chosen)
    ranked = sorted(parents, key=lambda parent: rank[parent.candidate["n"]])
    for first, second in pairwise(ranked):
        same = rank[first.candidate["n"]] == rank[second.candidate["n"]]
        assert (first.rank == second.rank) if same else (first.rank < second.rank)


def test_the_ends_of_a_crowded_front_are_parents():
    trials = [
        Observation(i, {"n": i}, "complete", values=(float(i), float(20 - i))) for i in range(21)
    ]
    chosen = {parent.candidate["n"] for parent in best_parents(trials, 5)}
    assert {0, 20} <= chosen


def test_trials_without_an_outcome_are_no_parents():
    trials = [
        Observation(0, {"n": 0}, "complete", values=(1.0, 1.0)),
        Observation(1, {"n": 1}, "failed"),
        Observation(2, {"n": 2}, "refused"),
    ]
    assert [parent.candidate["n"] for parent in best_parents(trials, 4)] == [0]


def test_a_study_begins_at_the_extremes_and_covers_all_degrees_of_compression():
    steps = play(GeneticSearch(population=10), Toy(LAYERS, trials=9))
    candidates = [step.proposal.candidate for step in steps]
    assert candidates[0] == LAYERS.extreme()
    degrees = sorted(float(LAYERS.encode(c).mean()) for c in candidates[1:])
    assert degrees[0] < 0.2
    assert degrees[-1] > 0.8
    assert max(np.diff(degrees)) < 0.35


def test_a_space_without_the_baseline_begins_with_its_least_compressed_candidate():
    space = Space(
        Float(name=f"ratio{i}", low=0.2, high=0.8, step=0.1, neutral=0.0, direction=1)
        for i in range(3)
    )
    first, second = play(GeneticSearch(), Toy(space, trials=2))
    assert set(first.proposal.candidate.values()) == {0.2}
    assert set(second.proposal.candidate.values()) == {0.8}


@pytest.mark.parametrize("degree", [0.0, 0.3, 1.0])
def test_a_degree_of_compression_is_met_on_average(degree):
    rng = np.random.default_rng(0)
    found = [LAYERS.encode(compressed(LAYERS, degree, rng)).mean() for _ in range(200)]
    assert float(np.mean(found)) == pytest.approx(degree, abs=0.03)


def test_knobs_without_a_direction_are_drawn_evenly():
    space = Space([Choice(name="scheme", values=("a", "b", "c"), neutral="a")])
    rng = np.random.default_rng(0)
    counts = Counter(compressed(space, 0.1, rng)["scheme"] for _ in range(900))
    assert all(250 < n < 350 for n in counts.values())


def test_an_ordered_knob_mutates_to_a_neighbour_and_an_unordered_one_to_any_other():
    rng = np.random.default_rng(0)
    ordered = Int(name="x", low=0, high=9, neutral=0)
    assert {mutated(ordered, 4, 20.0, rng) for _ in range(50)} == {3, 5}
    assert {mutated(ordered, 9, 20.0, rng) for _ in range(50)} == {8}
    loose = Choice(name="x", values=("a", "b", "c", "d"), neutral="a")
    assert {mutated(loose, "b", 20.0, rng) for _ in range(50)} == {"a", "c", "d"}


@given(x=st.floats(0, 1), eta=st.floats(0, 100), seed=st.integers(0, 1000), log=st.booleans())
def test_polynomial_mutation_stays_in_the_range(x, eta, seed, log):
    knob = Float(name="x", low=0.01, high=5.0, log=log, neutral=0.01)
    value = mutated(knob, knob.from_unit(x), eta, np.random.default_rng(seed))
    assert knob.contains(value)


def test_polynomial_mutation_takes_smaller_steps_for_a_greater_index():
    knob, rng = Float(name="x", low=0.0, high=1.0, neutral=0.0), np.random.default_rng(0)

    def spread(eta: float) -> float:
        return float(np.mean([abs(mutated(knob, 0.5, eta, rng) - 0.5) for _ in range(500)]))

    # E|delta| = 1 / (eta + 2), for a value far from both bounds
    assert spread(20.0) == pytest.approx(1 / 22, rel=0.15)
    assert spread(100.0) == pytest.approx(1 / 102, rel=0.15)


def test_a_child_has_each_value_from_one_of_its_parents():
    rng = np.random.default_rng(0)
    mother, father = LAYERS.origin(), LAYERS.extreme()
    children = [crossed(LAYERS, mother, father, rng) for _ in range(200)]
    assert all(set(child.values()) <= {0, 4} for child in children)
    share = np.mean([child["layer3"] == 4 for child in children])
    assert share == pytest.approx(0.5, abs=0.12)


def test_a_knob_that_one_parent_has_switched_on_comes_from_that_parent():
    space = Space(
        [
            Choice(name="mode", values=("off", "on"), neutral="off"),
            Int(name="level", low=1, high=9, neutral=1, active_when=Condition("mode", "==", "on")),
        ]
    )
    rng = np.random.default_rng(0)
    mother, father = {"mode": "off"}, {"mode": "on", "level": 7}
    children = [crossed(space, mother, father, rng) for _ in range(50)]
    assert all(child in (mother, father) for child in children)
    assert mother in children
    assert father in children


def hypervolume(steps: list, toy: Toy) -> float:
    """Of the front of a study, in two objectives, towards (1, 1)."""
    rows = [toy.observed(s.number, s.proposal.candidate, {}).values for s in steps]
    area, height = 0.0, 1.0
    for x, y in sorted(rows):
        if y < height:
            area += (1 - x) * (height - y)
            height = y
    return area


class Sensitive(Toy):
    """Layers that differ in what they cost and in what they lose."""

    def observed(self, number, candidate, memo):
        levels = np.array([candidate[f"layer{i}"] for i in range(12)]) / 4
        weight = np.linspace(0.2, 3, 12)
        loss = float(1 - np.exp(-np.mean(weight * levels**2)))
        cost = float(np.mean(1 - 0.9 * levels))
        return Observation(
            number, candidate, "complete", (loss, cost), (), {"quality_drop": loss}, memo=memo
        )


def test_breeding_finds_a_better_front_than_chance():
    gains = []
    for seed in range(5):
        toy = Sensitive(LAYERS, trials=120, seed=seed, constrained=False)
        gains.append(
            hypervolume(play(GeneticSearch(), toy), toy)
            / hypervolume(play(RandomSearch(), toy), toy)
        )
    assert min(gains) > 1.05


def test_parents_come_from_all_visible_trials():
    """The first of 400 trials still breeds, if nothing beat it."""
    best = LAYERS.extreme() | {"layer0": 0}
    rng = np.random.default_rng(1)
    rows = [
        Observation(0, LAYERS.baseline(), "complete", values=(5.0, 5.0)),
        Observation(1, best, "complete", values=(0.0, 0.0)),
        *(
            Observation(n, LAYERS.sample(rng), "complete", values=(9.0, 9.0))
            for n in range(2, 400)
        ),
    ]
    view = View(LAYERS, ("drop", "cost"), done=rows)
    strategy = GeneticSearch(population=4, crossover=0.0)
    near = 0
    for seed in range(40):
        child = strategy.propose(view, 400, trial_rng(seed, "genetic", 400)).candidate
        near += sum(child[name] != best[name] for name in child) <= 2
    assert near > 15


@pytest.mark.parametrize("space", ["conditional", "continuous"])
def test_the_same_seed_breeds_the_same_children(space):
    toy = Toy(SPACES[space], trials=30)
    runs = [[s.proposal for s in play(GeneticSearch(population=4), toy)] for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 3}, "population must be an integer >= 4, got 3"),
        ({"population": 20.0}, "population must be an integer >= 4, got 20.0"),
        ({"initial": 1}, "initial must be an integer >= 2, got 1"),
        ({"crossover": 1.5}, r"crossover must be a number in \[0, 1\], got 1.5"),
        ({"mutation": -0.1}, "mutation must be a number >= 0, got -0.1"),
        ({"population": 2, "eta": -1}, "population must be .*\neta must be a number >= 0"),
        ({"mutation": "1"}, "mutation must be a number >= 0, got '1'"),
        ({"eta": -1}, "eta must be a number >= 0, got -1"),
        ({"eta": float("nan")}, "eta must be a number >= 0, got nan"),
    ],
)
def test_wrong_options_say_the_rule(options, message):
    with pytest.raises(ValueError, match=message):
        GeneticSearch(**options)
