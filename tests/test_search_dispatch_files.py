"""Files that are damaged between two jobs of a trial, and the laws of every order of events."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from children import until
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import SCORED, STAGE, TIMING, Rig

from search.jobs import Built
from storage.artifacts import ContentStore


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path, lock=tmp_path / "timing.lock")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


DAMAGES = pytest.mark.parametrize("damage", [truncate, flip, Path.unlink])


def brought_to_score(rig):
    rig.start(1)
    rig.build(1)
    return rig.file(rig.artifact(1))


def corrupt(rig):
    """What the score job says of files that were damaged after they were built."""
    cause = "CorruptFiles: it has 6 bytes, not 7"
    return {"kind": "raised", "cause": cause, "stage": "measure", "is_corrupt": True}


# Files of the trial


def test_damage_found_by_scoring_is_built_again_once(rig, caplog):
    brought_to_score(rig)
    with caplog.at_level(logging.WARNING, "naslite.search"):
        rig.builders.end(**corrupt(rig))
        assert rig.wait() == []
    assert "trial 1: CorruptFiles: it has 6 bytes, not 7; its files are made again" in caplog.text
    assert rig.builders.jobs[0].arguments == ({"level": 1},)
    rig.builders.end("returned", Built((), rig.artifact(1)))  # all cached this time
    rig.wait()
    rig.score()
    (end,) = rig.time()
    assert (end.outcome.state, end.outcome.stages) == ("complete", (STAGE,))
    assert rig.events == ["build", "score", "build", "score", "pause", "time", "resume"]


def test_an_error_that_only_reads_like_damage_is_an_error(rig):
    """Whoever raised it: nothing that is stored is wrong."""
    brought_to_score(rig)
    rig.builders.end(**{**corrupt(rig), "is_corrupt": False})
    (end,) = rig.wait()
    assert (end.outcome.state, rig.events) == ("failed", ["build", "score"])
    assert end.outcome.cause == "measure: CorruptFiles: it has 6 bytes, not 7"


def test_what_is_damaged_a_second_time_fails(rig):
    brought_to_score(rig)
    rig.builders.end(**corrupt(rig))
    rig.wait()
    rig.build(1)
    rig.builders.end(**corrupt(rig))
    (end,) = rig.wait()
    assert (end.outcome.state, end.died) == ("failed", False)
    assert end.outcome.cause == "measure: CorruptFiles: it has 6 bytes, not 7"
    assert rig.dispatcher.running == set()


@DAMAGES
def test_damage_after_scoring_is_found_before_timing(rig, damage):
    """What was measured and what ships must be one file."""
    file = brought_to_score(rig)
    damage(file)
    rig.score()
    assert rig.timer.busy == 0
    assert not rig.builders.is_paused
    rig.build(1)
    rig.score()
    assert rig.timer.jobs[0].arguments[0] == file
    assert rig.time()[0].outcome.state == "complete"


@DAMAGES
def test_damage_after_scoring_again_fails(rig, damage):
    file = brought_to_score(rig)
    damage(file)
    rig.score()
    rig.build(1)
    damage(file)
    (end,) = rig.score()
    assert end.outcome.state == "failed"
    assert end.outcome.cause.startswith("measure: CorruptFiles: ")
    assert not rig.builders.is_paused
    assert rig.lock_is_free


def test_what_is_built_again_may_be_something_else(rig):
    """A build that is not deterministic: what counts is the file that is there."""
    brought_to_score(rig)
    rig.builders.end(**corrupt(rig))
    rig.wait()
    rig.build(2)
    rig.score()
    (end,) = rig.time()
    assert end.outcome.artifact == rig.artifact(2)


def test_what_cannot_be_built_again_ends_as_it_says(rig):
    brought_to_score(rig)
    rig.builders.end(**corrupt(rig))
    rig.wait()
    rig.builders.end("returned", Built((STAGE,), None, "failed", "prune: OSError: [Errno 28] No"))
    (end,) = rig.wait()
    assert (end.outcome.state, end.outcome.artifact) == ("failed", None)
    assert end.outcome.cause == "prune: OSError: [Errno 28] No"


class Unreadable(ContentStore):
    """A store on a disk that fails for the keys in `broken`."""

    broken: frozenset[str] = frozenset()

    def verified(self, key):
        if key in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().verified(key)


def test_a_file_that_cannot_be_read_fails_its_trial_and_no_other(tmp_path):
    """Not its contents are wrong, so building it again is no use."""
    rig = Rig(tmp_path, slots=2, lock=tmp_path / "timing.lock", kind=Unreadable)
    rig.store.broken = frozenset({rig.artifact(1).sha256})
    rig.start(1, 2)
    rig.build(1)
    rig.build(2)
    (end,) = rig.score()
    assert (end.number, end.outcome.state) == (1, "failed")
    assert end.outcome.cause == "measure: OSError: [Errno 5] Input/output error"
    rig.score()
    assert rig.time()[0].outcome.state == "complete"


class Large(ContentStore):
    """A store whose files take so long to read that somebody must have looked at the jobs."""

    looks = staticmethod(lambda: 0)

    def verified(self, key):
        before = self.looks()
        until(lambda: self.looks() > before + 1, "a look at the jobs", 10)
        return super().verified(key)


def test_jobs_are_supervised_while_files_are_read(tmp_path):
    """And what ends meanwhile is told."""
    rig = Rig(tmp_path, slots=2, kind=Large)
    rig.store.looks = lambda: len(rig.builders.waited)
    rig.start(1, 2)
    rig.build(1)
    rig.builders.end("returned", SCORED, which=1)

    def verified_beside_a_death(key, found=rig.store.verified):
        if rig.builders.busy:
            rig.builders.end("lost", cause="worker died (signal 9)")
        return found(key)

    rig.store.verified = verified_beside_a_death
    assert rig.wait() == []
    (end,) = rig.wait(60)
    assert (end.number, end.died) == (2, True)
    assert rig.time()[0].number == 1


# Files of the baseline


def test_the_baselines_files_are_made_again_when_they_are_damaged(rig, caplog):
    brought_to_score(rig)
    truncate(rig.file(rig.baseline.artifact))
    with caplog.at_level(logging.WARNING, "naslite.search"):
        rig.score()
    assert "the baseline's files are made again" in caplog.text
    assert rig.timer.busy == 0
    assert rig.builders.jobs[0].arguments == (rig.baseline.candidate,)
    assert rig.dispatcher.running == {1}
    rig.builders.end("returned", Built((STAGE,), rig.artifact(0)))
    rig.wait()
    (end,) = rig.time()
    assert (end.outcome.state, end.outcome.artifact) == ("complete", rig.artifact(1))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"kind": "returned", "value": Built((), None, "failed", "export: no")}, "export: no"),
        ({"kind": "raised", "cause": "OSError: no", "stage": "export"}, "export: OSError: no"),
        ({"kind": "lost", "cause": "worker died (signal 9)"}, "worker died (signal 9) in stage s"),
    ],
)
def test_a_trial_whose_baseline_is_lost_for_good_fails(rig, how, reason):
    brought_to_score(rig)
    truncate(rig.file(rig.baseline.artifact))
    rig.score()
    rig.builders.end(**how, stages=())
    (end,) = rig.wait()
    assert end.outcome.state == "failed"
    assert end.outcome.cause.startswith(f"measure: the baseline's files are lost ({reason}")
    assert end.outcome.stages == (STAGE,)  # its own, not the baseline's
    assert end.died is (how["kind"] == "lost")


def test_a_baseline_that_is_another_file_now_is_not_measured_against(rig):
    brought_to_score(rig)
    truncate(rig.file(rig.baseline.artifact))
    rig.score()
    other = rig.artifact(7)
    rig.builders.end("returned", Built((), other))
    (end,) = rig.wait()
    lost = f"the baseline's files are lost ({other.sha256})"
    assert (end.outcome.state, end.outcome.cause) == ("failed", f"measure: {lost}")


def test_a_baseline_that_is_damaged_again_and_again_ends_the_trial(rig):
    """It would be built for ever."""
    brought_to_score(rig)
    truncate(rig.file(rig.baseline.artifact))
    rig.score()
    repaired = rig.artifact(0)
    truncate(rig.file(repaired))
    rig.builders.end("returned", Built((), repaired))
    (end,) = rig.wait()
    assert end.outcome.state == "failed"
    assert end.outcome.cause.startswith("measure: the baseline's files are lost (CorruptFiles: ")


def test_a_baseline_that_cannot_be_read_fails_the_trial(tmp_path):
    rig = Rig(tmp_path, lock=tmp_path / "timing.lock", kind=Unreadable)
    brought_to_score(rig)
    rig.store.broken = frozenset({rig.baseline.artifact.sha256})
    (end,) = rig.score()
    reason = "OSError: [Errno 5] Input/output error"
    assert end.outcome.cause == f"measure: the baseline's files are lost ({reason})"


# In any order


ENDS = ("returned", "returned", "returned", "raised", "lost", "expired", "corrupt")
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(("start", "builder", "builder", "timer", "damage", "lock")),
        st.integers(0, 3),
        st.sampled_from(ENDS),
    ),
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(actions=ACTIONS, slots=st.integers(1, 3), exclusive=st.booleans())
def test_whatever_happens_each_trial_ends_once_and_no_two_are_timed(actions, slots, exclusive):
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), slots=slots, exclusive=exclusive, lock=Path(folder) / "lock")
        others = FileLock(Path(folder) / "lock", blocking=False)
        begun, ended = 0, Counter()
        for action, which, kind in actions:
            if action == "start" and rig.dispatcher.has_room:
                begun += 1
                rig.start(begun)
            elif action == "builder" and rig.builders.busy:
                _end(rig, rig.builders, which % rig.builders.busy, kind)
            elif action == "timer" and rig.timer.busy:
                _end(rig, rig.timer, 0, kind)
            elif action == "damage":
                truncate_if_there(rig.file(rig.artifact(which)))
            elif action == "lock":
                _take_or_give_back(others, rig)
            ended.update(end.number for end in rig.wait(0.001))
            _check(rig, exclusive, others.is_locked, begun, ended)
        others.release()
        while rig.dispatcher.running:
            executor = rig.builders if rig.builders.busy else rig.timer
            if executor.busy:
                _end(rig, executor, 0, "returned")
            ended.update(end.number for end in rig.wait(0.001))
            _check(rig, exclusive, False, begun, ended)
    assert ended == Counter(range(1, begun + 1))


def _end(rig, executor, which, kind):
    job = executor.jobs[which]
    is_corrupt = kind == "corrupt" and job.method == "score"
    if kind == "corrupt":
        kind = "raised" if job.method == "score" else "returned"
        cause = "CorruptFiles: it has 6 bytes, not 7"
    else:
        cause = "why"
    if kind != "returned":
        executor.end(kind, which=which, cause=cause, is_corrupt=is_corrupt)
    elif job.method == "build":
        built = Built((STAGE,), rig.artifact(job.arguments[0]["level"]))
        executor.end(kind, built, which=which)
    else:
        executor.end(kind, SCORED if job.method == "score" else (TIMING,), which=which)


def truncate_if_there(path):
    if path.exists():
        truncate(path)


def _take_or_give_back(others, rig):
    if others.is_locked:
        others.release()
    elif not rig.timer.busy:
        others.acquire(blocking=False)


def _check(rig, exclusive, is_locked, begun, ended):
    timing = rig.timer.busy == 1
    assert not (timing and is_locked)
    assert rig.builders.is_paused is (timing and exclusive)
    assert rig.dispatcher.running == set(range(1, begun + 1)) - set(ended)
    assert all(times == 1 for times in ended.values())
    if rig.dispatcher.running and not is_locked:
        assert rig.builders.busy or timing  # nothing waits for nothing
