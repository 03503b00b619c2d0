"""A trial's way through its jobs, and what becomes of it when one of them does not return."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scripted import SCORED, STAGE, TIMING, Rig

from search.errors import NasliteError
from search.jobs import Built, Scored
from storage import Measurement

JOBS = ("build", "score", "time")


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def brought_to(job, rig, number=1):
    """Begin a trial, and bring it to one of its jobs."""
    rig.start(number)
    if job != "build":
        rig.build(number)
    if job == "time":
        rig.score()
    executor = rig.timer if job == "time" else rig.builders
    assert [running.method for running in executor.jobs] == [job]
    return executor


def values(end):
    return {m.metric: m.value for m in end.outcome.measurements}


# What is done with what


def test_a_trial_is_built_then_scored_then_timed(rig):
    rig.start(1)
    assert rig.build(1, seconds=1.0) == []
    assert rig.score(seconds=2.0) == []
    (end,) = rig.time(seconds=4.0)

    artifact = rig.artifact(1)
    build, score = rig.builders.submitted
    (time,) = rig.timer.submitted
    assert (build.method, build.arguments) == ("build", ({"level": 1},))
    assert (score.method, score.arguments) == ("score", (artifact,))
    assert time.method == "time"
    assert time.arguments[:2] == (rig.file(artifact), rig.file(rig.baseline.artifact))
    outcome = end.outcome
    assert (end.number, end.died) == (1, False)
    assert (outcome.state, outcome.cause, outcome.seconds) == ("complete", "", 7.0)
    assert (outcome.stages, outcome.artifact) == ((STAGE,), artifact)
    assert values(end) == {
        "accuracy": 0.75,
        "accuracy_drop": 0.25,
        "size_bytes": artifact.size_bytes,
        "latency_ms": 2.0,
        "latency_ratio": 0.5,
        "throughput_per_s": 500.0,
        "parameters": 10.0,
        "macs": 20.0,
    }
    assert not any(m.noisy for m in outcome.measurements)
    assert rig.wait() == []


def test_the_order_of_blocks_depends_on_the_file_alone(tmp_path):
    seeds = []
    for name, level in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        rig = Rig(tmp_path / name)
        brought_to("time", rig, level)
        seeds.append(rig.timer.submitted[0].arguments[2])
    assert seeds[0] == seeds[1] != seeds[2]


def test_the_baseline_is_timed_alone_and_has_no_drop(rig):
    rig.start(0)
    rig.build(0)
    rig.score()
    assert rig.timer.jobs[0].arguments[1] is None
    (end,) = rig.time()
    assert values(end)["accuracy_drop"] == 0.0


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_what_cannot_be_built_ends_as_its_bench_says(rig, state):
    rig.start(1)
    rig.builders.end("returned", Built((STAGE,), None, state, "prune: no such layer"))
    (end,) = rig.wait()
    assert (end.outcome.state, end.outcome.cause) == (state, "prune: no such layer")
    assert (end.outcome.stages, end.outcome.artifact, end.died) == ((STAGE,), None, False)
    assert rig.events == ["build"]


def test_identical_files_are_measured_once(rig):
    known = {rig.artifact(1).sha256: (3, (Measurement("accuracy", 0.5),))}
    rig.dispatcher.measured_before = known.get
    rig.start(4)
    (end,) = rig.build(1)
    assert (end.outcome.state, end.outcome.reused_from) == ("complete", 3)
    assert values(end) == {"accuracy": 0.5}
    assert end.outcome.artifact == rig.artifact(1)
    assert rig.events == ["build"]


def test_a_trial_that_waits_to_be_timed_fills_its_slot(tmp_path):
    """So no more is built than can be measured soon."""
    rig = Rig(tmp_path, slots=2)
    assert rig.dispatcher.has_room
    rig.start(1, 2)
    assert not rig.dispatcher.has_room
    rig.build(1)
    rig.build(2)
    rig.score()
    assert rig.dispatcher.has_room
    rig.start(3)
    rig.score()
    rig.build(3)
    rig.score()
    assert rig.timer.busy == 1
    assert rig.builders.busy == 0
    assert not rig.dispatcher.has_room  # two files wait
    assert rig.dispatcher.running == {1, 2, 3}


def test_files_are_timed_in_the_order_of_their_trials(tmp_path):
    rig = Rig(tmp_path, slots=4)
    rig.start(1, 2, 3, 4)
    for level in (1, 2, 3, 4):
        rig.build(level)
    for which in (1, 2, 1, 0):  # trials 2, 4, 3, 1
        rig.score(which=which)
    ended = [rig.time()[0].number for _ in range(4)]
    assert ended == [2, 1, 3, 4]  # the first one had begun


# Jobs that do not return


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("stage", ["", "quantize"])
@pytest.mark.parametrize(
    ("kind", "said", "cause"),
    [
        ("raised", "ValueError: no", "{}: ValueError: no"),
        ("lost", "worker died (signal 11)", "worker died (signal 11) in stage {}"),
        ("expired", "no result after 60 s", "no result after 60 s in stage {}"),
    ],
)
def test_a_job_that_does_not_return_ends_its_trial(tmp_path, job, stage, kind, said, cause):
    rig = Rig(tmp_path, lock=tmp_path / "timing.lock")
    ended = replace(STAGE, name="export")
    brought_to(job, rig).end(kind, cause=said, stage=stage, stages=(ended,), seconds=5.0)
    (end,) = rig.wait()

    where = stage or ("start" if job == "build" else "measure")
    assert end.outcome.state == "failed"
    assert end.outcome.cause == cause.format(where)
    assert end.died is (kind == "lost")
    assert end.outcome.stages == ((ended,) if job == "build" else (STAGE,))
    assert end.outcome.measurements == ()
    assert end.outcome.seconds == 5.0 + JOBS.index(job)
    assert rig.dispatcher.running == set()
    assert rig.lock_is_free
    assert not rig.builders.is_paused

    rig.start(1)  # another attempt begins anew
    rig.build(1)
    rig.score()
    assert rig.time()[0].outcome.state == "complete"


@pytest.mark.parametrize("job", JOBS)
def test_a_bench_that_cannot_be_made_ends_the_search(tmp_path, job):
    rig = Rig(tmp_path, lock=tmp_path / "timing.lock")
    brought_to(job, rig).end("broken", cause="TaskChanged: the task changed", stage="start")
    with pytest.raises(NasliteError, match=r"^a worker cannot begin: TaskChanged: the task ch"):
        rig.wait()
    rig.dispatcher.close()
    assert rig.lock_is_free


def test_what_ended_beside_a_bench_that_cannot_be_made_is_returned_first(tmp_path):
    rig = Rig(tmp_path, slots=3)
    rig.start(1, 2, 3)
    rig.builders.end("returned", Built((STAGE,), None, "refused", "prune: no such layer"))
    rig.builders.end("broken", cause="TaskChanged: the task changed", stage="start")
    rig.builders.end("raised", cause="ValueError: no", stage="prune")
    ended = rig.wait()
    assert [(end.number, end.outcome.state) for end in ended] == [(1, "refused"), (3, "failed")]
    assert not rig.dispatcher.has_room
    for _ in range(2):
        with pytest.raises(NasliteError, match=r"^a worker cannot begin: TaskChanged: "):
            rig.wait()


def test_the_death_of_one_trial_leaves_the_others_where_they_are(tmp_path):
    rig = Rig(tmp_path, slots=3)
    rig.start(1, 2, 3)
    rig.build(1)
    rig.score(which=-1)
    assert rig.timer.busy == 1
    rig.builders.end("lost", cause="worker died (signal 9)", stage="prune")
    (end,) = rig.wait()
    assert (end.number, end.died) == (2, True)
    assert rig.dispatcher.running == {1, 3}
    assert rig.builders.is_paused  # trial 1 is timed still
    assert rig.time()[0].number == 1
    rig.build(3)
    rig.score()
    assert rig.time()[0].number == 3


# Limits


def test_each_job_has_what_the_trials_other_jobs_have_left(tmp_path):
    rig = Rig(tmp_path, timeout_s=10.0)
    rig.start(1)
    rig.build(1, seconds=4.0)
    rig.score(seconds=5.5)
    jobs = [*rig.builders.submitted, *rig.timer.submitted]
    assert [job.timeout_s for job in jobs] == [10.0, 6.0, 0.5]
    rig.timer.end("expired", cause="no result after 0.5 s (limits.timeout)", seconds=0.5)
    (end,) = rig.wait()
    assert end.outcome.cause == "no result after 10 s (limits.timeout) in stage measure"
    rig.start(1)
    assert rig.builders.jobs[0].timeout_s == 10.0


def test_a_trial_that_has_used_all_of_its_time_expires_in_its_next_job(tmp_path):
    rig = Rig(tmp_path, timeout_s=10.0)
    rig.start(1)
    rig.build(1, seconds=10.5)
    assert 0 < rig.builders.jobs[0].timeout_s <= 0.001


def test_without_a_limit_jobs_have_none(rig):
    brought_to("time", rig)
    assert {job.timeout_s for job in [*rig.builders.submitted, *rig.timer.submitted]} == {None}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("field", "metric"),
    [
        ("score", "accuracy"),
        ("parameters", "parameters"),
        ("macs", "macs"),
        ("milliseconds", "latency_ms"),
        ("ratio", "latency_ratio"),
        ("low", "latency_ratio"),
        ("high", "latency_ratio"),
    ],
)
def test_a_metric_that_is_not_finite_fails_the_trial(rig, field, metric, value):
    brought_to("score", rig)
    is_scored = field in Scored.__dataclass_fields__
    rig.score(replace(SCORED, **{field: value}) if is_scored else SCORED)
    (end,) = rig.time(TIMING if is_scored else replace(TIMING, **{field: value}))
    assert (end.outcome.state, end.died) == ("failed", False)
    assert end.outcome.cause == f"measure: {metric} is {value}"
    assert end.outcome.measurements == ()
    assert end.outcome.artifact == rig.artifact(1)


def test_a_metric_that_the_study_asks_for_and_that_is_missing_fails_the_trial(tmp_path):
    rig = Rig(tmp_path, needed=["accuracy", "load_ms"])
    brought_to("score", rig)
    rig.score()
    (end,) = rig.time()
    assert end.outcome.state == "failed"
    cause = "measure: load_ms was not measured, and the study asks for it"
    assert end.outcome.cause == cause


# Giving up


def test_abandoning_kills_all_that_runs_and_gives_the_lock_back(tmp_path):
    rig = Rig(tmp_path, slots=2, lock=tmp_path / "timing.lock")
    rig.start(1, 2)
    rig.build(1)
    rig.score(which=-1)
    rig.start(3, 4)  # 4 waits for a slot
    rig.builders.end("lost", cause="worker died (signal 9)")
    rig.dispatcher.abandon()
    assert (rig.builders.busy, rig.timer.busy) == (0, 0)
    assert rig.dispatcher.running == set()
    assert rig.lock_is_free
    assert not rig.builders.is_paused
    assert rig.wait() == []
    rig.start(5)
    assert rig.builders.busy == 1


def test_closing_closes_both_executors(rig):
    brought_to("time", rig)
    rig.dispatcher.close()
    assert rig.builders.is_closed
    assert rig.timer.is_closed
    assert "cancel" in rig.events
