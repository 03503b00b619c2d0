"""Searches with workers: the rows of one worker, and nothing left behind by a signal."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time

import psutil
import pytest
from children import until
from faulty_study import PROGRAM, config, left_in, write

from search import open_study
from storage import NoStore, Store, UnknownStudy

pytestmark = pytest.mark.slow

DEADLINE_S = 180.0
TRIALS = 14


def search_in(folder, workers):
    """A search whose trials train for some tenths of a second, with deterministic objectives."""
    knobs = {"epochs": {"low": 10, "high": 40}, "lr": 0.01}
    content = config(
        [],
        pipeline=[
            {"structured_pruning": {"ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
            {"distillation": knobs},
        ],
        strategy="tpe",
        budget={"trials": TRIALS},
        workers=workers,
        lag=4,
        limits={},  # those of the faults would cost a trial on a busy machine
    )
    write(folder, content, armed=False)


def start(folder, *arguments):
    """`naslite` in a session of its own, as a shell would start it."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process, code):
    """What a process printed until it ended with this code."""
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, out
    return out


def rows_in(folder):
    results = open_study("toy", store=f"sqlite:///{folder / 'naslite.db'}")
    results.store.close()
    return results.rows()


def table(folder):
    """What must be equal: number, candidate, state, values, bytes."""
    return [
        (
            row.number,
            json.dumps(row.trial.candidate, sort_keys=True),
            row.trial.state,
            row.metrics.get("accuracy"),
            row.metrics.get("size_bytes"),
            row.trial.artifact.sha256 if row.trial.artifact else None,
        )
        for row in rows_in(folder)
    ]


def done_in(folder):
    """How many trials have ended, while others are being run."""
    try:
        store = Store(f"sqlite:///{folder / 'naslite.db'}", create=False)
    except NoStore:
        return 0
    try:
        return sum(trial.finished_at is not None for trial in store.trials(store.study("toy")))
    except UnknownStudy:
        return 0
    finally:
        store.close()


def until_in(process, condition):
    """Wait for what must come before the process ends."""

    def has_come():
        assert process.poll() is None, process.communicate()[0]
        return condition()

    until(has_come, seconds=DEADLINE_S)


def workers_of(process):
    """Its worker processes; libraries start others for a moment."""
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.Error):
            if any("search.worker" in word for word in child.cmdline()):
                found.append(child)
    return found


def interrupted(process, *signals):
    """Send signals as a terminal does, to the group; what was printed until the end.

    Nothing that the process has started is left.
    """
    children = psutil.Process(process.pid).children(recursive=True)
    assert workers_of(process)
    for number in signals:
        os.killpg(process.pid, number)
        time.sleep(0.1)  # what comes at once is one signal to the system
    out = ended(process, 130)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    return out


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The table of the search by two workers."""
    folder = tmp_path_factory.mktemp("two")
    search_in(folder, 2)
    ended(start(folder, "run", "toy.yaml"), 0)
    return table(folder)


def test_two_workers_give_the_table_of_one(tmp_path, uninterrupted):
    search_in(tmp_path, 1)
    ended(start(tmp_path, "run", "toy.yaml"), 0)
    assert table(tmp_path) == uninterrupted
    assert len(uninterrupted) == TRIALS + 1
    assert len({row[5] for row in uninterrupted}) > TRIALS / 2


def test_signals_leave_nothing_behind_and_change_no_row(tmp_path, uninterrupted):
    search_in(tmp_path, 2)
    verb = ("run", "toy.yaml")
    for signals in ([signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM]):
        before = done_in(tmp_path)
        process = start(tmp_path, *verb)
        until_in(process, lambda before=before: done_in(tmp_path) > before + 1)
        began = time.monotonic()
        out = interrupted(process, *signals)
        assert "continue with `naslite resume toy`" in out
        assert "Traceback" not in out
        if len(signals) > 1:
            assert time.monotonic() - began < 9  # a single one leaves running trials ten seconds
        assert left_in(tmp_path) == ()
        results = open_study("toy", store=f"sqlite:///{tmp_path / 'naslite.db'}")
        results.store.close()
        assert results.state == "interrupted"
        assert results.study.owner == ""
        ends = {(row.trial.state, row.trial.cause) for row in results.rows()}
        assert ends <= {("complete", ""), ("queued", "")}
        verb = ("resume", "toy")
    ended(start(tmp_path, *verb), 0)
    assert table(tmp_path) == uninterrupted
    assert {row.trial.deaths for row in rows_in(tmp_path)} == {0}
    assert left_in(tmp_path) == ()


def test_a_signal_before_the_search_begins_changes_nothing(tmp_path):
    """While a worker loads the task and builds the baseline."""
    search_in(tmp_path, 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(tmp_path, "run", "toy.yaml")
        until_in(process, lambda process=process: workers_of(process))
        out = interrupted(process, number)
        assert "interrupted before the search began; nothing was changed" in out
        assert "Traceback" not in out
        assert left_in(tmp_path) == ()
        assert not (tmp_path / "naslite.db").exists()
    ended(start(tmp_path, "run", "toy.yaml", "--trials", "1"), 0)
    assert [row.trial.state for row in rows_in(tmp_path)] == ["complete"] * 2
