"""When a file is timed: one at a time, while builds stand still, with the machine's lock."""

from __future__ import annotations

import time

from children import child, wait_for
from scripted import TIMING, Rig

from search.dispatch import POLL_S


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
        assert noisy == (set() if case == "never" else {"latency_ms", "latency_ratio"})
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
