"""Databases that earlier versions wrote: they are upgraded, read, replayed and continued."""

from __future__ import annotations

from dataclasses import replace

import pytest
from databases import OLD, copy_old
from doubles import as_searched, control

from search import open_study
from search.replay import replay
from search.sample_records import unpacked
from storage import Store
from storage.lease import new_owner
from storage.upgrading import upgrade


@pytest.fixture(params=OLD, ids=lambda path: path.stem)
def url(request, tmp_path) -> str:
    url = copy_old(request.param, tmp_path)
    upgrade(url)
    return url


def test_an_older_study_is_read(url):
    results = open_study("s", store=url)
    trials = [row.trial for row in results.rows()]

    assert (results.state, len(trials)) == ("finished", 7)
    assert [t.origin for t in trials] == ["baseline", *6 * ["strategy"]]
    assert [t.candidate for t in trials[:3]] == [
        {"prune.level": 0, "quantize.scheme": "none"},
        {"prune.level": 9, "quantize.scheme": "int8"},
        {"prune.level": 2, "quantize.scheme": "none"},
    ]
    for trial in trials:
        assert (trial.state, trial.attempt, trial.deaths) == ("complete", 1, 0)
        assert [stage.name for stage in trial.stages] == ["prune"]
        assert trial.artifact is not None
        assert trial.artifact.size_bytes == trial.metrics["size_bytes"]
        assert len(trial.measurements) == 7
        assert not any(m.noisy for m in trial.measurements)
        assert trial.metrics["accuracy_drop"] == pytest.approx(1 - trial.metrics["accuracy"])
    assert {row.number for row in results.front()} > {0}


def test_an_older_study_replays(url):
    replayed = replay("s", store=url)
    assert (replayed.proposals, replayed.differences) == (6, ())


def test_an_older_study_goes_on_as_it_would_have(url):
    store, owner = Store(url), new_owner()
    before = store.trials(store.study("s"))
    store.claim(store.study("s"), owner)
    store.set_budget(store.study("s"), owner, 9, None, len(before))
    store.release(store.study("s"), owner, "interrupted")
    after = control(store)
    assert list(map(as_searched, after[:7])) == list(map(as_searched, before))
    assert len(after) == 10
    assert len(replay("s", store=url).differences) == 0
    store.close()


def test_all_that_the_latest_schema_can_hold_is_read(tmp_path):
    """The second study of the latest database has a row of every kind."""
    store = Store(copy_old(OLD[-1], tmp_path), create=False)
    study = store.study("t")
    baseline, *trials = store.trials(study)

    assert [t.origin for t in trials] == ["enqueued", "enqueued", *3 * ["strategy"]]
    assert [t.state for t in trials] == ["complete", "queued", "failed", "refused", "stopped"]
    assert [(t.attempt, t.deaths) for t in trials] == [(1, 0), (0, 0), (2, 2), (1, 0), (1, 0)]
    assert [stage.epochs for stage in trials[-1].stages] == [0, 4]
    assert trials[-1].stages[-1].scores == (0.25, None, 0.5)
    assert baseline.stages[0].scores == ()
    assert (trials[0].reused_from, trials[0].reused_study) == (1, "s")
    assert any(m.noisy for m in baseline.measurements)
    (fact,) = store.known(study).values()
    assert fact == replace(fact, artifact=trials[0].artifact, measurements=trials[0].measurements)
    assert [(e.number, e.trials, e.minutes) for e in store.extensions(study)] == [(3, 12, 2.5)]
    assert [r.kind for r in store.requests(study)] == ["stop"]
    assert study.claimed_at > 0
    assert baseline.measurements[-1].metric == "audit_accuracy_drop"
    assert baseline.measurements[-1].level == 0.9
    for split in ("search", "audit"):
        content = store.records(study, 0, split)
        assert content is not None
        assert unpacked(content).tolist() == [1.0, 0.0, 1.0, 1.0]
    assert fact.records == content
    (session,) = store.sessions(study)
    assert (session.number, session.facts["controls"][0]["noise_floor"]) == (1, 0.01)
    store.close()
