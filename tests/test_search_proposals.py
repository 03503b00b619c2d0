"""What a strategy is asked with, at every lag, and what becomes of its answer."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from doubles import CONFIG, FACTS, SPACE, control, new_study

from search.errors import NasliteError
from search.goals import Goals
from search.proposals import Proposals
from storage import Measurement, Store, Study, Trial
from storage.records import Extension
from strategies.base import Budget, Proposal, trial_rng
from strategies.testing_toys import SPACES, Toy

TOY = Toy(SPACES["small"], trials=20, seed=3)


@pytest.fixture
def study() -> Study:
    store = Store("sqlite://")
    new_study(store, trials=20, seed=3)
    return store.study("s")


def proposals(study: Study, strategy: object = None, *, lag: int | str | None = 1) -> Proposals:
    goals = Goals.of_config(study.config)
    return Proposals(study, space=SPACE, strategy=strategy, goals=goals, lag=lag)


def ended(number: int, state: str = "complete", **metrics: float) -> Trial:
    values = {"accuracy": 0.9, "accuracy_drop": 0.1, "size_bytes": 100.0, **metrics}
    measurements = tuple(Measurement(name, value) for name, value in values.items())
    return Trial(
        number,
        state,
        SPACE.at(number),
        memo={"n": number},
        measurements=measurements if state == "complete" else (),
        seconds=2.0,
    )


class Notes:
    """Keeps what it was asked with; waits at the trials named."""

    def __init__(self, *barriers: int, stubborn: bool = False) -> None:
        self.barriers = barriers
        self.stubborn = stubborn
        self.asked = []

    def propose(self, view, number, rng):
        self.asked.append((number, view, rng.random()))
        if number in self.barriers and (view.pending or self.stubborn):
            return None
        return Proposal(view.space.at(number), {"pair": (1, 2)}, {"last": number})


@pytest.mark.parametrize("lag", [1, 2, 4, 16])
def test_views_are_those_of_the_contract(study, lag):
    """The contract plays strategies as `Toy.view` says; a study must not differ from it."""
    trials = [ended(n) for n in range(12)]
    rows = [TOY.observed(n, TOY.space.baseline(), {}) for n in range(12)]
    for number in range(1, 12):
        view = proposals(study, lag=lag).view(number, trials, {})
        toy = TOY.view(rows[:number], {}, lag)
        assert [t.number for t in view.done] == [t.number for t in toy.done]
        assert [t.number for t in view.pending] == [t.number for t in toy.pending]
        assert {t.state for t in view.pending} <= {"running"}


def test_a_view_says_all_that_is_known(study):
    trials = [ended(0), ended(1), ended(2, "failed"), ended(3)]
    memo = {"a": 1}
    view = proposals(study, lag=2).view(4, trials, memo)
    memo["a"] = 2
    assert view.space is SPACE
    assert view.objectives == ("accuracy", "size_bytes")
    assert view.constraints == ("accuracy_drop <= 0.3",)
    assert (view.seed, view.budget, view.memo) == (3, Budget(20), {"a": 1})
    assert (view.drop, view.costs) == ("accuracy_drop", (1,))
    good, failed, pending = view.done[1], view.done[2], view.pending[0]
    assert (good.values, good.violations) == ((-0.9, 100.0), (0.0,))
    assert (good.metrics["size_bytes"], good.seconds, good.memo) == (100.0, 2.0, {"n": 1})
    assert (failed.state, failed.values, failed.metrics) == ("failed", (), {})
    # What is pending is not told, though it has ended.
    unknown = {f.name: getattr(pending, f.name) for f in fields(pending) if f.name != "key"}
    assert unknown == {
        "number": 3,
        "candidate": SPACE.at(3),
        "state": "running",
        "values": (),
        "violations": (),
        "metrics": {},
        "seconds": 0.0,
        "memo": {"n": 3},
    }


@pytest.mark.parametrize(
    ("objectives", "costs"),
    [
        ({"accuracy": "maximize"}, ()),
        ({"size_bytes": "minimize", "accuracy_drop": "minimize", "macs": "minimize"}, (0, 2)),
        ({"latency_ratio": "minimize", "accuracy": "maximize"}, (0,)),
    ],
)
def test_costs_are_the_objectives_that_are_neither_the_score_nor_its_drop(objectives, costs):
    store = Store("sqlite://")
    new_study(store, objectives=objectives)
    assert proposals(store.study("s")).view(0, [], {}).costs == costs


def test_the_drop_is_named_after_the_score(study):
    renamed = replace(study, facts={**FACTS, "score_name": "f1"})
    view = proposals(renamed).view(0, [], {})
    assert (view.drop, view.costs) == ("f1_drop", (0, 1))  # accuracy says nothing of f1


def test_a_trial_that_runs_cannot_be_seen_as_done(study):
    trials = [ended(0), replace(ended(1), state="running")]
    with pytest.raises(AssertionError, match="trial 1 has not ended"):
        proposals(study).view(2, trials, {})
    assert [t.number for t in proposals(study, lag=2).view(2, trials, {}).pending] == [1]


@pytest.mark.parametrize("lag", [1, 3, 16, "async"])
def test_continued_trainings_are_not_seen(study, lag):
    own = [ended(n) for n in range(12)]
    between = [5, 6, 9]
    trials = [replace(t, origin="continued") if t.number in between else t for t in own]
    maker = proposals(study, lag=lag)
    for number in range(1, 12):
        there, all_own = (maker.view(number, t, {}) for t in (trials[:number], own[:number]))
        for found, every in ((there.done, all_own.done), (there.pending, all_own.pending)):
            assert [t.number for t in found] == [
                t.number for t in every if t.number not in between
            ]
    again = maker.view(11, trials[:11], {}, lag=1)  # all have ended at a barrier
    assert [t.number for t in again.done] == [0, 1, 2, 3, 4, 7, 8, 10]
    assert [t.number for t in maker.view(8, trials[:8], {}, lag=3).done] == [0, 1, 2, 3, 4]


def test_every_trial_has_its_own_generator(study):
    notes = Notes()
    maker = proposals(study, notes)
    for number in (1, 2, 2):
        maker.proposal(number, [ended(n) for n in range(number)], {})
    draws = [draw for _, _, draw in notes.asked]
    assert draws == [trial_rng(3, "random", n).random() for n in (1, 2, 2)]


def test_memos_come_as_the_store_gives_them_back(study):
    proposal = proposals(study, Notes()).proposal(1, [ended(0)], {})
    assert proposal == Proposal(SPACE.at(1), {"pair": [1, 2]}, {"last": 1})


def test_at_a_barrier_all_trials_end_and_the_strategy_is_asked_again(study):
    notes = Notes(6)
    maker = proposals(study, notes, lag=5)
    running = [ended(0), ended(1), *(replace(ended(n), state="running") for n in (2, 3, 4, 5))]
    assert maker.proposal(6, running, {}) is None
    proposal = maker.proposal(6, [ended(n) for n in range(6)], {})
    assert proposal is not None
    assert proposal.candidate == SPACE.at(6)
    (_, first, draw), (_, second, again), (_, third, last) = notes.asked
    assert first == second
    assert [t.number for t in first.pending] == [2, 3, 4, 5]
    assert [t.number for t in third.done] == [0, 1, 2, 3, 4, 5]
    assert third.pending == ()
    assert draw == again == last


def test_without_a_barrier_nothing_is_waited_for(study):
    running = [ended(0), replace(ended(1), state="running")]
    assert proposals(study, Notes(), lag=2).proposal(2, running, {}) is not None


@pytest.mark.parametrize(("lag", "visible"), [(1, 5), (2, 4), (5, 1), (6, 0), (9, 0)])
def test_how_many_trials_must_have_ended(study, lag, visible):
    assert proposals(study, lag=lag).visible(5) == visible


def test_async_sees_whatever_has_ended(study):
    maker = proposals(study, Notes(), lag="async")
    trials = [ended(0), replace(ended(1), state="running"), ended(2), ended(3, "failed")]
    view = maker.view(4, trials, {})
    assert maker.visible(4) == 0
    assert [t.number for t in view.done] == [0, 2, 3]
    assert [t.number for t in view.pending] == [1]


def test_the_lag_is_that_of_the_study():
    store = Store("sqlite://")
    for name, config in (("old", {}), ("new", {"lag": 6})):
        new_study(store, name, **config)
    assert proposals(store.study("old"), lag=None).lag == 1  # stored before there was any
    assert proposals(store.study("new"), lag=None).lag == 6


def test_a_trial_sees_the_budget_it_was_proposed_under(study):
    goals = Goals.of_config(study.config)
    later = [Extension(4, 40, None), Extension(9, 40, 12.5)]
    maker = Proposals(study, space=SPACE, strategy=Notes(), goals=goals, extensions=later)
    budgets = [maker.view(n, [ended(k) for k in range(n)], {}).budget for n in (3, 4, 8, 9, 10)]
    assert budgets == [Budget(20), Budget(40), Budget(40), Budget(40, 12.5), Budget(40, 12.5)]


@pytest.mark.parametrize("lag", [1, 3])
def test_a_second_wait_is_an_error_of_the_strategy(study, lag):
    notes = Notes(2, stubborn=True)
    with pytest.raises(NasliteError, match="asked to wait at trial 2, but every earlier trial"):
        proposals(study, notes, lag=lag).proposal(2, [ended(0), ended(1)], {})
    assert len(notes.asked) == min(2, lag)


def test_the_controller_asks_with_these_views():
    store, notes = Store("sqlite://"), Notes()
    new_study(store, trials=3)
    trials = control(store, strategy=notes)
    study = store.study("s")
    again = proposals(study)
    memo = {}
    for number, view, _ in notes.asked:
        assert again.view(number, trials, memo) == view
        memo = {"last": number}
    assert [number for number, _, _ in notes.asked] == [1, 2, 3]


def test_what_is_enqueued_comes_before_the_strategy():
    store, notes = Store("sqlite://"), Notes()
    new_study(store, enqueue=[SPACE.at(7), SPACE.at(5)])
    maker = proposals(store.study("s"), notes)
    assert maker.first == 3
    assert maker.proposal(0, [], {}) == Proposal(SPACE.baseline())
    assert maker.proposal(1, [ended(0)], {}) == Proposal(SPACE.at(7))
    assert maker.proposal(2, [ended(0), ended(1)], {}) == Proposal(SPACE.at(5))
    assert notes.asked == []
    assert maker.proposal(3, [ended(n) for n in range(3)], {}).candidate == SPACE.at(3)


def test_the_config_of_the_doubles_is_a_study_without_enqueued_candidates(study):
    assert "enqueue" not in CONFIG  # as in studies stored before there were any
    assert proposals(study).first == 1
