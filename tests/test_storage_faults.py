"""Real faults of databases: locked, full, cut off, restarted. They are waited for, and no event
is done twice."""

from __future__ import annotations

import resource
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import needs_postgres, own_postgres
from servers import CommitCutter, private_server
from sqlalchemy import create_engine, event, func, literal, make_url, select, text, union_all

from storage import Outcome, Store, StoreError, queries
from storage.database import parse_url
from storage.lease import new_owner
from storage.retrying import HURRIED_S
from storage.testing import new_study, propose
from storage.testing_events import script, seen, undisturbed

MESSAGE = r"failed for [\d.]+ s: .*; all that was stored before is safe: `naslite resume NAME`"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.retrying.FIRST_WAIT_S", 0.005)
    monkeypatch.setattr("storage.retrying.LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr("storage.database.BUSY_TIMEOUT_S", 0.02)


@pytest.fixture
def expected(tmp_path: Path) -> dict:
    (tmp_path / "undisturbed").mkdir()
    return undisturbed(tmp_path / "undisturbed")


# SQLite


def sqlite_store(folder: Path, *, retry_s: float = 60.0) -> Store:
    return Store(f"sqlite:///{folder / 'naslite.db'}", retry_s=retry_s)


def test_a_locked_database_is_waited_for(tmp_path, caplog):
    store, owner = sqlite_store(tmp_path), new_owner()
    study = store.create_study(new_study("s"), owner)
    with closing(sqlite3.connect(tmp_path / "naslite.db", check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        unlock = threading.Timer(0.5, other.rollback)
        unlock.start()
        propose(store, study, owner, 1)
        waited = time.monotonic() - began
        unlock.join()
    assert 0.45 < waited < 10
    assert [t.number for t in store.trials(study)] == [1]
    (record,) = caplog.records
    assert record.message.endswith(": database is locked; trying again for up to 60 s")
    store.close()


def test_a_database_that_stays_locked_stops_the_write(tmp_path):
    store, owner = sqlite_store(tmp_path, retry_s=0.2), new_owner()
    study = store.create_study(new_study("s"), owner)
    before = seen(store)
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=MESSAGE):
            propose(store, study, owner, 1)
        assert seen(store) == before  # reading needs no lock
    propose(store, study, owner, 1)
    store.close()


def test_a_commit_that_meets_a_lock_is_waited_for(tmp_path, caplog):
    """Without a WAL, as in a file that somebody converted, readers keep writers from it."""
    store, owner = sqlite_store(tmp_path), new_owner()
    study = store.create_study(new_study("s"), owner)
    store._transactions.engine.dispose()
    with closing(sqlite3.connect(tmp_path / "naslite.db", check_same_thread=False)) as reader:
        assert reader.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM studies").fetchall()
        ends = threading.Timer(0.3, reader.rollback)
        ends.start()
        propose(store, study, owner, 1)
        ends.join()
    assert "database is locked; trying again" in caplog.text
    assert [trial.number for trial in store.trials(study)] == [1]
    store.close()


@pytest.mark.parametrize("told_by", ["thread", "signal", "before"])
def test_who_is_told_to_hurry_gives_up_soon(told_by, tmp_path, monkeypatch):
    """A signal is handled in the very thread that waits."""
    if told_by == "before":  # nor does SQLite wait long by itself then
        monkeypatch.setattr("storage.database.BUSY_TIMEOUT_S", 5.0)
    store, owner = sqlite_store(tmp_path), new_owner()
    study = store.create_study(new_study("s"), owner)
    if told_by == "before":
        store.hurry()
    before = seen(store)
    ticks = threading.Timer(0.5, store.hurry)
    handled = signal.signal(signal.SIGALRM, lambda *_: store.hurry())
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        if told_by == "thread":
            ticks.start()
        elif told_by == "signal":
            signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            with pytest.raises(StoreError, match=MESSAGE):
                propose(store, study, owner, 1)
        finally:
            signal.signal(signal.SIGALRM, handled)
        assert HURRIED_S <= time.monotonic() - began < HURRIED_S + 2
        began = time.monotonic()
        with pytest.raises(StoreError, match=MESSAGE):
            store.release(study, owner, "interrupted")
        assert time.monotonic() - began < HURRIED_S + 2
    assert seen(store) == before
    propose(store, study, owner, 1)
    store.close()


def test_reading_waits_too(tmp_path, caplog):
    store = sqlite_store(tmp_path)
    store.create_study(new_study("s"), new_owner())
    store._transactions.engine.dispose()  # an open connection would keep others from this lock
    other = sqlite3.connect(tmp_path / "naslite.db", check_same_thread=False)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    unlock = threading.Timer(0.3, other.close)
    unlock.start()
    assert store.has_study("s")
    unlock.join()
    assert len(caplog.records) == 1
    store.close()


def test_a_full_disk_is_waited_for(tmp_path, expected, caplog):
    """The disk is full at the first two attempts of each event that needs a new page."""
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as connection:
        connection.execute("PRAGMA page_size=512")  # so that new ones are needed often
        connection.execute("VACUUM")
    store, attempts = sqlite_store(tmp_path), 0

    @event.listens_for(store._transactions.engine, "checkout")
    def limit(connection, *_):
        nonlocal attempts
        attempts += 1
        # SQLite keeps the pages that are there, and takes no more.
        connection.execute(f"PRAGMA max_page_count={1 if attempts <= 2 else 2**30}")

    for step in script(store, tmp_path):
        attempts = 0
        step()
        attempts = 3
    assert seen(store) == expected
    assert len(caplog.records) >= 3
    for record in caplog.records:
        assert "database or disk is full; trying again for up to 60 s" in record.message
    store.close()


def test_a_commit_that_cannot_be_written_is_waited_for(tmp_path, caplog):
    store, owner = sqlite_store(tmp_path), new_owner()
    study = store.create_study(new_study("s"), owner)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    attempts = []

    def limit(point: str) -> None:
        if point == "propose/commit":
            attempts.append(point)
            written = (tmp_path / "naslite.db-wal").stat().st_size
            # From here on no file of ours grows, but for the third attempt.
            soft = written if len(attempts) <= 2 else limits[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    store.faults = limit
    try:
        store.propose(study, owner, 1, {"knob": "x" * 100_000}, "key")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store.faults = None
    assert len(attempts) == 3
    (record,) = caplog.records
    assert ": disk I/O error; trying again" in record.message
    assert [t.number for t in store.trials(study)] == [1]
    store.close()


def test_a_disk_that_stays_full_stops_the_write(tmp_path):
    store, owner = sqlite_store(tmp_path, retry_s=0.2), new_owner()
    study = store.create_study(new_study("s"), owner)
    propose(store, study, owner, 1)
    before = seen(store)
    large = {"knob": "x" * 100_000}
    with store._transactions.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1")
    with pytest.raises(StoreError, match=MESSAGE.replace(": .*;", ": database or disk is full;")):
        store.propose(study, owner, 2, large, "key")
    assert seen(store) == before
    with store._transactions.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count={2**30}")
    store.propose(study, owner, 2, large, "key")
    assert store.trials(study)[1].candidate == large
    store.close()


# PostgreSQL


@pytest.fixture
def postgres() -> Iterator[str]:
    with own_postgres() as url:
        yield url


@pytest.fixture
def end_connections(postgres: str) -> Iterator[Callable[[], None]]:
    """Ends all other connections to the database, as an administrator would."""
    engine = create_engine(parse_url(postgres), isolation_level="AUTOCOMMIT")
    ends = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        yield lambda: connection.execute(ends)
    engine.dispose()


@needs_postgres
def test_a_connection_may_end_before_any_statement(
    postgres, end_connections, tmp_path, expected, caplog
):
    store = Store(postgres, files=tmp_path / "files")
    ended = set()

    def end_once(point: str) -> None:
        if point not in ended and not point.endswith("/committed"):
            ended.add(point)
            end_connections()

    for step in script(store, tmp_path):
        store.faults = end_once
        step()
        store.faults = None
    assert seen(store) == expected
    assert len(ended) > 40
    assert len(caplog.records) >= 12
    store.close()


@needs_postgres
def test_a_connection_may_end_while_reading(postgres, end_connections, tmp_path, caplog):
    store, owner = Store(postgres, files=tmp_path / "files"), new_owner()
    study = store.create_study(new_study("s"), owner)
    propose(store, study, owner, 1)
    before = store.trials(study)
    seen_statements = 0

    @event.listens_for(store._transactions.engine, "before_cursor_execute")
    def end_at_second(*_):
        nonlocal seen_statements
        seen_statements += 1
        if seen_statements == 2:
            end_connections()

    assert store.trials(study) == before
    assert seen_statements > 3
    assert len(caplog.records) == 1
    store.close()


@needs_postgres
@pytest.mark.parametrize("answered", [True, False], ids=["committed", "not committed"])
def test_the_line_may_be_cut_at_any_commit(postgres, answered, tmp_path, expected):
    """The client cannot know whether the server committed; both happen."""
    target = make_url(postgres)
    cutter = CommitCutter(target.host or "localhost", target.port or 5432, answered=answered)
    url = target.set(host="127.0.0.1", port=cutter.port).render_as_string(hide_password=False)
    store = Store(url, files=tmp_path / "files")
    steps = 0
    for step in script(store, tmp_path):
        cutter.armed = True
        step()
        assert not cutter.armed
        steps += 1
    assert seen(store) == expected
    assert cutter.cuts == steps > 15
    store.close()
    cutter.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_study_goes_on_over_a_restart_of_the_server(mode, tmp_path, caplog):
    with private_server() as server:
        store, owner = Store(server.url, files=tmp_path / "files"), new_owner()
        study = store.create_study(new_study("s"), owner)
        reached = threading.Event()

        def restart() -> None:
            reached.wait()
            server.stop(mode)
            server.start()

        operator = threading.Thread(target=restart)
        operator.start()
        number = 0
        while number < 20 or operator.is_alive():
            propose(store, study, owner, number)
            store.finish(study, owner, number, Outcome("failed", "why", seconds=1.0))
            if number == 5:
                reached.set()
            number += 1
        operator.join()
        trials = store.trials(study)
        assert [t.number for t in trials] == list(range(number))
        assert {(t.state, t.attempt) for t in trials} == {("failed", 1)}
        assert store.study("s").seconds == number
        assert caplog.records
        store.close()


@pytest.mark.slow
def test_a_server_that_stays_away_stops_the_study(tmp_path):
    with private_server() as server:
        store, owner = Store(server.url, files=tmp_path / "files", retry_s=0.5), new_owner()
        study = store.create_study(new_study("s"), owner)
        server.stop()
        for use in (lambda: propose(store, study, owner, 1), lambda: store.trials(study)):
            with pytest.raises(StoreError, match=MESSAGE):
                use()
        server.start()
        assert store.trials(study) == []
        propose(store, study, owner, 1)
        store.close()


def test_a_fault_while_rows_are_fetched_is_the_stores(tmp_path):
    """SQLite computes row by row, so that a fault may come after the first ones."""
    store = Store(f"sqlite:///{tmp_path / 'a.db'}", retry_s=0.0)
    numbers = union_all(*(select(literal(n).label("n")) for n in (1, 2))).subquery()

    def work(connection):
        connection.connection.dbapi_connection.create_function("inverse", 1, lambda n: 1 / (n - 2))
        return queries._tuples(connection, select(func.inverse(numbers.c.n)))

    with closing(store), pytest.raises(StoreError, match="function raised exception"):
        store.read(work)
