"""The lock of timings: who holds it, who waits for it, and what they are told."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest
from children import child, kill, wait_for

from search import timing_lock
from search.held_file import HeldFile
from search.timing_lock import TimingLock, default_path

HOLDER = """
import sys
from pathlib import Path
from search.timing_lock import TimingLock
lock = TimingLock(Path(sys.argv[1]), "elsewhere")
assert lock.acquire()
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "timing.lock"


def test_one_at_a_time_and_again_without_waiting(path):
    first, second = TimingLock(path), TimingLock(path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert not first.acquire()  # the second one has asked
    assert second.acquire()
    second.release()
    assert first.acquire()
    first.release()


def test_the_file_tells_who_holds_it_and_nothing_when_nobody_does(path):
    lock = TimingLock(path, "resnet")
    lock.acquire()
    holder = f"study resnet (process {os.getpid()} on {socket.gethostname()})"
    assert path.read_text() == holder
    assert not TimingLock(path, "other").acquire()
    assert path.read_text() == holder  # asking does not change it
    lock.release()
    assert path.read_text() == ""


def test_the_lock_of_a_killed_process_is_free(path):
    with child(HOLDER, path) as holder:
        wait_for(holder, "held")
        lock = TimingLock(path)
        assert not lock.acquire()
        kill(holder)
        assert lock.acquire()
        lock.release()


def test_waiting_for_a_stopped_process_is_told_once(path, monkeypatch, caplog):
    monkeypatch.setattr(timing_lock, "WARN_S", 0.0)
    with child(HOLDER, path) as holder, caplog.at_level(logging.WARNING, "naslite.search"):
        wait_for(holder, "held")
        os.kill(holder.pid, signal.SIGSTOP)
        waiting = TimingLock(path, "a"), TimingLock(path, "b")  # one of them at the turnstile
        for _ in range(4):
            assert not any(lock.acquire() for lock in waiting)
        said = f"for study elsewhere (process {holder.pid} on {socket.gethostname()}), which holds"
        assert [said in message for message in caplog.messages] == [True, True]
    for lock in waiting:
        lock.release()


def test_a_short_wait_is_not_worth_a_word(path, caplog):
    holder, waiting = TimingLock(path), TimingLock(path)
    assert holder.acquire()
    for _ in range(3):
        assert not waiting.acquire()
    assert caplog.messages == []
    waiting.release()
    holder.release()


def test_a_file_that_cannot_be_opened_is_done_without(tmp_path, caplog):
    lock = TimingLock(tmp_path / "no" / "such" / "folder")
    assert lock.acquire()
    assert "another study may be timed at the same moment" in caplog.text
    assert lock.acquire()
    lock.release()
    assert len(caplog.messages) == 1


def test_a_lock_that_is_no_file_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "timing.lock").symlink_to(tmp_path / "precious")
    assert TimingLock(tmp_path / "timing.lock").acquire()
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_file_that_was_removed_while_held_is_no_lock(path):
    first, second = HeldFile(path), HeldFile(path)
    assert first.acquire()
    path.unlink()
    assert second.acquire()
    first.release()
    assert not HeldFile(path).acquire()
    second.release()


def test_the_lock_lies_where_all_jobs_of_a_machine_look(monkeypatch, tmp_path):
    monkeypatch.delenv("NASLITE_TIMING_LOCK")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert default_path() == Path("/", "tmp", "naslite-timing.lock")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert default_path() == tmp_path / "naslite-timing.lock"
    monkeypatch.setenv("NASLITE_TIMING_LOCK", "/shared/lock")
    assert default_path() == Path("/shared/lock")
