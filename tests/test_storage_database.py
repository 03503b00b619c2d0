from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from databases import needs_postgres, own_postgres
from sqlalchemy import create_engine

from storage import ForeignDatabase, NameTaken, NoStore, Store, StoreError, StudyBusy
from storage.database import parse_url
from storage.lease import new_owner
from storage.schema import SCHEMA_VERSION
from storage.store import check_new_study
from storage.testing import new_study

# The three ways to open a store; none may touch what is not ours.
OPENINGS: dict[str, Callable[[str], object]] = {
    "create": lambda url: Store(url),
    "read": lambda url: Store(url, create=False),
    "check": lambda url: check_new_study(url, "digits"),
}
opening = pytest.mark.parametrize("opening", OPENINGS)
writing = pytest.mark.parametrize("opening", ["create", "check"])


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: files with their bytes, folders with None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(opening: str, url: str, error: type[StoreError], message: str, folder: Path) -> str:
    """Check that a store cannot be opened, says so in one line and leaves the folder alone."""
    before = contents(folder)
    with pytest.raises(StoreError, match=message) as caught:
        OPENINGS[opening](url)

    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert contents(folder) == before
    return str(caught.value)


def make_store(path: Path, *names: str) -> str:
    url = f"sqlite:///{path}"
    with closing(Store(url)) as store:
        for name in names:
            store.create_study(new_study(name), new_owner())
    return url


def set_version(path: Path, version: int) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE naslite_schema SET version = ?", (version,))


# What is not ours


@opening
def test_a_foreign_database_is_left_alone(opening, tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in ("users", "orders", "items", "zebras"):
            connection.execute(f"CREATE TABLE {name} (id INTEGER)")

    refused(
        opening,
        f"sqlite:///{path}",
        ForeignDatabase,
        r"other\.db is not a naslite database \(it holds items, orders, users\);"
        " choose another path",
        tmp_path,
    )


@opening
def test_a_foreign_database_with_tables_named_like_ours_is_left_alone(opening, tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE studies (id INTEGER)")
        connection.execute("CREATE TABLE trials (id INTEGER)")

    refused(opening, f"sqlite:///{path}", ForeignDatabase, "holds studies, trials", tmp_path)


@opening
@pytest.mark.parametrize(
    "content", [b"study: digits\n" * 100, os.urandom(5000), b"SQLite format 3\0" + b"\1" * 5000]
)
def test_a_file_that_is_no_database_is_left_alone(opening, content, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)

    message = r"config\.yaml is not a naslite database \(file is not a database\)"
    refused(opening, f"sqlite:///{path}", ForeignDatabase, message, tmp_path)


@opening
@pytest.mark.parametrize(
    ("version", "message"),
    [
        (SCHEMA_VERSION + 1, "was written by a newer naslite .*; upgrade naslite or choose"),
        (
            SCHEMA_VERSION - 1,
            "was written by an older naslite .*; `naslite db upgrade --store sqlite:///",
        ),
    ],
)
def test_another_schema_version_is_left_alone(opening, version, message, tmp_path):
    url = make_store(tmp_path / "naslite.db", "digits")
    set_version(tmp_path / "naslite.db", version)

    said = refused(opening, url, ForeignDatabase, message, tmp_path)
    assert f"schema {version}" in said
    assert str(SCHEMA_VERSION) in said


@opening
def test_a_store_without_its_version_is_left_alone(opening, tmp_path):
    url = make_store(tmp_path / "naslite.db", "digits")
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as connection, connection:
        connection.execute("DELETE FROM naslite_schema")

    refused(opening, url, StoreError, r"cannot open the store .*naslite\.db", tmp_path)


# Where nothing can be


@opening
def test_a_folder_is_no_store(opening, tmp_path):
    (tmp_path / "studies").mkdir()

    message = r"the store must be a file, but .*/studies is a folder; name a file in it"
    refused(opening, f"sqlite:///{tmp_path}/studies", StoreError, message, tmp_path)


@writing
def test_a_missing_folder_is_not_made(opening, tmp_path):
    message = r"the store's folder .*/gone does not exist; make it or use --store"
    refused(opening, f"sqlite:///{tmp_path}/gone/naslite.db", StoreError, message, tmp_path)


@writing
def test_a_folder_that_takes_no_files_is_named(opening):
    message = r"the store's folder /proc cannot be written \(.*\); choose another with --store"
    with pytest.raises(StoreError, match=message):
        OPENINGS[opening]("sqlite:////proc/naslite.db")


def test_a_file_as_folder_is_named(tmp_path):
    (tmp_path / "file").touch()

    message = r"the store's folder .*/file does not exist"
    refused("create", f"sqlite:///{tmp_path}/file/naslite.db", StoreError, message, tmp_path)


# Addresses


@opening
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "the store must be a URL such as sqlite:///naslite.db, got ''"),
        ("naslite.db", "the store must be a URL such as sqlite:///naslite.db, got 'naslite.db'"),
        (
            "sqlite:naslite.db",
            "the store must be a URL such as sqlite:///naslite.db, got 'sqlite:",
        ),
        (
            "sqlite:/naslite.db",
            "the store must be a URL such as sqlite:///naslite.db, got 'sqlite",
        ),
        ("sqlite://naslite.db", "an SQLite URL has three slashes, sqlite:///naslite.db, got 'sq"),
        ("postgresql://host:port/db", "the store must be a URL such as sqlite:///naslite.db, got"),
        ("mysql://host/db", "the store must be one of sqlite, postgresql, got 'mysql' in 'mysql:"),
    ],
)
def test_an_address_that_cannot_be_a_store_is_refused(
    opening, url, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    refused(opening, url, StoreError, re.escape(message), tmp_path)


def test_a_password_is_not_shown():
    with pytest.raises(StoreError, match="got 'mysql'") as caught:
        parse_url("mysql://me:s3cret@host/db")

    assert "s3cret" not in str(caught.value)


@opening
def test_a_server_that_does_not_answer_is_named(opening, tmp_path):
    message = r"cannot open the store postgresql.*://me:\*\*\*@127\.0\.0\.1:1/db: .*"
    refused(opening, "postgresql://me:s3cret@127.0.0.1:1/db", StoreError, message, tmp_path)


@pytest.mark.parametrize(
    ("given", "driver"),
    [("sqlite:///a.db", "sqlite"), ("postgresql://host/db", "postgresql+psycopg")],
)
def test_an_address_gets_our_driver(given, driver):
    assert parse_url(given).drivername == driver


# Where nothing is yet


def test_reading_where_nothing_is_creates_nothing(tmp_path):
    message = r"no study is stored at .*naslite\.db; `naslite run CONFIG` starts one"
    refused("read", f"sqlite:///{tmp_path}/naslite.db", NoStore, message, tmp_path)
    refused("read", f"sqlite:///{tmp_path}/gone/naslite.db", NoStore, message, tmp_path)


def test_reading_an_empty_file_leaves_it_empty(tmp_path):
    (tmp_path / "naslite.db").touch()

    refused("read", f"sqlite:///{tmp_path}/naslite.db", NoStore, "no study is stored", tmp_path)


def test_reading_an_empty_database_in_memory_finds_no_store():
    with pytest.raises(NoStore):
        Store("sqlite://", create=False)


def test_an_empty_file_becomes_a_store(tmp_path):
    (tmp_path / "naslite.db").touch()
    url = make_store(tmp_path / "naslite.db", "digits")

    with closing(Store(url, create=False)) as store:
        assert store.has_study("digits")


def test_a_new_file_is_in_wal_mode(tmp_path):
    make_store(tmp_path / "naslite.db")

    with closing(sqlite3.connect(tmp_path / "naslite.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("SELECT version FROM naslite_schema").fetchall() == [
            (SCHEMA_VERSION,)
        ]


@pytest.mark.parametrize(("durability", "synchronous"), [("normal", 1), ("full", 2)])
def test_a_durable_store_waits_for_the_disk(durability, synchronous, tmp_path):
    with (
        closing(Store(f"sqlite:///{tmp_path / 'naslite.db'}", durability=durability)) as store,
        store._transactions.engine.connect() as connection,
    ):
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == synchronous


@needs_postgres
@pytest.mark.parametrize(("durability", "synchronous"), [("normal", "off"), ("full", "on")])
def test_a_durable_store_overrules_its_server(durability, synchronous, tmp_path):
    with own_postgres() as url:
        engine = create_engine(parse_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            name = parse_url(url).database
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
        engine.dispose()
        with (
            closing(Store(url, files=tmp_path, durability=durability)) as store,
            store._transactions.engine.connect() as connection,
        ):
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == synchronous


def test_opening_a_store_again_changes_no_byte(tmp_path):
    url = make_store(tmp_path / "naslite.db", "digits")
    before = contents(tmp_path)
    for create in (True, False):
        with closing(Store(url, create=create)) as store:
            assert store.has_study("digits")

    assert contents(tmp_path) == before
    assert list(before) == ["naslite.db"]


# Checking before a study is created


def test_a_check_of_a_new_store_creates_nothing(tmp_path):
    check_new_study(f"sqlite:///{tmp_path}/naslite.db", "digits")

    assert contents(tmp_path) == {}


def test_a_check_of_a_store_writes_nothing(tmp_path):
    url = make_store(tmp_path / "naslite.db", "digits")
    before = contents(tmp_path)
    check_new_study(url, "letters")

    assert contents(tmp_path) == before


def test_a_check_finds_that_a_name_is_taken(tmp_path):
    url = make_store(tmp_path / "naslite.db", "digits")

    refused("check", url, StudyBusy, r"study 'digits' is being run by process \d+ on", tmp_path)
    store = Store(url)
    study = store.study("digits")
    store.release(study, study.owner, "finished")
    store.close()
    message = "a study named 'digits' exists; continue it with `naslite resume digits`"
    refused("check", url, NameTaken, message, tmp_path)


def test_a_check_of_a_memory_store_passes():
    check_new_study("sqlite://", "digits")
