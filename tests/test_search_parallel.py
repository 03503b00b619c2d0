"""Studies with workers: whatever ends first, the rows are the same."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from doubles import SPACE, FormulaBench, control, new_study, serial, table
from parallel import Asks, Listed, Shuffled, shuffled

from search.dispatch import Dispatcher
from search.errors import NasliteError
from search.executor import Serial
from search.goals import Goals
from search.jobs import JobEnd
from search.observer import Observer
from search.replay import replay
from storage import NewStudy, Store
from storage.lease import new_owner


@pytest.fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path / 'a.db'}")


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "random"},
        {"name": "greedy"},
        {"name": "greedy", "step": "best"},
        {"name": "genetic", "population": 8},
        {"name": "tpe"},
        {"name": "optuna", "sampler": "nsgaii"},
        {"name": "optuna", "sampler": "qmc"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_parallel_study_repeats_whatever_ends_first(store, strategy):
    tables = []
    for seed in range(4):
        name = f"s{seed}"
        new_study(store, name, trials=14, lag=6, strategy=strategy)
        tables.append(
            table(control(store, name, dispatcher=shuffled(store, FormulaBench(), seed=seed)))
        )
        assert replay(name, store=store.url).differences == ()
    assert tables[0] == tables[1] == tables[2] == tables[3]
    assert len(tables[0]) == 15


def test_async_keeps_all_workers_busy_and_cannot_be_replayed(store):
    new_study(store, trials=12, lag="async", strategy={"name": "tpe"})
    dispatcher = shuffled(store, FormulaBench(), slots=4)
    trials = control(store, dispatcher=dispatcher)
    assert len(trials) == 13
    assert dispatcher.builders.most == 4
    with pytest.raises(NasliteError, match="ran with `lag: async`"):
        replay("s", store=store.url)


def test_with_lag_1_one_trial_runs_at_a_time(store):
    new_study(store, trials=8, lag=1)
    dispatcher = shuffled(store, FormulaBench(), slots=4)
    control(store, dispatcher=dispatcher)
    assert dispatcher.builders.most == 1


def test_equal_candidates_at_the_same_time_are_evaluated_once(store):
    bench = FormulaBench()
    new_study(store, lag=8, trials=6)
    trials = control(
        store, strategy=Listed(3, 3, 5, 3, 5, 3), dispatcher=shuffled(store, bench, slots=4)
    )
    assert Counter(c["prune.level"] for c in bench.built) == {0: 1, 3: 1, 5: 1}
    assert [t.reused_from for t in trials] == [None, None, 1, None, 1, 3, 1]
    assert {t.state for t in trials} == {"complete"}


def test_what_waited_for_a_trial_that_fails_is_tried_itself(store):
    bench = FormulaBench()

    def fail_once(candidate):
        if len(bench.built) == 2:
            raise ValueError("not this time")

    bench.hooks = (fail_once,)
    new_study(store, lag=8, trials=2)
    trials = control(store, strategy=Listed(3, 3), dispatcher=shuffled(store, bench, slots=4))
    assert [(t.state, t.cause) for t in trials[1:]] == [
        ("failed", "prune: not this time"),
        ("complete", ""),
    ]


def test_at_a_barrier_nothing_is_proposed_until_all_have_ended(store):
    strategy = Listed(1, 2, 3, 4, 5, 6, barriers=(4,))
    new_study(store, lag=6, trials=6)
    trials = control(store, strategy=strategy, dispatcher=shuffled(store, FormulaBench()))
    assert len(trials) == 7
    assert strategy.pending_at[4] == []
    assert strategy.pending_at[3] == [0, 1, 2]


def test_an_exhausted_strategy_lets_what_runs_end(store):
    new_study(store, lag=6, trials=60)
    trials = control(
        store, strategy=Listed(1, 2, 3), dispatcher=shuffled(store, FormulaBench(), slots=4)
    )
    assert [t.state for t in trials] == ["complete"] * 4
    assert store.study("s").state == "finished"


class Faulty(Shuffled):
    """The first jobs of a trial's level end as told: {level: [ends]}."""

    def __init__(self, bench, ends):
        super().__init__(bench, 2, 0)
        self.ends = ends

    def _run(self, job):
        left = self.ends.get(job.arguments[0]["prune.level"]) if job.method == "build" else None
        if left:
            kind, cause = left.pop(0)
            return JobEnd(job, kind, None, cause, "prune", (), 1.0)
        return super()._run(job)


def faulty(store, ends):
    bench = FormulaBench(artifacts=store.artifacts)
    names = {"score_name": "accuracy", "higher_is_better": True}
    faulty_bench = Faulty(bench, ends)
    return Dispatcher(faulty_bench, Serial(bench), store.artifacts, timeout_s=60, **names)


DIED = ("lost", "worker died (signal 9)")


class Notes(Observer):
    def __init__(self):
        self.retried_trials = []

    def retried(self, trial, cause):
        self.retried_trials.append((trial.number, trial.attempt, cause))


def test_a_trial_whose_worker_dies_begins_once_more(store):
    notes = Notes()
    new_study(store, lag=4, trials=3)
    ends = {1: [DIED], 2: [DIED, DIED]}
    trials = control(
        store, strategy=Listed(1, 2, 3), dispatcher=faulty(store, ends), observer=notes
    )
    assert [(t.state, t.attempt, t.deaths, t.cause) for t in trials[1:]] == [
        ("complete", 2, 1, ""),
        ("failed", 2, 2, "worker died (signal 9) in stage prune"),
        ("complete", 1, 0, ""),
    ]
    assert sorted(notes.retried_trials) == [
        (1, 2, "worker died (signal 9) in stage prune"),
        (2, 2, "worker died (signal 9) in stage prune"),
    ]


@pytest.mark.parametrize(
    ("kind", "cause", "expected"),
    [
        ("raised", "ValueError: no", "prune: ValueError: no"),
        (
            "expired",
            "no result after 12 s (limits.timeout)",
            "no result after 60 s (limits.timeout) in stage prune",
        ),
    ],
)
def test_what_would_happen_again_is_not_tried_again(store, kind, cause, expected):
    new_study(store, lag=4, trials=2)
    trials = control(
        store, strategy=Listed(1, 2), dispatcher=faulty(store, {1: [(kind, cause)] * 5})
    )
    assert [(t.state, t.attempt, t.cause) for t in trials[1:]] == [
        ("failed", 1, expected),
        ("complete", 1, ""),
    ]


def test_max_attempts_counts_deaths_over_resumes_but_not_the_controllers_own(store):
    new_study(store, lag=1, trials=1)

    class Cut(Notes):
        def retried(self, trial, cause):
            raise KeyboardInterrupt  # the controller is killed right after the death

    with pytest.raises(KeyboardInterrupt):
        control(store, strategy=Listed(1), dispatcher=faulty(store, {1: [DIED]}), observer=Cut())
    for _ in range(2):  # killed with the controller: does not count
        with pytest.raises(KeyboardInterrupt):
            control(store, strategy=Listed(1), observer=Interrupting())
    (_, trial) = store.trials(store.study("s"))
    assert (trial.state, trial.attempt, trial.deaths) == ("queued", 4, 1)
    trials = control(store, strategy=Listed(1), dispatcher=faulty(store, {1: [DIED]}))
    assert (trials[1].state, trials[1].attempt, trials[1].deaths) == ("failed", 5, 2)


class Interrupting(Observer):
    def proposed(self, number, candidate):
        raise KeyboardInterrupt


def test_a_worker_that_cannot_begin_ends_the_study_but_loses_nothing(store):
    new_study(store, lag=4, trials=3)
    ends = {2: [("broken", "TaskChanged: the task changed")]}
    with pytest.raises(NasliteError, match="a worker cannot begin: TaskChanged"):
        control(store, strategy=Listed(1, 2, 3), dispatcher=faulty(store, ends))
    assert store.study("s").state == "failed"
    assert "running" not in {t.state for t in store.trials(store.study("s"))}
    assert [t.state for t in control(store, strategy=Listed(1, 2, 3))] == ["complete"] * 4


def test_a_budget_can_be_extended_while_a_study_runs(store):
    new_study(store, trials=4)
    trials = control(store, observer=Asks(store, 2, "extend", trials=9))
    assert len(trials) == 10
    study = store.study("s")
    assert (study.trials, study.cause) == (9, "all 9 trials are done")
    assert store.requests(study) == []
    (extension,) = store.extensions(study)
    assert (extension.number, extension.trials) == (3, 9)
    assert replay("s", store=store.url).differences == ()


def test_candidates_can_be_enqueued_while_a_study_runs(store):
    new_study(store, trials=12, lag=6, strategy={"name": "tpe"})
    wanted = [{"prune.level": 9, "quantize.scheme": "int8"}, {"prune.level": 7}]
    trials = control(
        store,
        observer=Asks(store, 2, "enqueue", candidates=wanted),
        dispatcher=shuffled(store, FormulaBench()),
    )
    enqueued = [t for t in trials if t.origin == "enqueued"]
    assert [t.candidate for t in enqueued] == [
        wanted[0],
        {"prune.level": 7, "quantize.scheme": "none"},
    ]
    assert {(t.state, t.attempt) for t in enqueued} == {("complete", 1)}
    assert len(trials) == 13
    assert replay("s", store=store.url).differences == ()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [("extend", {"trials": 6}), ("enqueue", {"candidates": [{"prune.level": n} for n in (1, 2)]})],
)
def test_what_is_asked_at_the_last_moment_is_not_left_lying(store, kind, payload):
    new_study(store, trials=4)
    trials = control(store, observer=Asks(store, 4, kind, **payload), poll_s=3600.0)
    assert len(trials) == 7
    study = store.study("s")
    assert (study.state, study.trials, store.requests(study)) == ("finished", 6, [])


def test_a_stop_beside_an_extension_at_the_last_moment_counts(store):
    class AsksBoth(Asks):
        def ended(self, trial):
            super().ended(trial)
            if trial.number == self.number:
                self.store.add_request(self.store.study("s"), "stop", {})

    new_study(store, trials=4)
    observer = AsksBoth(store, 4, "extend", trials=6)
    assert len(control(store, observer=observer, poll_s=3600.0)) == 5
    assert (store.study("s").state, store.study("s").trials) == ("stopped", 6)
    assert len(control(store)) == 7


def test_enqueued_candidates_raise_a_budget_that_cannot_hold_them(store):
    new_study(store, trials=2)
    wanted = [{"prune.level": level} for level in (3, 4, 5)]
    trials = control(store, observer=Asks(store, 1, "enqueue", candidates=wanted))
    assert len(trials) == 5
    assert store.study("s").trials == 4


def test_stop_lets_running_trials_end_and_now_abandons_them(store):
    for name, now, states in (
        ("soon", False, {"complete"}),
        ("now", True, {"complete", "queued"}),
    ):
        study = new_study(store, name, trials=12, lag=6)

        class Stops(Observer):
            def proposed(self, number, candidate, study=study, now=now):
                if number == 5:
                    store.add_request(study, "stop", {"now": now})

        trials = control(store, name, observer=Stops(), dispatcher=shuffled(store, FormulaBench()))
        assert {t.state for t in trials} == states
        assert len(trials) < 10
        assert store.study(name).state == "stopped"
        assert len(control(store, name)) == 13


def test_after_a_grace_time_running_trials_are_abandoned(store):
    new_study(store, trials=12, lag=6)

    class Signals(Observer):
        def proposed(self, number, candidate):
            if number == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        control(
            store,
            observer=Signals(),
            dispatcher=shuffled(store, FormulaBench()),
            grace_s=0.0,
        )
    states = Counter(t.state for t in store.trials(store.study("s")))
    assert set(states) == {"complete", "queued"}
    assert len(control(store)) == 13


def test_files_that_vanish_before_a_trial_is_stored_are_made_again(store):
    """Another process may remove a study that had the only row of the same files."""
    bench = FormulaBench()
    new_study(store, trials=3)
    dispatcher = serial(store, bench)
    lost = []

    class Loses(Observer):
        def ended(self, trial):
            if trial.number == 1:
                (row,) = [t for t in store.trials(store.study("s")) if t.number == 1]
                lost.append(row.artifact.sha256)
                store.artifacts.remove(row.artifact.sha256)

    trials = control(store, strategy=Listed(3, 3, 4), dispatcher=dispatcher, observer=Loses())
    assert [t.state for t in trials] == ["complete"] * 4
    assert trials[2].reused_from is None  # built again, since the files of trial 1 were gone
    assert store.artifacts.get(lost[0]) is not None


def test_what_is_enqueued_early_comes_after_the_baseline_and_the_candidates_of_the_config(store):
    first = [{"prune.level": level, "quantize.scheme": "none"} for level in (1, 2, 3, 4)]
    study = new_study(store, trials=7, enqueue=first)
    store.add_request(study, "enqueue", {"candidates": [{"prune.level": 7}]})
    asks = Asks(store, 1, "enqueue", candidates=[{"prune.level": 9}])
    trials = control(store, observer=asks)
    assert [t.candidate["prune.level"] for t in trials[:7]] == [0, 1, 2, 3, 4, 7, 9]
    assert [t.origin for t in trials] == ["baseline", *["enqueued"] * 6, "strategy"]
    assert replay("s", store=store.url).differences == ()


@pytest.mark.parametrize(
    "payload", [{"candidates": [1, "a", {"prune.level": 99}]}, {"candidates": 3}, {}]
)
def test_a_request_that_makes_no_sense_is_logged_and_left_behind(store, payload, caplog):
    study = new_study(store, trials=3)
    store.add_request(study, "enqueue", payload)
    assert len(control(store)) == 4
    assert store.requests(study) == []
    assert "is left out" in caplog.text


def test_a_stop_ends_a_study_whose_trials_are_all_known_already(store):
    new_study(store, trials=400)
    levels = [1 + n % 3 for n in range(400)]
    trials = control(store, strategy=Listed(*levels), observer=Asks(store, 25, "stop"))
    assert len(trials) < 30
    assert store.study("s").state == "stopped"


def test_an_exhausted_strategy_is_asked_once(store):
    asked = []

    class Ends(Listed):
        def propose(self, view, number, rng):
            asked.append(number)
            return super().propose(view, number, rng)

    new_study(store, lag=8, trials=60)
    control(store, strategy=Ends(1, 2, 3), dispatcher=shuffled(store, FormulaBench(), slots=4))
    assert asked == [1, 2, 3, 4]


def test_the_time_of_an_interrupted_trial_counts(store):
    new_study(store, trials=3)

    def work(candidate):
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        if len(bench.built) == 2:
            raise KeyboardInterrupt

    bench = FormulaBench(work)
    with pytest.raises(KeyboardInterrupt):
        control(store, bench=bench)
    assert store.study("s").seconds > 0.6


def test_a_candidate_that_an_earlier_study_met_twice_is_one_known_fact(store):
    from search.warm_start import known_facts

    old = new_study(store, "old", trials=4)
    control(store, "old", strategy=Listed(3, 3, 5, 3))
    prepared = SimpleNamespace(
        loaded=SimpleNamespace(fingerprint=old.task_fingerprint),
        stored_config={**old.config, "seed": old.seed},
        facts=old.facts,
        space=SPACE,
        goals=Goals.of_config(old.config),
    )
    bench = SimpleNamespace(stage_keys=lambda candidate: ["k"])
    known = known_facts(store, "old", prepared, bench)
    assert [fact.outcome.reused_from for fact in known] == [0, 1, 3]
    owner = new_owner()
    new = NewStudy("new", old.config, old.space, old.task_fingerprint, 0, 4, None, old.facts)
    study = store.create_study(new, owner, known)
    store.release(study, owner, "interrupted")
    trials = control(store, "new", strategy=Listed(5, 3, 4))
    assert [(t.reused_from, t.reused_study) for t in trials] == [
        (0, "old"),
        (3, "old"),
        (1, "old"),
        (None, ""),
    ]
