from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from strategies.base import Exhausted, Observation, Strategy, View, trial_rng
from strategies.greedy import GreedySearch
from strategies.rungs import Ladder, further_rungs, rungs
from strategies.space import Choice, Condition, Float, Int, Space
from strategies.testing import SPACES, StrategyContract, Toy, play
from strategies.trades import best_trade, gain_and_loss


class TestGreedyBest(StrategyContract):
    def make(self) -> Strategy:
        return GreedySearch(step="best")


class TestGreedyOnce(StrategyContract):
    def make(self) -> Strategy:
        return GreedySearch(step="once")


GRID = Space(Int(name=name, low=0, high=2, neutral=0, direction=1) for name in "ab")

# (a, b) -> (percent of quality lost, cost)
OUTCOMES = {
    (0, 0): (0, 100), (1, 0): (1, 80), (2, 0): (4, 70),
    (0, 1): (3, 70), (1, 1): (5, 50), (2, 1): (6, 45),
    (0, 2): (9, 60), (1, 2): (7, 30), (2, 2): (20, 20),
}  # fmt: skip


def search(*study: Any, **options: Any) -> list[dict[str, Any]]:
    """The candidates that `run` proposes."""
    return [dict(row.candidate) for row in run(*study, **options)[1:]]


def run(
    strategy: Strategy,
    space: Space,
    outcome: Callable[[dict[str, Any]], tuple[float, float] | None],
    *,
    trials: int = 20,
    limit: float = 1e9,
    seed: int = 0,
    single: bool = False,
) -> list[Observation]:
    """A study until Exhausted; `outcome` gives (loss, cost) or None = refused.

    Args:
        single: The cost is the only objective.
    """
    objectives = ("cost",) if single else ("drop", "cost")
    rows: list[Observation] = []
    memo: dict[str, Any] = {}

    def observe(candidate: dict[str, Any], own: Any) -> None:
        found = outcome(candidate)
        if found is None:
            rows.append(Observation(len(rows), candidate, "refused", memo=own))
            return
        broken = (max(0.0, found[0] - limit),)
        rows.append(
            Observation(
                len(rows),
                candidate,
                "complete",
                found[-len(objectives) :],
                broken,
                {"drop": found[0]},
                memo=own,
            )
        )

    observe(space.baseline(), {})
    for number in range(1, trials + 1):
        view = View(
            space,
            objectives,
            ("drop <= limit",),
            done=tuple(rows),
            memo=memo,
            drop="drop",
            costs=(len(objectives) - 1,),
        )
        try:
            proposal = strategy.propose(view, number, trial_rng(seed, "greedy", number))
        except Exhausted:
            break
        assert proposal is not None
        memo.update(proposal.study_memo)
        observe(dict(proposal.candidate), dict(proposal.memo))
    return rows


def grid(strategy: Strategy, **options: Any) -> list[tuple[int, int]]:
    found = search(strategy, GRID, lambda c: OUTCOMES[c["a"], c["b"]], **options)
    return [(c["a"], c["b"]) for c in found]


def test_the_best_trade_is_followed_to_the_end_of_the_space():
    # from 00: a saves .20 for 1, b .30 for 3 -> 10; then 20: .125 for 3, 11: .375 for 4 -> 11;
    # then 21: .1 for 1, 12: .4 for 2 -> 12; then only 22 is left.
    expected = [(1, 0), (0, 1), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]
    assert grid(GreedySearch("best", restarts=False)) == expected


def test_a_single_pass_walks_by_rising_losses():
    # alone: a1 loses 1, b1 3, a2 4, b2 9; so the walk is 10, 11, 21, 22, of which 10 is known.
    expected = [(1, 0), (2, 0), (0, 1), (0, 2), (1, 1), (2, 1), (2, 2)]
    assert grid(GreedySearch("once", restarts=False)) == expected


@pytest.mark.parametrize("step", ["best", "once"])
def test_restarts_use_the_space_up(step):
    found = grid(GreedySearch(step=step))
    assert sorted(found) == sorted(set(OUTCOMES) - {(0, 0)})


def test_a_path_ends_at_the_wall_of_a_constraint():
    # 10 is the last point that loses at most 2
    assert grid(GreedySearch("best", restarts=False), limit=2) == [(1, 0), (0, 1), (2, 0), (1, 1)]
    # the walk ends with its first state beyond
    once = GreedySearch("once", restarts=False)
    assert grid(once, limit=2) == [(1, 0), (2, 0), (0, 1), (0, 2), (1, 1)]


@pytest.mark.parametrize("seed", range(6))
def test_no_restart_walks_on_beyond_a_wall(seed):
    space = Space(Int(name=name, low=0, high=3, neutral=0, direction=1) for name in "abc")

    def outcome(c: dict[str, Any]) -> tuple[float, float]:
        a, b, d = c.values()
        return (a + 2 * b + 3 * d + a * b, 100 - 9 * a - 10 * b - 12 * d)

    rows = run(GreedySearch("once"), space, outcome, trials=45, limit=8, seed=seed)
    walks: dict[int, list[Observation]] = {}
    for row in rows:
        if "walk" in row.memo:
            walks.setdefault(row.memo["start"], []).append(row)
    assert walks
    for start, walked in walks.items():
        broken = [not row.is_feasible for row in walked]
        if rows[start].is_feasible:
            assert not any(broken[:-1]), f"the walk from {start} went on beyond its wall"


@pytest.mark.parametrize("step", ["best", "once"])
def test_one_objective_goes_on_beside_the_best_trials(step):
    """Its front is a single point; the best of 1,024 is found among 250, on each of five seeds."""
    space = Space(Int(name=name, low=0, high=3, neutral=0, direction=1) for name in "abcde")

    def outcome(c: dict[str, Any]) -> tuple[float, float]:
        levels = list(c.values())
        pairs = sum(x * y for x, y in itertools.pairwise(levels))
        loss = sum((i + 1) * x for i, x in enumerate(levels)) + pairs
        return float(loss), 100.0 - sum((7 - i) * x for i, x in enumerate(levels)) - 0.1 * pairs

    every = [outcome(space.at(i)) for i in range(1024)]
    best = min(cost for loss, cost in every if loss <= 12)
    for seed in range(5):
        rows = run(
            GreedySearch(step), space, outcome, trials=250, limit=12, seed=seed, single=True
        )
        assert min(row.values[0] for row in rows if row.is_feasible) == best


def test_a_refused_move_is_not_gone_on_from():
    def outcome(c: dict[str, Any]) -> tuple[float, float] | None:
        return None if (c["a"], c["b"]) == (1, 0) else OUTCOMES[c["a"], c["b"]]

    found = search(GreedySearch("best", restarts=False), GRID, outcome)
    assert [(c["a"], c["b"]) for c in found][:4] == [(1, 0), (0, 1), (1, 1), (0, 2)]


def test_a_single_pass_leaves_out_levels_that_save_nothing():
    space = Space(
        [
            Choice(name="scheme", values=("none", "slow", "int8"), neutral="none"),
            Choice(name="teacher", values=("self", "wide"), neutral="self"),
        ]
    )
    cost = {"none": 100.0, "slow": 120.0, "int8": 40.0}

    def outcome(c: dict[str, Any]) -> tuple[float, float]:
        return (0.5 * (c["scheme"] == "int8") - 0.1 * (c["teacher"] == "wide"), cost[c["scheme"]])

    found = search(GreedySearch("once", restarts=False), space, outcome)
    assert [tuple(c.values()) for c in found] == [
        ("slow", "self"),
        ("int8", "self"),
        ("none", "wide"),  # better for nothing: it stays
        ("int8", "wide"),
    ]


def test_knobs_of_an_inactive_parent_are_measured_with_it():
    space = SPACES["conditional"]
    names = ["ratio", "importance", "scheme", "calibrator", "percentile"]
    origin = space.origin()
    ladder = Ladder(space, 10)
    before = {name: ladder.activation(origin, name) for name in names}
    assert before == {
        "ratio": [],
        "importance": [("ratio", 0.1)],
        "scheme": [],
        "calibrator": [("scheme", "static")],
        "percentile": [("scheme", "static"), ("calibrator", "percentile")],
    }
    seen = [step.proposal.candidate for step in play(GreedySearch("once"), Toy(space, trials=30))]
    assert {"ratio": 0.1, "importance": "l1", "scheme": "none", "per_channel": False} in seen


def test_a_knob_that_nothing_switches_on_is_left_alone():
    space = Space(
        [
            Choice(name="mode", values=("a", "b"), neutral="a"),
            Int(name="x", low=0, high=3, neutral=0, active_when=Condition("mode", "==", "c")),
        ]
    )
    assert Ladder(space, 10).activation({"mode": "a"}, "x") is None
    assert search(GreedySearch("once"), space, lambda c: (0.0, 1.0)) == [{"mode": "b"}]


def test_pending_outcomes_are_waited_for_at_the_end_of_a_round():
    rows = [Observation(0, GRID.baseline(), "complete", (0.0, 1.0), metrics={"drop": 0.0})]
    pending = [
        Observation(1, {"a": 1, "b": 0}, "running", memo={"start": 0, "move": 0}),
        Observation(2, {"a": 0, "b": 1}, "running", memo={"start": 0, "move": 1}),
    ]
    view = View(GRID, ("drop", "cost"), done=rows, pending=pending, drop="drop", costs=(1,))
    assert GreedySearch("best").propose(view, 3, trial_rng(0, "greedy", 3)) is None


def test_a_space_without_the_baseline_begins_at_its_least_compressed_candidate():
    space = Space(
        [
            Int(name="epochs", low=2, high=6, step=2, neutral=0),
            Float(name="ratio", low=0.2, high=0.8, step=0.2, neutral=0.0, direction=1),
        ]
    )
    found = search(
        GreedySearch("best", restarts=False), space, lambda c: (c["ratio"], -c["ratio"])
    )
    assert found[:3] == [
        {"epochs": 2, "ratio": 0.2},
        {"epochs": 4, "ratio": 0.2},
        {"epochs": 2, "ratio": 0.4},
    ]


def test_rungs_divide_wide_ranges_and_keep_levels():
    wide = Int(name="x", low=0, high=1000, neutral=0)
    assert rungs(wide, 4) == [0, 250, 500, 750, 1000]
    assert rungs(Int(name="x", low=0, high=10, neutral=0), 10) == list(range(11))
    log = Float(name="x", low=1e-4, high=1.0, log=True, neutral=1.0)
    assert rungs(log, 4) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    scheme = Choice(name="x", values=tuple("abcdefghijklmn"), neutral="a")
    assert len(rungs(scheme, 4)) == 14


@pytest.mark.parametrize(
    ("direction", "value", "expected"),
    [
        (1, 2, [[3, 4]]),
        (-1, 2, [[1, 0]]),
        (0, 2, [[3, 4], [1, 0]]),  # neutral: both ways lead away
        (0, 3, [[4]]),
        (0, 1, [[0]]),
        (1, 4, []),
    ],
)
def test_more_compression_is_along_the_direction_or_away_from_neutral(direction, value, expected):
    knob = Int(name="x", low=0, high=4, neutral=2, direction=direction)
    assert [list(way) for way in further_rungs(knob, value, 10)] == expected


def test_unordered_levels_are_ways_of_their_own():
    knob = Choice(name="x", values=("none", "dynamic", "static"), neutral="none")
    assert further_rungs(knob, "none", 10) == (("dynamic",), ("static",))
    assert further_rungs(knob, "dynamic", 10) == (("static",),)
    space = Space([knob, Int(name="y", low=0, high=3, neutral=0, direction=1)])
    here = {"x": "none", "y": 1}
    ladder = Ladder(space, 10)
    assert ladder.next_moves(here) == [("x", "dynamic"), ("x", "static"), ("y", 2)]
    assert ladder.single_moves(here) == [
        ("x", "dynamic"),
        ("x", "static"),
        ("y", 2),
        ("y", 3),
    ]


figures = st.integers(-5, 5).map(float)
outcomes = st.tuples(figures, figures, st.sampled_from([0.0, 0.0, 1.0, 2.0]))


@given(start=outcomes, found=st.lists(outcomes, min_size=1, max_size=8))
def test_no_other_trade_is_better_in_gain_and_loss(start, found):
    view = View(GRID, ("drop", "cost"), ("c",), drop="drop", costs=(1,))
    rows = [
        Observation(
            i, {}, "complete", values=row[:2], violations=row[2:], metrics={"drop": row[0]}
        )
        for i, row in enumerate([start, *found])
    ]
    chosen = best_trade(view, rows[0], rows[1:])
    feasible = [row for row in rows[1:] if row.is_feasible]
    if chosen is None:
        assert rows[0].is_feasible
        assert not feasible
        return
    if feasible:
        assert chosen.is_feasible
        gain, loss = gain_and_loss(view, rows[0], chosen)
        for other in feasible:
            more, less = gain_and_loss(view, rows[0], other)
            assert not (more >= gain and less <= loss and (more, less) != (gain, loss))


def test_the_gain_is_relative_and_adds_up_over_costs():
    view = View(GRID, ("accuracy", "size", "latency"), drop="drop", costs=(1, 2))
    a = Observation(0, {}, "complete", (-0.9, 100.0, 2.0), metrics={"drop": 0.0})
    b = Observation(1, {}, "complete", (-0.8, 50.0, 1.5), metrics={"drop": 0.1})
    assert gain_and_loss(view, a, b) == (pytest.approx(0.75), pytest.approx(0.1))


@pytest.mark.parametrize("lag", [1, 4])
@pytest.mark.parametrize("step", ["best", "once"])
def test_what_an_object_remembers_of_restarts_changes_nothing(step, lag):
    toy = Toy(SPACES["conditional"], trials=220, lag=lag)
    other = replace(toy, states=("complete", "complete", "failed"))
    histories = [play(GreedySearch(step), study) for study in (toy, other)]
    warm = GreedySearch(step)
    for steps in zip(*histories, strict=True):
        for made in steps:
            for strategy in (warm, GreedySearch(step)) if made.number % 9 == 0 else (warm,):
                again = strategy.propose(made.view, made.number, toy.rng(made.number))
                assert again == made.proposal, f"trial {made.number}"
    for made in reversed(histories[0]):
        assert warm.propose(made.view, made.number, toy.rng(made.number)) == made.proposal


def test_restarts_are_drawn_from_the_trials_own_generator():
    space = Space(Int(name=name, low=0, high=2, neutral=0, direction=1) for name in "abc")

    def outcome(c: dict[str, Any]) -> tuple[float, float]:
        a, b, d = c.values()
        return (a**2 + 2 * b + 3 * d, 100 - 9 * a - 10 * b - 20 * d + 5 * a * d)

    length = len(search(GreedySearch("best", restarts=False), space, outcome, trials=40))
    runs = [
        search(GreedySearch("best"), space, outcome, trials=40, seed=seed) for seed in range(3)
    ]
    assert all(len(run) == 26 for run in runs)
    assert runs[0][:length] == runs[1][:length] == runs[2][:length]
    assert not runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": "bset"}, "step must be one of best, once, got 'bset'"),
        ({"restarts": 1}, "restarts must be true or false, got 1"),
        ({"levels": 0}, "levels must be an integer >= 1, got 0"),
    ],
)
def test_wrong_options_say_the_rule(options, message):
    with pytest.raises(ValueError, match=message):
        GreedySearch(**options)
