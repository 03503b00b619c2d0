"""Folders for temporary files: removed when nobody can need them any more, and not before."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest
from children import child, kill

from search.jobs import BenchSpec, Job
from search.scratch import scratch_folder
from search.testing_supervision import the_end, until
from search.workers import ProcessPool

BENCH = BenchSpec("benches:Bench", {})

CONTROLLER = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from search.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "left").touch()
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """The machine's folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_by_killed_controller(shared):
    with child(CONTROLLER, shared) as controller:
        folder = Path(controller.stdout.readline().strip())
        kill(controller)
    assert (folder / "left").exists()
    return folder


def test_a_folder_goes_with_its_study(shared):
    with scratch_folder() as folder:
        assert folder.parent == shared
        (folder / "file").touch()
    assert list(shared.iterdir()) == []


def test_what_a_killed_controller_left_is_removed_by_the_next(shared):
    folder = left_by_killed_controller(shared)
    with scratch_folder():
        assert not folder.exists()


def test_the_folder_of_a_live_controller_stays(shared):
    """Also of one in another container, whose process numbers say nothing here."""
    with child(CONTROLLER, shared) as controller:
        folder = Path(controller.stdout.readline().strip())
        for _ in range(2):
            with scratch_folder() as other:
                assert other != folder
        assert (folder / "left").exists()


def test_the_folder_of_another_host_stays(shared, monkeypatch):
    """Whose locks are not seen on every file system that two hosts share."""
    folder = left_by_killed_controller(shared)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
    with scratch_folder():
        assert (folder / "left").exists()


def test_each_worker_has_a_folder_until_it_is_dead(tmp_path):
    with ProcessPool(BENCH, 2, scratch=tmp_path) as pool:
        first = the_end(pool, Job(0, "facts")).value["environment"]["TMPDIR"]
        assert Path(first).parent == tmp_path
        (Path(first) / "large").write_bytes(b"x" * 1000)
        assert the_end(pool, Job(1, "facts")).value["environment"]["TMPDIR"] == first  # it lives
        assert the_end(pool, Job(2, "leave", (3,))).kind == "lost"
        assert list(tmp_path.iterdir()) == []
        assert the_end(pool, Job(3, "facts")).value["environment"]["TMPDIR"] != first
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_worker_leaves_no_file(tmp_path):
    with ProcessPool(BENCH, scratch=tmp_path) as pool:
        pool.submit(Job(0, "hang", (tmp_path / "pid",)))
        until((tmp_path / "pid").exists)
        pool.cancel(0)
        assert os.listdir(tmp_path) == ["pid"]
