"""When SQLite's journal is written back: not after every commit, and not never."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

import storage.journal
from storage import Store, Study
from storage.lease import new_owner
from storage.testing import new_study

BIG = {"text": "x" * 50_000}
OWNER = new_owner()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(storage.journal, "LOOK_S", 0.0)
    monkeypatch.setattr(storage.journal, "LONG_BYTES", 500_000)
    monkeypatch.setattr(storage.journal, "TOO_LONG_BYTES", 2_000_000)
    return tmp_path / "naslite.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store(f"sqlite:///{path}")) as opened:
        yield opened


@pytest.fixture
def study(store: Store) -> Study:
    return store.create_study(new_study("s"), OWNER)


def fill(store: Store, study: Study, numbers: range) -> None:
    for number in numbers:
        store.propose(study, OWNER, number, {}, "key", memo=BIG)


def journal_bytes(path: Path) -> int:
    return path.with_name("naslite.db-wal").stat().st_size


def stored(path: Path) -> int:
    """Trials in the database file itself, whatever its journal holds."""
    copy = path.with_name("copy.db")
    copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone():
            return 0
        return int(connection.execute("SELECT count(*) FROM trials").fetchone()[0])


def test_a_long_journal_is_written_back_and_begins_anew(store, study, path):
    fill(store, study, range(60))
    assert journal_bytes(path) < 1_000_000  # of 3 MB that were written
    assert stored(path) > 40


def test_a_short_one_is_left_alone(store, study, path):
    fill(store, study, range(5))
    assert journal_bytes(path) > 250_000
    assert stored(path) == 0


def test_it_is_looked_at_once_in_a_while(store, study, path, monkeypatch):
    monkeypatch.setattr(storage.journal, "LOOK_S", 3600.0)
    fill(store, study, range(1))  # looks, and finds little
    fill(store, study, range(1, 41))
    assert journal_bytes(path) > 2_000_000
    assert stored(path) == 0


def test_only_one_that_is_too_long_waits_for_readers(store, study, path):
    seen: list[str] = []

    @event.listens_for(store._transactions.engine, "before_cursor_execute")
    def note(*arguments: object) -> None:
        statement = str(arguments[2])
        if "checkpoint" in statement:
            seen.append(statement)

    fill(store, study, range(5))
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM trials").fetchone()
        fill(store, study, range(5, 50))
    assert seen[0] == "PRAGMA wal_checkpoint(PASSIVE)"
    assert seen[-1] == "PRAGMA wal_checkpoint(RESTART)"


def test_a_reader_that_stays_delays_it_and_nothing_fails(store, study, path):
    fill(store, study, range(5))
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM trials").fetchone() == (5,)
        fill(store, study, range(5, 60))
        assert journal_bytes(path) > 2_000_000
        assert reader.execute("SELECT count(*) FROM trials").fetchone() == (5,)
    fill(store, study, range(60, 100))
    assert journal_bytes(path) < 1_000_000
    assert stored(path) > 60
    assert len(store.trials(study)) == 100
