"""When a file is timed: one at a time, while builds stand still, with the machine's lock."""

from __future__ import annotations

import time

import pytest
from children import child, wait_for
from scripted import TIMING, Rig

from search.dispatch import POLL_S
from search.jobs import Built
from storage.artifacts import describe_artifact


def test_builds_stand_still_exactly_while_a_file_is_timed(tmp_path):
    rig = Rig(tmp_path, slots=2)
    rig.start(1, 2)
    rig.build(1)
    rig.build(2)
    rig.score()
    rig.start(3)
    rig.score()
    assert (rig.builders.is_paused, rig.builders.busy) == (True, 1)
    rig.time()
    assert (rig.builders.is_paused, rig.timer.busy) == (True, 1)  # the next one
    rig.time()
    assert not rig.builders.is_paused
    assert rig.events == [
        *("build", "build", "score", "score"),
        *("pause", "time", "build", "resume"),
        *("pause", "time", "resume"),
    ]


def test_what_was_timed_beside_a_build_is_noisy(tmp_path):
    """Whether the build was there before the timing, or began during it."""
    for case in ("before", "during", "never"):
        (tmp_path / case).mkdir()
        rig = Rig(tmp_path / case, slots=2, exclusive=False)
        rig.start(*((1, 2) if case == "before" else (1,)))
        rig.build(1)
        rig.score(which=-1)
        if case == "during":
            rig.start(2)
        assert rig.timer.busy == 1
        rig.timer.end("returned", (TIMING,))
        (end,) = rig.wait()
        noisy = {m.metric for m in end.outcome.measurements if m.noisy}
        timed = {"latency_ms", "latency_ratio", "throughput_per_s"}
        assert noisy == (set() if case == "never" else timed)
        assert "pause" not in rig.events


HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
"""


def test_while_another_process_times_builds_go_on_and_ours_waits(tmp_path):
    rig = Rig(tmp_path, slots=2, lock=tmp_path / "timing.lock")
    with child(HOLDER, tmp_path / "timing.lock") as other:
        wait_for(other, "held")
        rig.start(1, 2)
        rig.build(1)
        rig.score(which=-1)
        assert rig.wait(60) == []
        assert rig.builders.waited[-1] == POLL_S  # the lock must be looked at again
        rig.build(2)
        rig.score()
        assert rig.events == ["build", "build", "score", "score"]
        other.stdin.write("\n")
        other.stdin.flush()
        wait_for(other, "free")
    rig.wait()
    assert rig.events[4:] == ["pause", "time"]
    assert not rig.lock_is_free
    (end,) = rig.time()
    assert (end.number, end.outcome.state) == (1, "complete")
    assert not rig.lock_is_free  # trial 2
    rig.time()
    assert rig.lock_is_free


def test_waiting_for_the_lock_alone_does_not_spin(tmp_path):
    """It would take the processor that the other study is timed on."""
    rig = Rig(tmp_path, lock=tmp_path / "timing.lock")
    with child(HOLDER, tmp_path / "timing.lock") as other:
        wait_for(other, "held")
        rig.start(1)
        rig.build(1)
        rig.score()
        began = time.monotonic()
        assert rig.wait(60) == []
        assert time.monotonic() - began >= POLL_S
    rig.wait()
    assert rig.timer.busy == 1  # the system gave the lock of the dead process back


# Whatever is raised on the way


@pytest.mark.parametrize("where", ["pause", "submit", "prepare"])
def test_the_lock_is_given_back_whatever_is_raised_before_a_timing(tmp_path, monkeypatch, where):
    rig = Rig(tmp_path, lock=tmp_path / "timing.lock")
    rig.start(1)
    rig.build(1)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    target = {
        "pause": (rig.builders, "pause"),
        "submit": (rig.timer, "submit"),
        "prepare": (rig.store, "verified"),
    }
    monkeypatch.setattr(*target[where], interrupted)
    if where == "pause":
        monkeypatch.setattr(rig.builders, "resume", lambda: None)  # was it paused or not?
    with pytest.raises(KeyboardInterrupt):
        rig.score()
    assert rig.lock_is_free
    assert not rig.builders.is_paused


def test_closing_gives_the_lock_back_whatever_cannot_be_cancelled(tmp_path, monkeypatch):
    rig = Rig(tmp_path, lock=tmp_path / "timing.lock")
    rig.start(1)
    rig.build(1)
    rig.score()
    assert not rig.lock_is_free

    def fail(job):
        raise OSError("no")

    monkeypatch.setattr(rig.timer, "cancel", fail)
    with pytest.raises(OSError, match="no"):
        rig.dispatcher.close()
    assert rig.lock_is_free
    assert rig.builders.is_closed
    assert rig.timer.is_closed


def test_files_that_do_not_say_which_is_loaded_fail_their_trial_alone(tmp_path):
    rig = Rig(tmp_path, lock=tmp_path / "timing.lock")
    path = tmp_path / "other.onnx"
    path.write_text("no main file")
    artifact = describe_artifact([path], "onnx")
    rig.store.put(artifact.sha256, [path], {})
    rig.start(1)
    for _ in range(2):  # built again once
        rig.builders.end("returned", Built((), artifact))
        rig.wait()
        ended = rig.score()
    assert [end.outcome.state for end in ended] == ["failed"]
    assert "does not say which file is loaded" in ended[0].outcome.cause
    assert rig.lock_is_free


# Two studies


def test_two_studies_with_much_to_time_take_turns(tmp_path):
    rigs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rigs.append(Rig(tmp_path / name, slots=3, lock=tmp_path / "timing.lock"))
    for rig in rigs:
        rig.start(1, 2, 3)
        for level in (1, 2, 3):
            rig.build(level)
        for _ in range(3):
            rig.score()
    turns = []
    while any(rig.dispatcher.running for rig in rigs):
        (timed,) = [rig for rig in rigs if rig.timer.busy]  # never two at once
        turns.append(rigs.index(timed))
        timed.timer.end("returned", (TIMING,))
        for rig in (timed, *rigs, *rigs):  # the one that has just had it asks first
            rig.wait(0.001)
    assert turns == [0, 1, 0, 1, 0, 1]


def test_who_no_longer_waits_gives_its_turn_to_others(tmp_path):
    rigs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rigs.append(Rig(tmp_path / name, slots=2, lock=tmp_path / "timing.lock"))
    a, b = rigs
    a.start(1, 2)
    a.build(1)
    a.build(2)
    a.score()
    a.score()
    b.start(1)
    b.build(1)
    b.score()  # it is b's turn after this one
    b.dispatcher.abandon()
    a.time()
    assert a.timer.busy == 1
