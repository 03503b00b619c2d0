"""Timing a front again when its search has ended."""

from __future__ import annotations

import logging
import os
import signal
from dataclasses import replace

import pytest
from doubles import CONFIG, FACTS, SPACE, FormulaBench, control, new_study

from search.dispatch import Dispatcher
from search.environment import cpu_facts
from search.executor import Serial
from search.file_timing import timed_alone
from search.jobs import Job, Timing
from search.observer import Observer
from search.results import StudyResults
from search.retiming import is_timed_once, timed_once
from search.study_report import optimism_text, study_report
from search.timing_lock import TimingLock
from storage import NewStudy, Store
from storage.lease import new_owner
from strategies.base import Proposal

FIRST, AGAIN = (0.5, 0.45, 0.55), (0.7, 0.65, 0.75)  # ratio, low, high: in a search, and after it


class MovingBench(FormulaBench):
    """On a machine that has changed when the search is over.

    Args:
        hook: Called with the position of each timing after the search.
        again: Its ratio then.
    """

    def __init__(self, hook=lambda position: None, again=AGAIN):
        super().__init__()
        self.hook = hook
        self.again = again
        self.timed = []
        self.timed_again = []

    def time(self, path, baseline, seed, *, progress):
        if baseline is None:
            return (Timing(1, 1.0, 1.0, 1.0, 1.0, 15), Timing(32, 9.0, 1.0, 1.0, 1.0, 15))
        ratio, low, high = FIRST
        self.timed.append(path.parent)
        if seed != int(path.parent.name[:15], 16):  # not that of a search
            self.timed_again.append(path.parent)
            self.hook(len(self.timed_again))
            ratio, low, high = self.again
        other = ratio / 2, low / 2, high / 2
        return (Timing(1, 1.0, ratio, low, high, 15), Timing(32, 9.0, *other, 15))


class Watching(Observer):
    def __init__(self):
        self.told = []

    def retiming(self, rows):
        self.told.append(rows)


@pytest.fixture
def store():
    return Store("sqlite://")


@pytest.fixture
def study(store):
    return started(store, FACTS)


def started(store, facts):
    owner = new_owner()
    config = {**CONFIG, "runtime": {**CONFIG["runtime"], "batch_sizes": [1, 32]}}
    new = NewStudy("s", config, SPACE.to_json(), "f" * 64, 0, 6, None, facts)
    store.release(store.create_study(new, owner), owner, "interrupted")
    return store.study("s")


def ratios(trial):
    """Value, low, high of the ratios of a trial by name."""
    return {m.metric: (m.value, m.low, m.high) for m in trial.measurements if "ratio" in m.metric}


def timed_again(trials):
    return [t.number for t in trials if "audit_latency_ratio" in t.metrics]


def front_numbers(store):
    return [row.number for row in StudyResults(store, "s").front() if row.number]


def test_the_front_is_timed_once_more_and_its_intervals_cover_both(store, study):
    bench, watching = MovingBench(), Watching()
    trials = control(store, bench=bench, observer=watching)
    front = sorted(front_numbers(store))
    assert timed_again(trials) == front
    assert watching.told == [len(front)]
    assert len(bench.timed_again) == len({trials[n].artifact.sha256 for n in front})
    for trial in trials[1:]:
        found = ratios(trial)
        if trial.number not in front:
            assert found == {"latency_ratio": FIRST, "latency_ratio_batch32": half(FIRST)}
            continue
        assert found["latency_ratio"] == (0.5, 0.45, 0.75)
        assert found["latency_ratio_batch32"] == (0.25, 0.225, 0.375)
        assert found["audit_latency_ratio"] == AGAIN
        assert found["audit_latency_ratio_batch32"] == half(AGAIN)
    assert store.study("s").state == "finished"


def half(values):
    return tuple(value / 2 for value in values)


def test_the_order_of_a_trials_measurements_stays(store, study):
    trials = control(store, bench=MovingBench())
    names = [[m.metric for m in trial.measurements] for trial in trials]
    again = timed_again(trials)
    (others,) = {tuple(own) for n, own in enumerate(names) if n and n not in again}
    for number in again:
        assert tuple(names[number][: len(others)]) == others
        assert names[number][len(others) :] == [
            "audit_latency_ratio",
            "audit_latency_ratio_batch32",
        ]


def test_a_second_session_times_nothing_again(store, study):
    control(store, bench=MovingBench())
    assert not is_timed_once(StudyResults(store, "s"))
    bench = MovingBench()
    control(store, bench=bench)
    assert bench.timed == []


def test_rows_that_come_to_the_front_later_are_timed_again_then(store, study):
    first = timed_again(control(store, bench=MovingBench()))
    store.add_request(study, "extend", {"trials": 14})
    trials = control(store, bench=MovingBench())
    assert set(front_numbers(store)) <= set(timed_again(trials))
    assert set(first) < set(timed_again(trials))


def test_an_interrupted_retiming_is_completed_by_the_next_session(store, study):
    def interrupt(position):
        if position == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        control(store, bench=MovingBench(interrupt))
    before = timed_again(store.trials(study))
    assert before
    assert is_timed_once(StudyResults(store, "s"))
    bench = MovingBench()
    trials = control(store, bench=bench)
    assert bench.built == []
    assert set(before) < set(timed_again(trials)) == set(front_numbers(store))


def test_a_row_that_cannot_be_timed_again_is_a_warning(store, study, caplog):
    def fail(position):
        if position == 1:
            raise ValueError("no luck")

    with caplog.at_level(logging.WARNING, "naslite.search"):
        trials = control(store, bench=MovingBench(fail))
    assert "cannot be timed again: ValueError: no luck" in caplog.text
    assert store.study("s").state == "finished"
    left = timed_once([t for t in trials if t.number in front_numbers(store)], trials[0])
    assert {t.artifact.sha256 for t in left} == {left[0].artifact.sha256}


def test_a_ratio_that_is_not_finite_is_a_warning(store, study, caplog):
    bench = MovingBench(again=(float("nan"), 0.1, 0.2))
    with caplog.at_level(logging.WARNING, "naslite.search"):
        assert timed_again(control(store, bench=bench)) == []
    assert "cannot be timed again: latency_ratio is nan" in caplog.text


def test_a_damaged_file_is_a_warning(store, study, caplog):
    damaged = []

    class Damaging(Observer):
        def retiming(self, rows):
            trial = store.trials(study, numbers=front_numbers(store))[0]
            folder, facts = store.artifacts.verified(trial.artifact.sha256)
            (folder / facts["main"]).write_bytes(b"")
            damaged.append(trial.artifact.sha256)

    with caplog.at_level(logging.WARNING, "naslite.search"):
        trials = control(store, bench=MovingBench(), observer=Damaging())
    assert "cannot be timed again" in caplog.text
    left = timed_once([t for t in trials if t.number in front_numbers(store)], trials[0])
    assert {t.artifact.sha256 for t in left} == set(damaged)


def test_what_another_machine_timed_is_not_timed_again_here(store, caplog):
    study = started(store, {**FACTS, **cpu_facts(), "cpu": "another"})
    bench = MovingBench()
    with caplog.at_level(logging.WARNING, "naslite.search"):
        assert timed_again(control(store, bench=bench)) == []
    assert "the front is not timed again: cpu another, this is " in caplog.text
    assert bench.timed_again == []
    assert not is_timed_once(StudyResults(store, study.name))


class Same:
    """Proposes one candidate for ever."""

    def __init__(self, level):
        self.candidate = {"prune.level": level, "quantize.scheme": "none"}

    def propose(self, view, number, rng):
        return Proposal(self.candidate, {"n": number})


@pytest.mark.parametrize("new_session", [False, True])
def test_a_trial_that_takes_over_has_both_timings(store, new_session):
    """Whether the controller goes on that has timed again, or another one."""
    study = new_study(store, trials=1)

    def extend(position=1):
        store.add_request(study, "extend", {"trials": 2})

    bench = MovingBench(lambda position: None if new_session else extend())
    trials = control(store, bench=bench, strategy=Same(5))
    if new_session:
        extend()
        trials = control(store, bench=bench, strategy=Same(5))
    assert [t.reused_from for t in trials] == [None, None, 1]
    assert ratios(trials[2]) == ratios(trials[1])
    assert ratios(trials[2])["audit_latency_ratio"] == AGAIN
    assert len(bench.timed_again) == 1


def test_a_row_with_the_baselines_own_file_keeps_its_ratio_of_1(store):
    new_study(store, trials=2)
    trials = control(store, bench=MovingBench(), strategy=Same(0))
    assert len({t.artifact.sha256 for t in trials}) == 1
    assert timed_again(trials) == []
    assert not is_timed_once(StudyResults(store, "s"))


@pytest.mark.parametrize("asked", ["extend", "stop"])
def test_what_is_asked_for_meanwhile_comes_first(store, study, asked):
    payload = {"extend": {"trials": 9}, "stop": {"now": True}}[asked]

    def ask(position):
        if position == 1:
            store.add_request(study, asked, payload)

    trials = control(store, bench=MovingBench(ask))
    if asked == "extend":
        assert len(trials) == 10
        assert set(timed_again(trials)) >= set(front_numbers(store))
    else:
        assert len(timed_again(trials)) < len(front_numbers(store))
        assert is_timed_once(StudyResults(store, "s"))


def test_a_timing_is_ended_before_its_lock_is_given_back(tmp_path):
    path, seen = tmp_path / "lock", []

    class Busy(Serial):
        def wait(self, timeout_s):
            return []

        def cancel(self, id):
            other = TimingLock(path)
            seen.append((id, other.acquire()))
            other.release()

    def lose():
        raise RuntimeError("another controller took the study over")

    with pytest.raises(RuntimeError, match="took the study over"):
        timed_alone(Busy(None), TimingLock(path), Job(5, "time"), lose)
    assert seen == [(5, False)]
    assert TimingLock(path).acquire()


def test_the_machines_lock_is_held_meanwhile(store, study, tmp_path):
    path, seen = tmp_path / "lock", []

    def try_it(position):
        other = TimingLock(path)
        seen.append(other.acquire())
        other.release()  # its turn, which it waits for

    bench = MovingBench(try_it)
    bench.artifacts = store.artifacts
    dispatcher = Dispatcher(
        Serial(bench),
        Serial(bench),
        store.artifacts,
        score_name="accuracy",
        higher_is_better=True,
        lock=TimingLock(path),
    )
    trials = control(store, dispatcher=dispatcher)
    assert timed_again(trials)
    assert set(seen) == {False}
    assert TimingLock(path).acquire()


def test_the_strategy_sees_neither_the_new_ratio_nor_another_value(store):
    plain, moved = Store("sqlite://"), store
    for each, bench in ((plain, FormulaBench()), (moved, MovingBench())):
        new_study(each, trials=5, strategy={"name": "genetic"})
        control(each, bench=bench)
        each.add_request(each.study("s"), "extend", {"trials": 12})
        control(each, bench=bench)
    one, other = ([dict(t.candidate) for t in s.trials(s.study("s"))] for s in (plain, moved))
    assert one == other


@pytest.mark.parametrize("calm", [False, True])
def test_a_ratio_stays_noisy_whatever_the_second_timing_was(store, study, calm):
    class Noisy(MovingBench):
        def time(self, path, baseline, seed, *, progress):
            found = super().time(path, baseline, seed, progress=progress)
            is_calm = calm and path.parent in self.timed_again
            return tuple(replace(t, noisy=not is_calm) for t in found)

    trials = control(store, bench=Noisy())
    for number in timed_again(trials):
        noisy = {m.metric: m.noisy for m in trials[number].measurements if "ratio" in m.metric}
        assert noisy["latency_ratio"], "its value is still that of the noisy timing"
        assert noisy["audit_latency_ratio"] is not calm


def test_a_noisy_second_timing_stretches_no_interval(store, study):
    class Noisy(MovingBench):
        def time(self, path, baseline, seed, *, progress):
            found = super().time(path, baseline, seed, progress=progress)
            return tuple(replace(t, noisy=path.parent in self.timed_again) for t in found)

    trials = control(store, bench=Noisy())
    assert timed_again(trials)
    for number in timed_again(trials):
        measured = {m.metric: m for m in trials[number].measurements}
        ratio, again = measured["latency_ratio"], measured["audit_latency_ratio"]
        assert again.noisy
        assert not ratio.noisy
        assert ratio.low > again.value or ratio.high < again.value


def test_a_report_says_what_the_new_ratio_is(store, study):
    control(store, bench=MovingBench())
    report = study_report(StudyResults(store, "s"))
    assert "audit_latency_ratio" in report.columns
    assert "audit_latency_ratio is of a timing after the search" in optimism_text(report)
    assert "samples that the search never saw" not in optimism_text(report)
