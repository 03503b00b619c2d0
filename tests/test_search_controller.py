from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from doubles import SPACE, FormulaBench, control, new_study, table

from search.environment import cpu_facts
from search.errors import BaselineFailed, NasliteError
from search.hypervolume import searched_seconds
from search.jobs import Control
from search.observer import Observer
from storage import Store, StoreError, StudyBusy
from storage.lease import new_owner
from strategies.base import Proposal


@pytest.fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path / 'a.db'}")


class Same:
    """Proposes one candidate for ever."""

    def propose(self, view, number, rng):
        return Proposal({"prune.level": 3, "quantize.scheme": "none"})


class Remembers:
    """Writes both memos and checks that they come back."""

    def propose(self, view, number, rng):
        assert view.memo == ({"last": number - 1} if number > 1 else {})
        assert [trial.memo for trial in view.done[1:]] == [{"n": n} for n in range(1, number)]
        return Proposal(view.space.at(number), {"n": number}, {"last": number})


def test_trial_zero_is_the_baseline_and_the_budget_is_without_it(store):
    new_study(store, trials=5)
    trials = control(store)
    assert [trial.number for trial in trials] == list(range(6))
    assert trials[0].candidate == {"prune.level": 0, "quantize.scheme": "none"}
    assert all(trial.state == "complete" for trial in trials)
    study = store.study("s")
    assert (study.state, study.cause, study.owner) == ("finished", "all 5 trials are done", "")
    assert study.seconds > sum(trial.seconds for trial in trials)  # by the clock on the wall


def test_a_used_up_space_ends_the_study(store):
    new_study(store, trials=100)
    trials = control(store)
    assert len(trials) == SPACE.size
    assert store.study("s").cause == "all 20 candidates of the space were tried"


def test_the_same_seed_gives_the_same_study(store):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        new_study(store, name, seed=seed)
    a, b, c = (table(control(store, name)) for name in "abc")
    assert a == b != c


def test_what_an_observer_is_told(store):
    told = []

    class Notes(Observer):
        def started(self, study, trials):
            told.append(("started", study.name, len(trials)))

        def proposed(self, number, candidate):
            told.append(("proposed", number))

        def ended(self, trial):
            told.append(("ended", trial.number, trial.state))

        def stopped(self, state, cause):
            told.append(("stopped", state))

    new_study(store, trials=1)
    control(store, observer=Notes())
    assert told == [
        ("started", "s", 0),
        ("proposed", 0),
        ("ended", 0, "complete"),
        ("proposed", 1),
        ("ended", 1, "complete"),
        ("stopped", "finished"),
    ]


def test_a_failed_trial_is_recorded_and_the_search_goes_on(store):
    def fail(candidate):
        if candidate["prune.level"] > 4:
            raise ValueError("nothing left")

    new_study(store, trials=19)
    trials = control(store, bench=FormulaBench(fail))
    failed = [trial for trial in trials if trial.state == "failed"]
    assert len(failed) == 10
    assert {trial.cause for trial in failed} == {"prune: nothing left"}
    assert all(trial.stages and not trial.measurements for trial in failed)
    assert store.study("s").state == "finished"


def test_a_repeated_candidate_is_answered_from_the_store(store):
    bench = FormulaBench()
    new_study(store, trials=3)
    trials = control(store, bench=bench, strategy=Same())
    assert len(bench.built) == 2  # the baseline and the candidate
    assert [trial.reused_from for trial in trials] == [None, None, 1, 1]
    assert trials[2].measurements == trials[1].measurements
    assert all(stage.cached for stage in trials[2].stages)


def test_identical_bytes_are_measured_once(store):
    bench = FormulaBench()
    new_study(store, trials=19)
    trials = control(store, bench=bench)
    assert len(bench.measured) == len(set(bench.measured)) == 18  # levels 8 and 9 coincide
    assert sum(trial.reused_from is not None for trial in trials) == 2


def test_memos_come_back(store):
    new_study(store, trials=4)
    control(store, strategy=Remembers())
    assert store.study("s").memo == {"last": 4}


def test_a_proposal_outside_the_space_stops_the_study_with_a_clear_cause(store):
    class Wrong:
        def propose(self, view, number, rng):
            return Proposal({"prune.level": 99, "quantize.scheme": "none"})

    new_study(store)
    with pytest.raises(
        NasliteError, match=r"strategy 'random' left the space at trial 1: .* lie in"
    ):
        control(store, strategy=Wrong())
    study = store.study("s")
    assert study.state == "failed"
    assert "prune.level" in study.cause
    assert len(store.trials(study)) == 1


def test_what_is_no_proposal_is_an_error_of_the_strategy(store):
    class Bare:
        def propose(self, view, number, rng):
            return view.space.at(number)

    new_study(store)
    with pytest.raises(
        NasliteError, match=r"must return a Proposal or None, got \{'prune.level': 0"
    ):
        control(store, strategy=Bare())


def test_a_strategy_that_fails_is_named_with_its_error(store):
    class Fails:
        def propose(self, view, number, rng):
            return 1 // (number - 2)

    new_study(store)
    with pytest.raises(NasliteError, match="'random' must return") as caught:
        control(store, strategy=Fails())
    assert "got -1 at trial 1" in str(caught.value)

    class FailsLater(Fails):
        def propose(self, view, number, rng):
            super().propose(view, number, rng)
            return Proposal(view.space.at(number))

    with pytest.raises(NasliteError, match="failed at trial 2: ZeroDivisionError: ") as caught:
        control(store, strategy=FailsLater())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert len(store.trials(store.study("s"))) == 2


def test_waiting_with_nothing_to_wait_for_is_an_error_of_the_strategy(store):
    class Waits:
        def propose(self, view, number, rng):
            return None

    new_study(store)
    with pytest.raises(NasliteError, match="asked to wait at trial 1"):
        control(store, strategy=Waits())


def test_a_broken_baseline_stops_the_study(store):
    def fail(candidate):
        raise ValueError("no such layer")

    new_study(store)
    with pytest.raises(BaselineFailed, match="no such layer"):
        control(store, bench=FormulaBench(fail))
    assert store.study("s").state == "failed"


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("twice", [False, True])
def test_an_interrupted_study_resumes_to_the_same_table(store, signal_number, twice):
    """One signal lets the running trial end, a second one abandons it."""
    new_study(store, "whole", trials=12)
    expected = table(control(store, "whole"))
    new_study(store, "cut", trials=12)

    def interrupt_at_5(candidate):
        if len(bench.built) == 5:
            os.kill(os.getpid(), signal_number)
            if twice:
                os.kill(os.getpid(), signal_number)

    bench = FormulaBench(interrupt_at_5)
    with pytest.raises(KeyboardInterrupt):
        control(store, "cut", bench=bench)
    study = store.study("cut")
    assert study.state == "interrupted"
    assert not store.is_live(study)
    done = 4 if twice else 5
    states = ["complete"] * done + ["queued"] * twice
    assert [trial.state for trial in store.trials(study)] == states
    again = FormulaBench()
    trials = control(store, "cut", bench=again)
    assert table(trials) == expected
    assert trials[4].attempt == 1 + twice
    assert again.built == [trial.candidate for trial in trials[done:]]  # nothing done is redone


def test_a_signal_ends_a_study_whose_trials_are_all_known_already(store):
    class Signals(Observer):
        def ended(self, trial):
            if trial.number == 5:
                os.kill(os.getpid(), signal.SIGTERM)

    new_study(store, trials=500)
    with pytest.raises(KeyboardInterrupt):
        control(store, strategy=Same(), observer=Signals())
    assert len(store.trials(store.study("s"))) == 6


def test_a_stop_request_ends_the_study_after_its_trial(store):
    def ask(candidate):
        if len(bench.built) == 3:
            store.add_request(store.study("s"), "stop")

    bench = FormulaBench(ask)
    new_study(store, trials=12)
    trials = control(store, bench=bench)
    assert len(trials) == 3
    assert store.study("s").state == "stopped"
    assert store.requests(store.study("s")) == []
    assert len(control(store)) == 13


def test_minutes_are_spent_over_all_sessions(store):
    study = new_study(store, trials=100)
    owner = new_owner()
    store.claim(study, owner)
    store.set_budget(study, owner, 100, 1e-9)
    store.release(study, owner, "interrupted")
    assert len(control(store)) == 1
    assert "minutes are used up" in store.study("s").cause


class Controlled(FormulaBench):
    """Its second timing comes from a new process, with a control of its own."""

    def time(self, path, baseline, seed, *, progress):
        (timing,) = super().time(path, baseline, seed, progress=progress)
        known = {1: Control(1.01, 0.99, 1.02, 20, 0.01, 0.5), 2: Control(1, 0.9, 1.1, 20, 0.1, 2)}
        return (replace(timing, control=known.get(len(self.measured))),)


def test_a_session_is_stored_when_it_begins_and_its_controls_as_they_come(store):
    study = new_study(store, trials=3)
    control(store, bench=Controlled())
    (session,) = store.sessions(study)
    assert session.number == 0
    assert session.facts["cpu"] == cpu_facts()["cpu"]
    assert [c["noise_floor"] for c in session.facts["controls"]] == [0.01, 0.1]
    trials = store.trials(study)
    assert session.began_at <= min(trial.created_at for trial in trials)

    owner = new_owner()
    store.claim(study, owner)
    store.set_budget(study, owner, 5, None, 4)
    store.release(study, owner, "interrupted")
    control(store)
    first, second = store.sessions(study)
    assert first == session
    assert (second.number, "controls" in second.facts) == (4, False)
    spent = searched_seconds(store.trials(study), [first, second])
    pause = second.began_at - trials[-1].finished_at
    assert spent[-1] == pytest.approx(
        store.trials(study)[-1].finished_at - first.began_at - pause, abs=1e-3
    )


def test_a_controller_that_lost_its_study_stops_and_writes_nothing(store):
    taken = new_owner()

    def lose(candidate):
        if len(bench.built) == 3:
            study = store.study("s")
            store.release(study, study.owner, "interrupted")
            store.claim(study, taken)

    bench = FormulaBench(lose)
    new_study(store)
    with pytest.raises(StudyBusy):
        control(store, bench=bench)
    study = store.study("s")
    assert study.owner == taken
    assert [trial.state for trial in store.trials(study)] == ["complete"] * 2 + ["queued"]


def test_a_memo_is_seen_as_it_will_be_after_a_resume(store):
    class Tuples:
        def propose(self, view, number, rng):
            seen.append([dict(trial.memo) for trial in view.done[1:]])
            return Proposal(view.space.at(number), {"pair": (1, 2)})

    seen = []
    new_study(store, trials=2)
    control(store, strategy=Tuples())
    assert seen[-1] == [{"pair": [1, 2]}]


def test_a_memo_that_is_not_json_is_an_error_of_the_strategy(store):
    class Bad:
        def propose(self, view, number, rng):
            return Proposal(view.space.at(number), {"x": float("nan")})

    new_study(store)
    with pytest.raises(NasliteError, match="memo must be JSON"):
        control(store, strategy=Bad())


def test_a_study_whose_controller_died_is_seen_as_interrupted(store):
    new_study(store)
    gone = subprocess.run(
        [sys.executable, "-c", "from storage.lease import new_owner; print(new_owner())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    store.claim(store.study("s"), gone)
    assert (store.study("s").state, store.studies()[0].study.state) == ("interrupted",) * 2
    assert len(control(store)) == 7


def test_a_closed_output_leaves_the_study_to_be_resumed(store):
    class Closed(Observer):
        def ended(self, trial):
            raise BrokenPipeError

    new_study(store)
    with pytest.raises(BrokenPipeError):
        control(store, observer=Closed())
    assert store.study("s").state == "interrupted"
    assert len(control(store)) == 7


def test_reading_beside_a_running_study_never_tears_a_trial(store):
    """A trial that ends between two queries of a reader is seen before or after, not halfway."""
    new_study(store, trials=19)
    torn = []
    stop = threading.Event()

    def read():
        while not stop.is_set():
            for trial in store.trials(store.study("s")):
                if trial.state == "complete" and not trial.measurements:
                    torn.append(trial.number)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        control(store)
    finally:
        stop.set()
        reader.join()
    assert torn == []


def test_errors_of_the_database_are_one_line(tmp_path):
    path = tmp_path / "a.db"
    store = Store(f"sqlite:///{path}")
    new_study(store)
    store.close()
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"a\.db failed: file is not a database"):
        store.study("s")


def test_a_signal_ends_the_wait_for_a_locked_database(tmp_path, caplog):
    """A user who presses Ctrl-C does not wait for a minute until a lock may go."""
    url = f"sqlite:///{tmp_path / 'locked.db'}"
    store, other = Store(url), sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    new_study(store, trials=12)

    def lock(candidate):
        if len(bench.built) == 3:
            other.execute("BEGIN IMMEDIATE")
            os.kill(os.getpid(), signal.SIGINT)

    bench = FormulaBench(lock)
    began = time.monotonic()
    with pytest.raises((KeyboardInterrupt, StoreError)):
        control(store, bench=bench)
    assert time.monotonic() - began < 40  # 60 s for each of finish and release without it
    other.execute("ROLLBACK")
    other.close()
    again = Store(url)
    study = again.study("s")
    again.release(study, study.owner, "interrupted")  # as if this process had ended
    assert len(control(again)) == 13
