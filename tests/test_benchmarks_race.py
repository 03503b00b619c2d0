"""The loop that drives a strategy, and what is counted."""

from __future__ import annotations

import pytest
from benchmark_tables import Scripted, grid, tiny

from benchmarks.contestants import Contestant
from benchmarks.race import OurPlayer, Run, race
from benchmarks.tables import table_problem
from search.errors import NasliteError
from search.proposals import Proposals
from storage import Measurement, NewStudy, Store
from storage import Outcome as Ended
from storage.lease import new_owner
from strategies.base import Proposal
from strategies.space import candidate_key


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


class Notes:
    """Walks through the levels and keeps what it was asked with."""

    def __init__(self):
        self.asked = []

    def propose(self, view, number, rng):
        self.asked.append((number, view, rng.random()))
        if number == 4 and view.pending:
            return None
        level = (0, 2, 4, 1, 3)[number]
        return Proposal({"x": level}, {"pair": (1, number)}, {f"seen{number}": len(view.done)})


def study_of(problem, strategy, *, trials, seed, lag):
    """Play a problem as a controller does, with rows that a store keeps."""
    store, owner = Store("sqlite://"), new_owner()
    config = {"strategy": {"name": "notes"}}
    facts = {"score_name": problem.quality}
    new = NewStudy("s", config, problem.space.to_json(), "f" * 64, seed, trials, None, facts)
    study = store.create_study(new, owner)
    shown = {"space": problem.space, "strategy": strategy, "goals": problem.goals, "lag": lag}
    for number in range(trials + 1):
        memo = store.study("s").memo
        asked = Proposals(study, **shown).proposal(number, store.trials(study), memo)
        memos = {"memo": asked.memo, "study_memo": {**memo, **asked.study_memo}}
        key = candidate_key(asked.candidate)
        store.propose(study, owner, number, asked.candidate, key, **memos)
        metrics = problem.measured(asked.candidate, seed, 0).metrics
        if metrics is None:
            store.finish(study, owner, number, Ended("refused", "no such row", seconds=1.0))
            continue
        named = {**metrics, "err_drop": metrics["err"] - 10}
        measured = tuple(Measurement(name, value) for name, value in named.items())
        store.finish(study, owner, number, Ended("complete", measurements=measured, seconds=1.0))


@pytest.mark.parametrize("lag", [1, 3])
def test_a_strategy_is_asked_with_the_views_of_a_study(tmp_path, lag):
    knobs = {"x": {"neutral": 0, "levels": [0, 1, 2, 3, 4]}}  # 4 is refused
    problem = table_problem(tiny(tmp_path, knobs=knobs, limits=["err <= 15"]), None)
    played_by = Notes(), Notes()
    player = OurPlayer(problem, played_by[0], "notes", budget=5, seed=5, lag=lag)
    race(problem, player, 5, 5)
    study_of(problem, played_by[1], trials=4, seed=5, lag=lag)
    assert played_by[0].asked == played_by[1].asked
    number, view, _ = played_by[0].asked[-1]
    assert (number, len(view.done), len(view.pending)) == (4, 4, 0)
    assert [t.state for t in view.done] == ["complete", "complete", "refused", "complete"]
    assert [n for n, *_ in played_by[0].asked] == ([1, 2, 3, 4] if lag == 1 else [1, 2, 3, 4, 4])


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
    with pytest.raises(NasliteError, match="asked to wait at trial 1, but every earlier trial"):
        played(problem, Sleepy())
    with pytest.raises(NasliteError, match=r"left the space at trial 1: .* got 99"):
        played(problem, Lost())


def test_with_noise_the_strategy_sees_draws_and_the_hypervolume_is_of_the_means(tmp_path):
    path = grid(tmp_path)
    exact, noisy = table_problem(path, None), table_problem(path, None, noisy=True)
    random = Contestant.parse("random")
    runs = {}
    for problem in (exact, noisy):
        player = random.player(problem, budget=40, seed=3)
        runs[problem.name] = race(problem, player, 40, 3)
        complete = [row for row in player.rows if row.state == "complete"]
        seen = [row.metrics["err"] for row in complete]
        true = [problem.exact(row.candidate).values[0] for row in complete]
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
