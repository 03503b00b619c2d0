from __future__ import annotations

from search.results import Row
from search.study_costs import CAUSES, failures, session_lines, stage_costs
from storage import StageRun, Trial
from storage.records import Session


def row(number, state="complete", cause="", stages=(), seconds=0.0):
    trial = Trial(number, state, {}, cause=cause, stages=tuple(stages), seconds=seconds)
    return Row(trial, {}, {}, on_front=False)


def stage(name, seconds, cached=False):
    return StageRun(name, "k", {}, seconds, cached)


def test_causes_that_differ_in_numbers_are_one():
    rows = [
        row(0),
        row(1, "failed", "loss is nan at step 17"),
        row(2, "refused", "nothing to prune"),
        row(3, "failed", "loss is nan at step 2.5e+3"),
        row(4, "stopped", "loss is nan at step 17"),
        row(5, "running"),
    ]
    found = failures(rows)
    assert [(f.state, f.cause, f.numbers) for f in found] == [
        ("failed", "loss is nan at step 17", (1, 3)),
        ("refused", "nothing to prune", (2,)),
        ("stopped", "loss is nan at step 17", (4,)),
    ]


def test_the_most_frequent_causes_are_listed():
    rows = [row(i, "failed", "x" * (1 + i % (CAUSES + 5))) for i in range(100)]
    found = failures(rows)
    assert len(found) == CAUSES
    assert [len(f.numbers) for f in found] == sorted((len(f.numbers) for f in found), reverse=True)


def test_the_cache_saved_the_mean_of_what_was_computed():
    rows = [
        row(0, stages=[stage("export", 2)], seconds=3),
        row(1, stages=[stage("prune", 10), stage("train", 30), stage("export", 4)], seconds=50),
        row(2, stages=[stage("prune", 20), stage("train", 1, cached=True)], seconds=21),
        row(3, "failed", "no", stages=[stage("prune", 1, cached=True)], seconds=1),
    ]
    prune, train, export, rest = stage_costs(rows)
    assert [c.name for c in (prune, train, export)] == ["prune", "train", "export"]
    assert (prune.computed, prune.cached, prune.seconds, prune.saved) == (2, 1, 31.0, 15.0)
    assert (train.computed, train.cached, train.seconds, train.saved) == (1, 1, 31.0, 30.0)
    assert (export.computed, export.cached, export.saved) == (2, 0, 0.0)
    assert (rest.computed, rest.seconds) == (3, 1 + 6 + 0)


def test_a_stage_that_was_never_computed_has_no_estimate():
    (found,) = stage_costs([row(1, "failed", "no", [stage("prune", 0.1, cached=True)])])
    assert found.saved is None


def test_a_session_shows_its_control_and_its_noise_floor():
    control = {"batch_size": 32, "ratio": 1.001, "low": 0.98, "high": 1.015}
    facts = {"cpu": "fast", "load": [0.5, 1.25], "controls": [control]}
    assert session_lines([Session(0.0, 7, facts)]) == [
        ("7", "fast", "0.50, 1.25", "batch 32: 1.001 [0.980, 1.015]", "batch 32: 2 %")
    ]
    facts["noise_floor"] = {"32": 0.031}
    assert session_lines([Session(0.0, 7, facts)])[0][-1] == "batch 32: 3.1 %"
    assert session_lines([Session(0.0, 7, {})]) == [("7", "", "", "", "")]
