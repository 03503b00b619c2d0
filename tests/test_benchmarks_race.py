"""The loop that drives a strategy, and what is counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmark_tables import Scripted, grid, tiny

from benchmarks.contestants import Contestant
from benchmarks.race import OurPlayer, Run, race
from benchmarks.summary import Result, evaluations_text, quantile, table
from benchmarks.tables import table_problem
from search.errors import NasliteError
from strategies.base import Proposal
from strategies.space import SpaceError


def played(problem, strategy, *, budget=10, seed=0, lag=1):
    player = OurPlayer(problem, strategy, "scripted", budget=budget, seed=seed, lag=lag)
    return race(problem, player, budget, seed)


def test_evaluations_are_counted_with_the_baseline(tmp_path):
    problem = table_problem(tiny(tmp_path), None)
    run = played(problem, Scripted([3, 1, 1, 2]))
    assert run.steps == (
        (1, pytest.approx(60 / 212)),
        (3, pytest.approx(172 / 212)),
        (5, pytest.approx(1.0)),
    )
    assert (run.evaluations, run.repeats, run.refused) == (5, 1, 0)
    assert [run.evaluations_to(share) for share in (0.28, 0.81, 0.82, 1.0)] == [1, 3, 5, 5]
    assert run.final == pytest.approx(1.0)


def test_a_share_that_is_not_reached_in_the_budget(tmp_path):
    problem = table_problem(tiny(tmp_path), None)
    run = played(problem, Scripted([3, 1, 1, 2]), budget=4)
    assert run.evaluations == 4
    assert run.evaluations_to(0.9) is None
    assert Run((), 0, 0, 0, 0.0).final == 0


def test_what_breaks_a_limit_adds_nothing(tmp_path):
    problem = table_problem(tiny(tmp_path, limits=["err <= 15"]), None)
    run = played(problem, Scripted([2, 1]))
    assert run.steps == ((1, pytest.approx(60 / 172)), (3, pytest.approx(1.0)))


def test_refused_candidates_are_seen_and_count(tmp_path):
    path = tiny(tmp_path, knobs={"x": {"neutral": 0, "levels": [0, 1, 2, 3, 4]}})
    strategy = Scripted([4, 1])
    run = played(table_problem(path, None), strategy)
    assert (run.evaluations, run.refused) == (3, 1)
    assert [trial.state for trial in strategy.views[1].done] == ["complete", "refused"]
    assert strategy.views[1].done[1].values == ()


def test_a_strategy_sees_what_a_study_would_show_it(tmp_path):
    problem = table_problem(tiny(tmp_path, limits=["err <= 15"]), None)
    strategy = Scripted([2, 1, 3])
    played(problem, strategy, budget=4, seed=5)
    view = strategy.views[2]
    assert (view.objectives, view.constraints) == (("err", "size"), ("err <= 15",))
    assert (view.drop, view.costs, view.seed, view.budget.trials) == ("err_drop", (1,), 5, 3)
    assert [t.number for t in view.done] == [0, 1, 2]
    assert [t.values for t in view.done] == [(10, 8), (20, 2), (12, 4)]
    assert [t.metrics["err_drop"] for t in view.done] == [0, 10, 2]
    assert [t.is_feasible for t in view.done] == [True, False, True]
    assert dict(view.memo) == {"seen1": 1, "seen2": 2}
    assert view.done[2].memo == {"number": 2, "pair": [1, 2]}  # as JSON gives it back
    assert view.done[1] is strategy.views[1].done[1]


def test_a_score_to_maximise_gives_a_drop(tmp_path):
    path = tiny(
        tmp_path,
        derived={"acc": "100 - err"},
        objectives={"size": {"goal": "min", "reference": 10}, "acc": "max"},
        quality="acc",
    )
    strategy = Scripted([1, 2])
    problem = table_problem(path, None)
    played(problem, strategy, budget=3)
    assert problem.reference == (10, -70)
    assert strategy.views[1].drop == "acc_drop"
    assert strategy.views[1].costs == (0,)
    assert [t.metrics["acc_drop"] for t in strategy.views[1].done] == [0, 2]


def test_with_a_lag_later_trials_are_pending(tmp_path):
    strategy = Scripted([3, 1, 2, 0])
    played(table_problem(tiny(tmp_path), None), strategy, budget=5, lag=3)
    seen = [(len(view.done), len(view.pending)) for view in strategy.views]
    assert seen == [(0, 1), (0, 2), (1, 2), (2, 2)]
    last = strategy.views[-1].pending
    assert [(t.number, t.state, t.values) for t in last] == [
        (2, "running", ()),
        (3, "running", ()),
    ]
    assert last[0].memo == {"number": 2, "pair": [1, 2]}


def test_at_a_barrier_all_earlier_trials_are_shown(tmp_path):
    strategy = Scripted([3, 1, 2], waits=[3])
    run = played(table_problem(tiny(tmp_path), None), strategy, budget=4, lag=4)
    assert run.evaluations == 4
    assert [len(view.done) for view in strategy.views] == [0, 0, 0, 3]


class Sleepy:
    def propose(self, view, number, rng):
        return None


class Lost:
    def propose(self, view, number, rng):
        return Proposal({"x": 99})


def test_errors_of_a_strategy(tmp_path):
    problem = table_problem(tiny(tmp_path), None)
    with pytest.raises(NasliteError, match="asked to wait at trial 1, but every earlier one"):
        played(problem, Sleepy())
    with pytest.raises(SpaceError, match="must be one of 0, 1, 2, 3, got 99"):
        played(problem, Lost())


def test_with_noise_the_strategy_sees_draws_and_the_hypervolume_is_of_the_means(tmp_path):
    path = grid(tmp_path)
    exact, noisy = table_problem(path, None), table_problem(path, None, noisy=True)
    random = Contestant.parse("random")
    runs = {}
    for problem in (exact, noisy):
        player = random.player(problem, budget=40, seed=3)
        runs[problem.name] = race(problem, player, 40, 3)
        seen = [t.values[0] for t in player._done if t.state == "complete"]
        true = [problem.exact(t.candidate).values[0] for t in player._done if t.values]
        assert (seen == true) == (problem is exact)
    assert runs["grid"].steps == runs["grid+noise"].steps  # random search heeds no value
    assert 0 < runs["grid"].refused < 40
    assert runs["grid"].repeats == 0


def test_random_search_finds_the_whole_front_in_the_end_and_repeats_itself_by_seed(tmp_path):
    problem = table_problem(grid(tmp_path), None)
    random = Contestant.parse("random")

    def run(seed):
        return race(problem, random.player(problem, budget=99, seed=seed), 99, seed)

    first = run(0)
    assert first.final == pytest.approx(1.0)
    assert first.evaluations == problem.space.size  # then it is exhausted
    assert first.refused == 5
    assert run(0).steps == first.steps
    assert run(1).steps != first.steps
    shares = [share for _, share in first.steps]
    assert shares == sorted(shares)


def test_a_row_of_the_report():
    runs = [Run(((1, 0.5), (8, 0.96)), 10, 3, 1, 0.02), Run(((1, 0.5),), 10, 2, 0, 0.04)]
    results = [Result("tiny", "a", seed, run) for seed, run in enumerate(runs)]
    header, row = table([*results], 10)
    assert header[:4] == ["strategy", "90%", "95%", "98%"]
    assert row[3:5] == ["> 10", "> 10"]
    assert row[5:] == ["73.0%", "25.0%", "5.0%", "3.00"]


def test_censored_quantiles():
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([1, 2, 3, 4], 0.25) == pytest.approx(np.quantile([1, 2, 3, 4], 0.25))
    assert quantile([1, None], 0.5) == math.inf
    assert quantile([1, 2, None], 0.5) == 2
    assert quantile([None, None], 0.25) == math.inf


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([10, 20, 30, 40, 50], "30 (20-40)"),
        ([10, 20, 30, None, None], "30 (20-> 60)"),
        ([10, 20, None, None, None], "> 60 (20-> 60)"),
        ([10, None, None, None, None], "> 60"),
        ([10, 21], "15.5 (13-18)"),
        ([None], "> 60"),
    ],
)
def test_medians_that_are_not_reached_are_said_so(counts, text):
    assert evaluations_text(counts, 60) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gentic", "unknown strategy 'gentic'; did you mean 'genetic'?"),
        ("{name: greedy, steps: once}", "unknown option 'steps'; did you mean 'step'?"),
        ("{name: greedy, step: twice}", "step must be one of best, once, got 'twice'"),
        ("{step: once}", "must have a name, got None"),
        ("{name: [", "--strategy {name: \\[: line 1"),
        ("peer:optuna-tp", "unknown peer 'optuna-tp'; did you mean 'optuna-tpe'?"),
        ("{name: 'peer:optuna-tpe', startup: 3}", "unknown option 'startup'"),
        ("none.py:Search", "does not exist"),
    ],
)
def test_contestants_that_cannot_be_made(tmp_path, text, message):
    problem = table_problem(tiny(tmp_path), None)
    with pytest.raises(NasliteError, match=message):
        Contestant.parse(text).problems(problem)


def test_labels_of_contestants():
    assert Contestant.parse("random").label == "random"
    options = Contestant.parse("{name: greedy, step: once, restarts: false}")
    assert options.label == "greedy (step=once, restarts=False)"
    assert options.options == {"step": "once", "restarts": False}
    assert Contestant.parse("{name: greedy, label: mine}").label == "mine"


def test_what_a_strategy_cannot_take_is_known_before_the_race(tmp_path):
    problem = table_problem(tiny(tmp_path), None)
    one_objective = Contestant.parse("{name: optuna, sampler: cmaes}")
    assert "takes at most 1 objective(s), got 2" in one_objective.problems(problem)[0]
    assert Contestant.parse("random").problems(problem) == []
