from __future__ import annotations

from dataclasses import asdict

from search.jobs import Control
from search.results import Row
from search.study_costs import failures, session_lines, stage_costs
from storage import StageRun, Trial
from storage.records import Session


def row(number, state="complete", cause="", stages=(), seconds=0.0, **other):
    trial = Trial(number, state, {}, cause=cause, stages=tuple(stages), seconds=seconds, **other)
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
    assert [(f.state, f.text, f.numbers) for f in found] == [
        ("failed", "loss is nan at step 17", (1, 3)),
        ("refused", "nothing to prune", (2,)),
        ("stopped", "loss is nan at step 17", (4,)),
    ]


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


def test_trials_that_took_all_over_cost_nothing_and_saved_nothing():
    rows = [
        row(1, stages=[stage("prune", 10)], seconds=12),
        row(2, stages=[stage("prune", 0, cached=True)], seconds=0, reused_from=1),
        row(3, stages=[stage("prune", 4)], seconds=5, reused_from=1),  # the same bytes
    ]
    prune, rest = stage_costs(rows)
    assert (prune.computed, prune.cached, prune.seconds, prune.saved) == (2, 0, 14.0, 0.0)
    assert (rest.computed, rest.seconds) == (1, 2.0)


def control(ratio, floor, load):
    return asdict(Control(ratio, ratio - 0.02, ratio + 0.02, 30, floor, load))


def test_a_session_shows_its_controls_and_its_noise_floor():
    facts = {"cpu": "fast", "controls": [control(1.001, 0.021, 0.5)]}
    assert session_lines([Session(0.0, 7, facts)]) == [
        ("7", "fast", "0.50", "1.001 [0.981, 1.021]", "2.1 %")
    ]
    facts["controls"] += [control(1.0, 0.02, 1.25)] * 4
    shown = "1.001 [0.981, 1.021]; 1.000 [0.980, 1.020]; 1.000 [0.980, 1.020]; and 2 more"
    assert session_lines([Session(0.0, 7, facts)]) == [
        ("7", "fast", "0.50 to 1.25", shown, "2.1 %")
    ]
    assert session_lines([Session(0.0, 7, {})]) == [("7", "", "", "", "")]
