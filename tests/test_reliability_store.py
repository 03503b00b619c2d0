"""Whole studies whose store has real faults: locked, restarted, cut off, without a disk.

Each runs as a user runs it, with its controller, its lease and its workers in processes of their
own, and comes to what the same study comes to without a fault.
"""

from __future__ import annotations

import os
import random
import re
import resource
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from databases import needs_postgres, own_postgres
from doubles import as_searched, memory_folder, table
from kill_attack import DEADLINE_S, Attacked, Untouched, untouched
from kill_bench import notes
from kill_study import ENDED, LOG, OUTPUT, Launcher, Session, Setup
from servers import private_server
from sqlalchemy import create_engine, text

from search.testing_supervision import until
from storage import Store, StoreError
from storage.database import parse_url

TRIALS = 30
AGAIN = "; trying again for up to"
ROOM = 32_000  # bytes of a file: enough for what a session prints, and long used by a database
SAFE = "all that was stored before is safe: `naslite resume NAME` goes on once the store works"
GAVE_UP = re.compile(rf"failed for \d+(\.\d+)? s: disk I/O error; {SAFE}")

# `naslite`, but for how long it waits.
IMPATIENT = """
from storage.reading import StoreReader
StoreReader.__init__.__kwdefaults__["retry_s"] = 1.0
from search.cli import main
main()
"""


@pytest.fixture(scope="module")
def patient() -> Iterator[Launcher]:
    """Sessions that wait as long as a user's do."""
    with Launcher() as launcher:
        yield launcher


@pytest.fixture(scope="module")
def quick() -> Iterator[Launcher]:
    """Sessions that see a lock at once, and wait for a fault to pass as long as a user's do."""
    with Launcher(busy_s=0.02) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def impatient() -> Iterator[Launcher]:
    """Sessions that give up soon."""
    with Launcher(busy_s=0.02, retry_s=1.0) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def quiet(patient: Launcher) -> Iterator[Callable[[int], tuple[Setup, Untouched]]]:
    """The study that meets no fault, by its number of workers, run once."""
    found: dict[int, tuple[Setup, Untouched]] = {}

    with memory_folder() as folder:

        def get(workers: int) -> tuple[Setup, Untouched]:
            if workers not in found:
                setup = new(folder / str(workers), workers)
                found[workers] = setup, untouched(patient, setup)
            return found[workers]

        yield get


@pytest.fixture
def folder() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def new(folder: Path, workers: int, url: str = "") -> Setup:
    folder.mkdir(exist_ok=True)
    return Setup(str(folder), "genetic", workers, TRIALS, url=url, attempts=None)


def ended(setup: Setup) -> int:
    """How many trials have ended, by all sessions; asks no database."""
    path = setup.path(ENDED)
    return path.stat().st_size if path.exists() else 0


def printed(setup: Setup) -> str:
    return setup.path(OUTPUT).read_text()


def begun(launcher: Launcher, setup: Setup, trials: int = TRIALS // 3) -> Session:
    """A session in the midst of its study."""
    session = launcher.start(setup)
    until(lambda: ended(setup) >= trials or session.wait(0.0))
    assert session.code is None, printed(setup)
    return session


def ends_as(attacked: Attacked, quiet: Setup) -> None:
    """Let a study come to its end, if need be by another session, and compare all there is:
    each trial once and begun once, with the same outcome, and nothing built or scored twice."""
    sessions = attacked.report.kills
    attacked.come_to_an_end()
    assert attacked.report.differences == []
    trials = attacked.setup.stored()[1]
    assert [trial.number for trial in trials] == list(range(TRIALS + 1))
    assert {trial.deaths for trial in trials} == {0}
    if sessions == 0:
        assert {trial.attempt for trial in trials} == {1}
        assert done(attacked.setup) == done(quiet)


def done(setup: Setup) -> Counter[tuple[str, ...]]:
    """How often what was built and scored.

    With workers side by side, of those that give the same bytes one or more are scored.
    """
    lines = [tuple(line) for line in notes(setup.path(LOG))[0]]
    return Counter(line for line in lines if setup.workers == 1 or line[0] == "build")


def without_interval(trial):
    """Without that of the ratio of times, which timing the front again may stretch."""
    found = [
        replace(m, low=None, high=None, noisy=False) if m.metric == "latency_ratio" else m
        for m in trial.measurements
    ]
    return replace(trial, measurements=tuple(found))


# SQLite


def locked(setup: Setup, session: Session, hold_s: float) -> None:
    """Lock the database for so long, at least until the session has noticed."""
    with closing(sqlite3.connect(Path(setup.folder) / "naslite.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        until(lambda: AGAIN in printed(setup) or session.wait(0.0))
        session.wait(max(0.0, began + hold_s - time.monotonic()))
        assert session.code is None, printed(setup)
        before = ended(setup)
        assert not session.wait(0.1)
        assert ended(setup) == before  # it stands still
        other.rollback()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_study_goes_on_once_its_database_is_unlocked(quick, quiet, folder, workers):
    same, wanted = quiet(workers)
    setup = new(folder, workers)
    attacked = Attacked(quick, setup, wanted)
    attacked.session = begun(quick, setup)
    locked(setup, attacked.session, 1.0)
    ends_as(attacked, same)
    assert "database is locked; trying again for up to 60 s" in printed(setup)


@pytest.mark.slow
def test_a_database_that_is_locked_for_twenty_seconds_costs_no_trial(patient, quiet, folder):
    """With the waits of a user's study; the lease is renewed late, too."""
    same, wanted = quiet(3)
    setup = new(folder, 3)
    attacked = Attacked(patient, setup, wanted)
    attacked.session = begun(patient, setup)
    locked(setup, attacked.session, 20.0)
    ends_as(attacked, same)


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """Let no file that a process writes grow; its workers have disks of their own."""
    kept = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM, kept[1]))
    try:
        yield
    finally:
        if psutil.pid_exists(pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, kept)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_study_goes_on_once_its_disk_has_room(quick, quiet, folder, workers):
    same, wanted = quiet(workers)
    setup = new(folder, workers)
    attacked = Attacked(quick, setup, wanted)
    attacked.session = session = begun(quick, setup)
    with full_disk(session.pid):
        until(lambda: AGAIN in printed(setup) or session.wait(0.0))
        assert not session.wait(0.5), printed(setup)
    ends_as(attacked, same)
    assert "disk I/O error; trying again for up to 60 s" in printed(setup)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_disk_that_stays_full_stops_the_study_and_costs_no_trial(
    impatient, quiet, folder, workers
):
    same, wanted = quiet(workers)
    setup = new(folder, workers)
    attacked = Attacked(impatient, setup, wanted)
    session = begun(impatient, setup)
    with full_disk(session.pid):
        assert session.wait(DEADLINE_S), printed(setup)
    assert session.code == 1
    assert GAVE_UP.search(printed(setup).splitlines()[-1])
    attacked.look()
    assert TRIALS // 3 <= len(attacked.ended) <= TRIALS
    attacked.report.kills = 1  # what ran then is begun a second time
    ends_as(attacked, same)


@pytest.mark.slow
def test_the_command_says_so_in_one_line_and_resumes(workspace, finished):
    config, resume = str(workspace.config()), [sys.executable, "-c", IMPATIENT, "resume", "toy"]
    process = subprocess.Popen(
        [*resume[:3], "run", config],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    until(lambda: process.poll() is not None or len(rows(workspace)) >= 3)
    with full_disk(process.pid):
        _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("naslite: ")]
    assert line == err.splitlines()[-1]
    assert GAVE_UP.search(line)
    assert "Traceback" not in err
    before = {trial.number: trial for trial in rows(workspace)}
    assert 3 <= len(before) < 7

    subprocess.run(resume, check=True, capture_output=True)
    trials = rows(workspace)
    assert table(trials) == table(rows(finished))
    for number, trial in before.items():
        assert without_interval(as_searched(trials[number])) == without_interval(trial)
    assert {trial.attempt for trial in trials} <= {1, 2}
    assert {trial.deaths for trial in trials} == {0}


def rows(workspace):
    """The trials that have ended, as far as there is a study."""
    try:
        with closing(Store(workspace.store, create=False)) as store:
            trials = store.trials(store.study("toy"))
    except StoreError:
        return []
    return [trial for trial in trials if trial.finished_at is not None]


# PostgreSQL


@needs_postgres
@pytest.mark.parametrize("workers", [1, 3])
def test_a_study_whose_connections_are_cut_again_and_again(quick, quiet, folder, workers):
    same, wanted = quiet(workers)
    rng, cuts = random.Random(0), 0
    with own_postgres() as url:
        setup = new(folder, workers, url)
        attacked = Attacked(quick, setup, wanted)
        attacked.session = session = begun(quick, setup, 1)
        engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
        ends = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with engine.connect() as operator:
            while not session.wait(rng.uniform(0.0, 0.1)):
                cuts += operator.execute(ends).scalar_one()
        engine.dispose()
        ends_as(attacked, same)
    assert cuts >= 10


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_study_goes_on_over_restarts_of_the_server(quick, quiet, folder, mode):
    same, wanted = quiet(3)
    with private_server() as server:
        setup = new(folder, 3, server.url)
        attacked = Attacked(quick, setup, wanted)
        attacked.session = session = begun(quick, setup, 5)
        for trials in (5, 15, 25):
            until(lambda trials=trials: ended(setup) >= trials or session.wait(0.0))
            assert session.code is None, printed(setup)
            server.stop(mode)
            assert not session.wait(0.5), printed(setup)
            server.start()
        ends_as(attacked, same)
    assert printed(setup).count(AGAIN) >= 3


@pytest.mark.slow
def test_a_server_that_stays_away_stops_the_study_and_costs_no_trial(impatient, quiet, folder):
    same, wanted = quiet(3)
    with private_server() as server:
        setup = new(folder, 3, server.url)
        attacked = Attacked(impatient, setup, wanted)
        session = begun(impatient, setup)
        server.stop()
        assert session.wait(DEADLINE_S), printed(setup)
        assert session.code == 1
        assert printed(setup).splitlines()[-1].endswith(SAFE)
        server.start()
        attacked.look()
        attacked.report.kills = 1
        ends_as(attacked, same)
