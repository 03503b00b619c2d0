"""Searches that outlive their shell, and how others talk to them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from children import until
from conftest import one_line

from search import open_study
from search.controller import GRACE_S
from storage import Store, UnknownStudy

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-c", "from search.cli import main; main()"]
DEADLINE_S = 90.0
HEARD = "once more stops at once"

# A compressor that, told to, does nothing until somebody makes a file beside it.
GATE = """
import copy, time
from pathlib import Path
from strategies.space import Choice

FOLDER = Path(__file__).parent

class Gate:
    version = 1
    libraries = ()

    def knobs(self, model, task):
        return [Choice(name="closed", values=(False, True), neutral=False)]

    def apply(self, model, options, context):
        if options["closed"]:
            (FOLDER / "reached").touch()
            while not (FOLDER / "opened").exists():
                time.sleep(0.02)
        return copy.deepcopy(model), {}

    def replay(self, model, recipe):
        return model
"""


@pytest.fixture
def slow_config(workspace):
    """A search that lasts until it is stopped, on a task that trains for a while."""
    return workspace.config(
        pipeline=[
            {"structured_pruning": {"ratio": {"low": 0.0, "high": 0.8, "step": 0.1}}},
            {"distillation": {"epochs": {"low": 20, "high": 60}, "lr": 0.01}},
        ],
        strategy="random",
        budget={"trials": 400},
        workers=2,
    )


def naslite_command(workspace, *arguments):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        cwd=workspace.folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


def done(workspace):
    store = Store(workspace.store)
    try:
        trials = store.trials(store.study("toy"))
    except UnknownStudy:  # the store is there before the study
        return 0
    finally:
        store.close()
    return sum(trial.state == "complete" for trial in trials)


def test_a_detached_search_is_followed_steered_and_stopped(workspace, slow_config, naslite):
    started = naslite_command(workspace, "run", slow_config, "--detach")
    assert started.returncode == 0, started.stderr
    found = re.search(r"as process (\d+); its log is (\S+toy\.log)", started.stdout)
    assert found is not None, started.stdout
    process = psutil.Process(int(found[1]))
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    assert len(until(process.children, "a worker")) >= 1
    busy = one_line(naslite("resume", "toy"))
    assert one_line(naslite("run", slow_config)) == busy
    for arguments in (("run", slow_config), ("resume", "toy")):
        refused = naslite_command(workspace, *arguments, "--detach")
        assert (refused.returncode, refused.stderr) == (2, busy)
    assert "is being run" not in Path(found[2]).read_text()  # the log of the one that runs
    host = os.uname().nodename
    assert f"study 'toy' is being run by process {process.pid} on {host} since 2" in busy
    assert "is being run by process" in one_line(naslite("rm", "toy"))

    wanted = [{"structured_pruning.ratio": 0.8, "distillation.epochs": 20}]
    (workspace.folder / "wanted.json").write_text(json.dumps(wanted))
    assert "will evaluate 1 candidate next" in naslite("enqueue", "toy", "wanted.json")[1]
    assert "300 trials in total" in naslite("extend", "toy", "--trials", 300)[1]
    too_few = one_line(naslite("extend", "toy", "--trials", 1))
    assert "at least the" in too_few
    assert "got 1" in too_few

    def enqueued():
        store = Store(workspace.store)
        trials = store.trials(store.study("toy"))
        store.close()
        return any(t.origin == "enqueued" and t.state == "complete" for t in trials)

    until(enqueued, "the enqueued trial")
    assert open_study("toy").study.trials == 300
    assert "new budget: 300 trials" in naslite("logs", "toy")[1]
    follower = subprocess.Popen(
        [*PROGRAM, "logs", "toy", "-f"], cwd=workspace.folder, stdout=subprocess.PIPE, text=True
    )
    children = process.children(recursive=True)
    assert "asked toy to stop now" in naslite("stop", "toy", "--now")[1]
    output, _ = follower.communicate(timeout=DEADLINE_S)
    assert "study toy stopped: stopped on request" in output
    until(lambda: not process.is_running() or process.status() == "zombie", "the end")
    until(lambda: not any(child.is_running() for child in children), "the workers' end")
    study = open_study("toy").study
    assert (study.state, study.cause) == ("stopped", "stopped on request")
    states = {row.trial.state for row in open_study("toy").rows()}
    assert states <= {"complete", "queued"}


def test_a_detached_search_that_cannot_begin_says_why(workspace):
    config = workspace.config(objectives={"accurcy": "maximize"})
    failed = naslite_command(workspace, "run", config, "--detach")
    assert failed.returncode == 2
    assert "did you mean 'accuracy'" in failed.stderr
    assert failed.stderr.count("\n") == 1
    outside = naslite_command(workspace, "run", config, "--detach", "--name", "../../x")
    assert (outside.returncode, outside.stderr.count("\n")) == (2, 1)
    assert "a study's name must be 1 to 100 letters" in outside.stderr
    unknown = naslite_command(workspace, "resume", "nope", "--detach")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert [path.name for path in workspace.folder.rglob("*.log")] == ["toy.log"]


def test_a_detached_resume_that_ends_at_once_says_so(workspace, naslite):
    config = workspace.config(budget={"trials": 1})
    assert naslite_command(workspace, "run", config).returncode == 0
    again = naslite_command(workspace, "resume", "toy", "--detach")
    assert (again.returncode, again.stderr) == (0, "")
    assert "study toy has ended" in again.stdout
    assert "nothing was asked" in one_line(naslite("stop", "toy"))
    assert "nothing was asked" in one_line(naslite("extend", "toy", "--trials", 5))
    assert "needs a new total" in one_line(naslite("extend", "toy"))
    (workspace.folder / "bad.json").write_text('[{"structured_pruning.ratoi": 0.5}]')
    assert "did you mean 'structured_pruning.ratio'" in one_line(
        naslite("enqueue", "toy", "bad.json")
    )
    (workspace.folder / "one.json").write_text('[{"structured_pruning.ratio": 0.5}]')
    assert "first, once `naslite resume toy`" in naslite("enqueue", "toy", "one.json")[1]
    assert naslite_command(workspace, "resume", "toy").returncode == 0
    assert [row.trial.origin for row in open_study("toy").rows()][-1] == "enqueued"


@pytest.fixture
def at_the_gate(workspace):
    """A search whose first trial stands at a closed gate."""
    (workspace.folder / "gate.py").write_text(GATE)
    config = workspace.config(
        pipeline=[{"structured_pruning": {"ratio": [0.0, 0.25, 0.5]}}, "gate.py:Gate"],
        enqueue=[{"Gate.closed": True}],
        strategy="random",
        budget={"trials": 5},
    )
    process = subprocess.Popen(
        [*PROGRAM, "run", str(config)],
        cwd=workspace.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        until((workspace.folder / "reached").exists, "the closed gate")
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(process):
    """Read what a search prints until it has heard the first signal."""
    for line in process.stdout:
        if HEARD in line:
            return
    pytest.fail(f"it ended with code {process.wait()} and heard nothing")


def last_trial():
    """Of a search that was interrupted at its first trial: nothing else was proposed."""
    results = open_study("toy")
    results.store.close()
    assert results.state == "interrupted"
    assert results.study.owner == ""
    baseline, trial = [row.trial for row in results.rows()]
    assert baseline.state == "complete"
    assert trial.candidate["Gate.closed"] is True
    assert (trial.attempt, trial.deaths) == (1, 0)
    return trial


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_one_signal_a_running_trial_ends_and_is_stored(workspace, at_the_gate, number):
    os.killpg(at_the_gate.pid, number)
    heard(at_the_gate)
    (workspace.folder / "opened").touch()
    output, _ = at_the_gate.communicate(timeout=DEADLINE_S)
    assert at_the_gate.returncode == 130, output
    trial = last_trial()
    assert trial.state == "complete"
    assert trial.artifact is not None
    assert {"accuracy", "size_bytes"} <= set(trial.metrics)


def test_after_two_signals_a_running_trial_is_abandoned_at_once(at_the_gate):
    began = time.monotonic()
    os.killpg(at_the_gate.pid, signal.SIGINT)
    heard(at_the_gate)
    os.killpg(at_the_gate.pid, signal.SIGINT)
    output, _ = at_the_gate.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - began < GRACE_S / 2
    assert at_the_gate.returncode == 130, output
    assert last_trial().state == "queued"


def test_after_one_signal_a_trial_that_does_not_end_is_abandoned_in_the_end(at_the_gate):
    began = time.monotonic()
    os.killpg(at_the_gate.pid, signal.SIGINT)
    output, _ = at_the_gate.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - began >= GRACE_S
    assert at_the_gate.returncode == 130, output
    assert last_trial().state == "queued"


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT,) * 2])
def test_signals_end_a_search_with_its_workers(workspace, slow_config, signals):
    process = subprocess.Popen(
        [*PROGRAM, "run", str(slow_config)],
        cwd=workspace.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    database = workspace.folder / "naslite.db"
    until(lambda: database.exists() and done(workspace) >= 3, "the third trial")
    children = psutil.Process(process.pid).children(recursive=True)
    began = time.monotonic()
    for number in signals:
        os.killpg(process.pid, number)  # as a terminal does it
        time.sleep(0.1)
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, output
    assert "continue with `naslite resume toy`" in output
    if len(signals) == 2:
        assert time.monotonic() - began < 9  # the grace time is 10 s
    else:
        assert HEARD in output
    assert children
    until(lambda: not any(child.is_running() for child in children), "the workers' end")
    results = open_study("toy")
    assert results.state == "interrupted"
    assert {row.trial.state for row in results.rows()} <= {"complete", "queued"}
