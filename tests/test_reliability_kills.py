"""Kill it anywhere, resume it exactly: studies under SIGKILL, beside ones that nobody kills."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from conftest import REPOSITORY
from databases import needs_postgres, own_postgres
from doubles import memory_folder, table
from kill_attack import Report, attack, untouched
from kill_study import MANY, STRATEGIES, Launcher, Setup

from search.replay import replay
from search.testing_supervision import until
from storage import Store, StoreError

PROGRAM = [sys.executable, "-c", "from search.cli import main; main()"]
KILLS = 8
TRIALS = 60
# None: naslite's own number, where each trial loses at most one worker.
QUICK = [("random", 1, MANY), ("genetic", 3, None)]
MATRIX = [
    (strategy, workers, attempts)
    for strategy in STRATEGIES
    for workers, attempts in ((1, None), (3, MANY))
]

FORGETFUL = """
from strategies.random_search import RandomSearch

class Forgetful:
    '''Counts its proposals where nobody stores them.'''

    def __init__(self):
        self.proposals = 0
        self.random = RandomSearch()

    def propose(self, view, number, rng):
        self.proposals += 1
        rng.bit_generator.advance(self.proposals)
        return self.random.propose(view, number, rng)
"""


@pytest.fixture(scope="module")
def launcher():
    with Launcher() as launcher:
        yield launcher


@pytest.fixture
def folder():
    with memory_folder() as folder:
        yield folder


def setups(folder: Path, strategy: str, workers: int, **changes) -> tuple[Setup, Setup]:
    """The same study twice."""
    found = []
    for name in ("untouched", "killed"):
        (folder / name).mkdir()
        found.append(Setup(str(folder / name), strategy, workers, **changes))
    return found[0], found[1]


def attacked(launcher: Launcher, setups: tuple[Setup, Setup], kills: int = KILLS) -> Report:
    quiet, killed = setups
    wanted = untouched(launcher, quiet)
    states = Counter(trial.state for trial in wanted.trials)
    assert len(wanted.trials) == TRIALS + 1
    assert states["complete"] > TRIALS / 2  # and others that end otherwise
    assert states["failed"] + states["refused"] >= 2
    report = attack(launcher, killed, wanted, kills, random.Random(killed.strategy))
    assert report.differences == []
    assert (report.redone, report.stuck) == (0, 0)
    assert report.kills >= kills - 2  # a study may end a moment before the last ones
    assert report.worker_kills >= 1
    return report


@pytest.mark.parametrize(("strategy", "workers", "attempts"), QUICK)
def test_a_killed_study_ends_as_if_nobody_had_killed_it(
    launcher, folder, strategy, workers, attempts
):
    attacked(launcher, setups(folder, strategy, workers, attempts=attempts))


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "workers", "attempts"), MATRIX)
def test_so_does_one_of_every_strategy(launcher, folder, strategy, workers, attempts):
    attacked(launcher, setups(folder, strategy, workers, attempts=attempts))


@needs_postgres
@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_so_does_one_on_a_server(launcher, folder, workers):
    with own_postgres() as quiet, own_postgres() as killed:
        first, second = setups(folder, "random", workers)
        attacked(launcher, (replace(first, url=quiet), replace(second, url=killed)))


def test_a_strategy_that_keeps_what_is_not_stored_is_found_out(launcher, folder):
    """The attack does find differences."""
    (folder / "forgetful.py").write_text(FORGETFUL)
    strategy = f"{folder / 'forgetful.py'}:Forgetful"
    quiet, killed = setups(folder, strategy, 1, trials=12)
    report = attack(launcher, killed, untouched(launcher, quiet), 6, random.Random(0))
    assert any("proposed" in difference for difference in report.differences)


@pytest.mark.slow
def test_the_long_run_counts_kills_and_differences(tmp_path):
    (tmp_path / "forgetful.py").write_text(FORGETFUL)
    script = REPOSITORY / "benchmarks" / "kill.py"
    shared = ["--workers", "1", "--trials", "12", "--out", str(tmp_path / "out")]
    run = partial(subprocess.run, capture_output=True, text=True)
    same = run([sys.executable, script, "--kills", "3", "--strategy", "random", *shared])
    assert same.returncode == 0, same.stderr
    assert same.stdout.endswith("3 kills, 0 differences\n")
    assert list((tmp_path / "out").iterdir()) == []

    strategy = f"{tmp_path / 'forgetful.py'}:Forgetful"
    other = run([sys.executable, script, "--kills", "6", "--strategy", strategy, *shared])
    assert other.returncode == 1, other.stderr
    kept = re.search(r"kept: sqlite:///(\S+) and, untouched, sqlite:///(\S+);", other.stdout)
    assert kept is not None
    assert all(Path(path).is_file() for path in kept.groups())


@pytest.mark.slow
def test_the_command_itself_with_a_model(workspace, finished):
    """Real processes from their first line on, torch, stages that are cached."""
    config = workspace.config()
    command = [*PROGRAM, "run", str(config), "--store", workspace.store]
    rng = random.Random(0)
    for number in range(1, 5):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        kill_later(process, partial(ended, workspace), number, rng.uniform(0.0, 1.0))
        if ended(workspace):
            command = [*PROGRAM, "resume", "toy", "--store", workspace.store]
    subprocess.run(command, check=True, capture_output=True)
    trials, untouched_ones = (
        [(*row, trial.memo) for trial, row in zip(found, table(found), strict=True)]
        for found in (stored(workspace), stored(finished))
    )
    assert trials == untouched_ones
    assert len(trials) == 7
    assert replay("toy", store=workspace.store).differences == ()


def kill_later(process, count, number, delay_s):
    """Kill a process so many seconds after a count has come to a number."""
    until(lambda: process.poll() is not None or count() >= number)
    time.sleep(delay_s)
    assert process.poll() is None, f"it ended by itself with {count()}"
    process.kill()
    process.wait()


def stored(workspace):
    with closing(Store(workspace.store, create=False)) as store:
        return store.trials(store.study("toy"))


def ended(workspace):
    """How many trials have ended, as far as there is a study."""
    try:
        return sum(trial.finished_at is not None for trial in stored(workspace))
    except StoreError:
        return 0
