"""The audit of a front, and the optimism of picking from many."""

from __future__ import annotations

import logging
import os
import signal

import numpy as np
import pytest
from doubles import CONFIG, FACTS, SPACE, FormulaBench, control, new_study

from search.audit import is_unaudited, unaudited
from search.goals import Goals
from search.jobs import Scored
from search.observer import Observer
from search.optimism import optimism, picking_optimism
from search.results import StudyResults
from search.sample_records import packed, unpacked
from storage import NewStudy, Store
from storage.lease import new_owner

GOALS = Goals.of_config(CONFIG)


class AuditBench(FormulaBench):
    """With an audit split of 50 samples, on which each score is 0.1 lower.

    Args:
        hook: Called with the position of each audit.
    """

    def __init__(self, hook=lambda position: None, **options):
        super().__init__(**options)
        self.audited = []
        self.references = []
        self.hook = hook

    def audit(self, artifact, reference, *, progress):
        self.audited.append(artifact.sha256)
        self.references.append(reference)
        self.hook(len(self.audited))
        score = self.score(artifact, progress=progress).score - 0.1
        drop = None if reference is None else (score - 0.2, score + 0.2)
        records = packed(np.full(50, score))
        return Scored(score, 50, 0.0, 0.0, records, (score - 0.05, score + 0.05), drop)


class Watching(Observer):
    def __init__(self):
        self.told = []

    def auditing(self, rows):
        self.told.append(rows)


@pytest.fixture
def store():
    return Store("sqlite://")


@pytest.fixture
def study(store):
    owner = new_owner()
    facts = {**FACTS, "has_audit": True}
    new = NewStudy("s", CONFIG, SPACE.to_json(), "f" * 64, 0, 6, None, facts)
    store.release(store.create_study(new, owner), owner, "interrupted")
    return store.study("s")


def audited(trials):
    return [t.number for t in trials if "audit_accuracy" in t.metrics]


def measured(trial):
    return {m.metric: m for m in trial.measurements}


def test_the_front_and_the_baseline_are_audited_once(store, study):
    bench, watching = AuditBench(), Watching()
    trials = control(store, bench=bench, observer=watching)
    results = StudyResults(store, "s")
    front = {row.number for row in results.front()}
    assert audited(trials) == sorted({0, *front})
    assert watching.told == [len(audited(trials))]
    assert len(bench.audited) == len(set(bench.audited))  # a file is scored once
    assert bench.references[0] is None
    assert all(unpacked(r)[0] == pytest.approx(0.9) for r in bench.references[1:])
    assert store.study("s").state == "finished"
    assert not is_unaudited(results)
    again = AuditBench()
    control(store, bench=again)
    assert again.audited == []


def test_what_an_audit_measures(store, study):
    trials = control(store, bench=AuditBench())
    for number in audited(trials):
        found = measured(trials[number])
        score, drop = found["audit_accuracy"], found["audit_accuracy_drop"]
        own = found["accuracy"].value
        assert score.value == pytest.approx(own - 0.1)
        assert (score.n, score.level) == (50, 0.95)
        assert score.low < score.value < score.high
        assert drop.value == pytest.approx(1 - own)
        assert (drop.n, drop.level) == (50, 0.90)
        assert drop.low < drop.high or number == 0
        assert store.records(study, number, "audit") is not None
    zero = measured(trials[0])["audit_accuracy_drop"]
    assert (zero.value, zero.low, zero.high) == (0.0, 0.0, 0.0)


def test_a_study_without_an_audit_split_has_no_audit(store):
    new_study(store)
    bench = AuditBench()
    assert audited(control(store, bench=bench)) == []
    assert bench.audited == []
    assert not is_unaudited(StudyResults(store, "s"))


def test_an_audit_that_fails_is_a_warning(store, study, caplog):
    def fail(position):
        if position == 2:
            raise ValueError("no luck")

    with caplog.at_level(logging.WARNING, "naslite.search"):
        trials = control(store, bench=AuditBench(fail))
    assert "cannot be audited: ValueError: no luck" in caplog.text
    assert store.study("s").state == "finished"
    missing = [t.number for t in unaudited(study, GOALS, trials)]
    assert missing
    assert is_unaudited(StudyResults(store, "s"))
    control(store, bench=AuditBench())
    assert not is_unaudited(StudyResults(store, "s"))


def test_without_the_baseline_nothing_is_audited(store, study, caplog):
    def fail(position):
        raise ValueError("no luck")

    bench = AuditBench(fail)
    assert audited(control(store, bench=bench)) == []
    assert len(bench.audited) == 1


def test_an_interrupted_audit_is_completed_by_the_next_session(store, study):
    def interrupt(position):
        if position == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        control(store, bench=AuditBench(interrupt))
    assert store.study("s").state == "interrupted"
    before = audited(store.trials(study))
    assert 0 in before
    bench = AuditBench()
    trials = control(store, bench=bench)
    assert store.study("s").state == "finished"
    assert set(before) < set(audited(trials))
    assert bench.built == []
    assert unaudited(study, GOALS, trials) == []


def test_nothing_is_timed_again_after_an_interrupted_audit(store, study):
    class Listening(Observer):
        def retiming(self, rows):
            told.append(rows)

    def interrupt(position):
        os.kill(os.getpid(), signal.SIGINT)

    told = []
    with pytest.raises(KeyboardInterrupt):
        control(store, bench=AuditBench(interrupt), observer=Listening())
    assert told == []
    control(store, bench=AuditBench(), observer=Listening())
    assert len(told) == 1


def test_more_trials_asked_for_during_an_audit_are_searched_first(store, study):
    def extend(position):
        if position == 1:
            store.add_request(study, "extend", {"trials": 9})

    trials = control(store, bench=AuditBench(extend))
    assert len(trials) == 10
    assert unaudited(study, GOALS, trials) == []


def test_a_study_that_was_stopped_is_audited_unless_at_once(store, study):
    def asks(now):
        def ask(candidate):
            if candidate["prune.level"]:
                store.add_request(study, "stop", {"now": now})

        return ask

    bench = AuditBench()
    bench.hooks = (asks(True),)
    assert audited(control(store, bench=bench)) == []
    assert store.study("s").state == "stopped"
    bench.hooks = (asks(False),)
    trials = control(store, bench=bench)
    assert store.study("s").state == "stopped"
    assert len(trials) < 7
    assert unaudited(study, GOALS, trials) == []


def test_a_strategy_never_sees_an_audit(store, study):
    seen = []

    class Looking:
        def propose(self, view, number, rng):
            from strategies.base import Proposal

            seen.extend(name for o in view.done for name in o.metrics)
            return Proposal(view.space.sample(rng))

    control(store, bench=AuditBench(), strategy=Looking())
    owner = new_owner()
    store.claim(study, owner)
    store.set_budget(study, owner, 8, None)
    store.release(study, owner, "interrupted")
    trials = control(store, bench=AuditBench(), strategy=Looking())
    assert len(trials) == 9
    assert audited(trials)
    assert "accuracy" in seen
    assert not [name for name in seen if name.startswith("audit_")]


def test_nothing_is_picked_optimistically_where_one_is_far_ahead():
    rng = np.random.default_rng(0)
    rows = np.array([rng.random(500) < p for p in (0.9, 0.3, 0.2)], dtype=float)
    assert abs(picking_optimism(rows)) < 0.002


def test_the_optimism_of_equals_is_the_expected_maximum():
    """Of N normal errors: 1.54 standard errors for 10 (Harter 1961, Biometrika 48:151-165)."""
    rng, found, true = np.random.default_rng(0), [], []
    for seed in range(40):
        rows = (rng.random((10, 400)) < 0.8).astype(float)
        found.append(picking_optimism(rows, resamples=100, seed=seed))
        true.append(rows.mean(1).max() - 0.8)
    error = np.sqrt(0.16 / 400)
    assert np.mean(true) == pytest.approx(1.54 * error, rel=0.15)
    # The bootstrap starts from scores that have drifted apart already, so it tells of a part.
    assert 0.5 * np.mean(true) < np.mean(found) < 1.1 * np.mean(true)


def test_candidates_that_err_on_the_same_samples_count_as_one():
    row = (np.random.default_rng(0).random(400) < 0.8).astype(float)
    assert abs(picking_optimism(np.array([row] * 10))) < 0.003


class RecordingBench(FormulaBench):
    """Keeps records of 400 samples, whose mean is the score."""

    def score(self, artifact, reference=None, *, progress):
        rng = np.random.default_rng(int(artifact.sha256[:8], 16))
        records = (rng.random(400) < 0.8).astype(float)
        return Scored(records.mean(), 400, 10.0, 20.0, packed(records))


def test_the_optimism_of_a_study_is_of_its_stored_records(store):
    new_study(store, trials=8)
    trials = control(store, bench=RecordingBench())
    found = optimism(StudyResults(store, "s"))
    files = {t.artifact.sha256: t for t in trials[1:]}
    assert len(files) > 3
    assert 0.2 * 0.02 < found < 2 * 0.02


def test_without_records_the_optimism_is_not_known(store):
    new_study(store)
    control(store)
    assert optimism(StudyResults(store, "s")) is None
