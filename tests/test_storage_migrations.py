"""Upgrading: whole or not at all, on databases that earlier versions wrote."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conftest import ASSETS, REPOSITORY
from databases import OLD, copy_old, dump, needs_postgres, own_postgres, rows, structure
from sqlalchemy import Connection, Engine, MetaData, create_engine, event

from storage import ForeignDatabase, NoStore, Store, StoreError, StudyBusy
from storage.database import parse_url
from storage.lease import new_owner
from storage.schema import SCHEMA_VERSION, metadata
from storage.testing import dead_owner, new_study
from storage.testing_events import passing_fault
from storage.upgrading import Upgrade, upgrade

BEFORE = [path for path in OLD if path.stem != f"schema_{SCHEMA_VERSION}"]
databases = pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgres", marks=needs_postgres)]
)


@pytest.fixture
def old(database: str, tmp_path: Path) -> Iterator[str]:
    """A database of the first schema."""
    if database == "sqlite":
        yield copy_old(ASSETS / "schema_1.db", tmp_path)
        return
    with own_postgres() as url:
        make_first_schema(url)
        copy_rows(copy_old(ASSETS / "schema_1.db", tmp_path), url)
        yield url


def make_first_schema(url: str) -> None:
    """What Alembic's first revision makes: an empty database of the first schema."""
    from alembic import command
    from alembic.config import Config

    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(REPOSITORY / "storage" / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "1")
        connection.exec_driver_sql("DROP TABLE alembic_version")  # nobody wrote it then
    engine.dispose()


def copy_rows(source: str, target: str) -> None:
    """The rows of one database in the tables of another, which are typed by it."""
    engine, tables = create_engine(parse_url(target)), MetaData()
    tables.reflect(engine)
    content = rows(source)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            for row in content[table.name]:
                values = {
                    column.name: bool(row[column.name])
                    if str(column.type) == "BOOLEAN"
                    else row[column.name]
                    for column in table.columns
                }
                connection.execute(table.insert().values(values))
    engine.dispose()


def only(columns_of: dict, content: dict) -> dict:
    """The content in the tables and columns of another content."""
    names = {table: list(lines[0]) for table, lines in columns_of.items() if lines}
    return {
        table: [{name: row[name] for name in kept} for row in content[table]]
        for table, kept in names.items()
    }


# What an upgrade makes


def test_there_is_a_database_of_each_schema():
    assert [path.name for path in OLD] == [
        f"schema_{version}.db" for version in range(1, SCHEMA_VERSION + 1)
    ]
    for version, path in enumerate(OLD, 1):
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
            assert connection.execute("SELECT version FROM naslite_schema").fetchall() == [
                (version,)
            ]
            for table in ("trials", "measurements", "stages", "artifacts"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= 7


@databases
def test_an_upgraded_database_is_like_a_new_one(old):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    upgrade(old)
    engine = create_engine(parse_url(old))
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"compare_type": True, "compare_server_default": True},
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@databases
def test_the_comparison_sees_a_difference(old):
    """The test above can fail: the first schema is not like a new one."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = create_engine(parse_url(old))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert len(compare_metadata(context, metadata)) > 8
    engine.dispose()


@databases
def test_an_upgrade_keeps_every_value(old):
    before = rows(old)
    assert before["naslite_schema"] == [{"version": 1}]
    upgrade(old)
    after = rows(old)

    assert after.pop("naslite_schema") == [{"version": SCHEMA_VERSION}]
    assert after["alembic_version"] == [{"version_num": str(SCHEMA_VERSION)}]
    del before["naslite_schema"]
    assert only(before, after) == only(before, before)
    assert len(before["measurements"]) == 49


@databases
def test_an_upgrade_tells_who_chose_each_candidate(old):
    engine = create_engine(parse_url(old))
    with engine.begin() as connection:
        for study_id, name, config in (
            (2, "t", '{"enqueue": [{"a": 1}, {"a": 2}]}'),
            (3, "u", '{"enqueue": []}'),
        ):
            connection.exec_driver_sql(
                "INSERT INTO studies SELECT"
                f" {study_id}, '{name}', state, cause, '{config}', space, task_fingerprint, seed,"
                " trials, minutes, facts, memo, seconds, owner, lease_until, created_at,"
                " updated_at FROM studies WHERE id = 1"
            )
            connection.exec_driver_sql(
                f"INSERT INTO trials SELECT {study_id}, number, state, candidate, candidate_key,"
                " memo, attempt, cause, artifact, seconds, reused_from, created_at, finished_at"
                " FROM trials WHERE study_id = 1 AND number < 4"
            )
    engine.dispose()
    upgrade(old)
    store = Store(old, create=False)

    assert [[t.origin for t in store.trials(store.study(name))] for name in "stu"] == [
        ["baseline"] + 6 * ["strategy"],
        ["baseline", "enqueued", "enqueued", "strategy"],
        ["baseline", "strategy", "strategy", "strategy"],
    ]
    store.close()


def test_what_is_up_to_date_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'naslite.db'}"
    Store(url).close()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert upgrade(url) == Upgrade(SCHEMA_VERSION, SCHEMA_VERSION)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Before an upgrade


@pytest.mark.parametrize("asset", BEFORE, ids=lambda path: path.name)
def test_a_copy_of_the_file_is_kept(asset, tmp_path):
    url = copy_old(asset, tmp_path)
    copies = [tmp_path / f"naslite.db.{asset.stem.replace('_', '-')}{n}.bak" for n in ("", ".1")]
    before = dump(tmp_path / "naslite.db")
    done = upgrade(url)

    assert done.copy == copies[0]
    assert dump(copies[0]) == before
    kept = copies[0].read_bytes()
    copy_old(asset, tmp_path)
    assert upgrade(url).copy == copies[1]
    assert copies[0].read_bytes() == kept


@databases
def test_an_old_database_is_not_opened_but_named(old, tmp_path):
    before, tables = rows(old), structure(old)
    for create in (True, False):
        with pytest.raises(ForeignDatabase, match="naslite db upgrade --store ") as caught:
            Store(old, create=create)
    assert f"schema 1, this one needs {SCHEMA_VERSION}" in str(caught.value)
    assert (rows(old), structure(old)) == (before, tables)


@databases
def test_a_store_with_a_live_study_is_not_upgraded(old):
    set_owner(old, new_owner())
    before, tables = rows(old), structure(old)
    with pytest.raises(StudyBusy, match=rf"'s' is being run by process {os.getpid()} on "):
        upgrade(old)
    assert (rows(old), structure(old)) == (before, tables)


def test_no_copy_is_made_of_what_is_not_upgraded(tmp_path):
    url = copy_old(ASSETS / "schema_1.db", tmp_path)
    set_owner(url, new_owner())
    with pytest.raises(StudyBusy):
        upgrade(url)
    assert [path.name for path in tmp_path.iterdir()] == ["naslite.db"]


@databases
def test_an_upgrade_takes_studies_from_controllers_that_are_gone(old):
    owner = dead_owner()
    set_owner(old, owner)
    upgrade(old)
    store = Store(old, create=False)
    study = store.study("s")

    assert (study.owner, study.state) == ("", "interrupted")
    with pytest.raises(StudyBusy):
        store.renew(study, owner)
    store.close()


def set_owner(url: str, owner: str) -> None:
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE studies SET owner = '{owner}', state = 'running', lease_until = 9e9"
        )
    engine.dispose()


def test_broken_references_stop_an_upgrade(tmp_path):
    url = copy_old(ASSETS / "schema_1.db", tmp_path)
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as connection, connection:
        connection.execute("DELETE FROM trials WHERE number = 3")
    before = dump(tmp_path / "naslite.db")
    with pytest.raises(StoreError, match=r"whose study or trial is gone \(8, the first"):
        upgrade(url)
    assert dump(tmp_path / "naslite.db") == before
    assert [path.name for path in tmp_path.iterdir()] == ["naslite.db"]


def test_without_room_for_the_copy_nothing_is_upgraded(tmp_path):
    url = copy_old(ASSETS / "schema_1.db", tmp_path)
    before = dump(tmp_path / "naslite.db")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))  # no file grows beyond
    try:
        with pytest.raises(
            StoreError, match=r"cannot copy .*naslite\.db to .*schema-1\.bak before"
        ):
            upgrade(url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert dump(tmp_path / "naslite.db") == before
    assert not list(tmp_path.glob("*.bak*"))


@pytest.mark.parametrize("changed", [False, True], ids=["unchanged", "changed"])
def test_a_commit_that_fails_for_a_while_leaves_one_copy(changed, tmp_path, monkeypatch):
    monkeypatch.setattr("storage.retrying.FIRST_WAIT_S", 0.005)
    url, copies = copy_old(ASSETS / "schema_1.db", tmp_path), []
    backup = Backups(monkeypatch)

    def fail(connection: Connection) -> None:
        copies.append(sorted(path.name for path in tmp_path.glob("*.bak")))
        if len(copies) < 4:
            raise passing_fault()

    def change(connection: Connection, cursor: object, statement: str, *_: object) -> None:
        if changed and statement == "BEGIN IMMEDIATE" and len(copies) == 2:
            with closing(sqlite3.connect(tmp_path / "naslite.db")) as other, other:
                other.execute("UPDATE studies SET cause = 'changed'")

    with listening("commit", fail), listening("before_cursor_execute", change):
        done = upgrade(url)
    assert (done.before, done.after) == (1, SCHEMA_VERSION)
    assert done.copy == tmp_path / "naslite.db.schema-1.bak"
    assert copies == 4 * [[done.copy.name]]
    assert backup.count == (2 if changed else 1)
    with closing(sqlite3.connect(done.copy)) as copy:
        (cause,) = copy.execute("SELECT cause FROM studies").fetchone()
    assert (cause == "changed") == changed


def test_a_commit_that_fails_for_good_leaves_no_copy(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.retrying.FIRST_WAIT_S", 0.005)
    url = copy_old(ASSETS / "schema_1.db", tmp_path)
    before = dump(tmp_path / "naslite.db")

    def fail(connection: Connection) -> None:
        raise passing_fault()

    with listening("commit", fail), pytest.raises(StoreError, match="disk I/O error"):
        upgrade(url, retry_s=0.1)
    assert dump(tmp_path / "naslite.db") == before
    assert not list(tmp_path.glob("*.bak*"))


@contextmanager
def listening(name: str, called: Callable[..., None]) -> Iterator[None]:
    event.listen(Engine, name, called)
    try:
        yield
    finally:
        event.remove(Engine, name, called)


class Backups:
    """Counts the copies that SQLite makes; each reads the whole file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        counter = self

        class Counting(sqlite3.Connection):
            def backup(self, *arguments, **options) -> None:
                counter.count += 1
                super().backup(*arguments, **options)

        connect = sqlite3.connect
        monkeypatch.setattr(
            sqlite3, "connect", lambda *a, **given: connect(*a, **{"factory": Counting, **given})
        )


def test_what_is_no_store_is_not_upgraded(tmp_path):
    with pytest.raises(NoStore):
        upgrade(f"sqlite:///{tmp_path}/gone.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(NoStore):
        upgrade(f"sqlite:///{tmp_path}/empty.db")
    (tmp_path / "text.db").write_text("not a database at all" * 100)
    with pytest.raises(ForeignDatabase):
        upgrade(f"sqlite:///{tmp_path}/text.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db", "text.db"]


def test_a_newer_database_is_not_upgraded(tmp_path):
    url = copy_old(ASSETS / "schema_1.db", tmp_path)
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as connection, connection:
        connection.execute("UPDATE naslite_schema SET version = 99")
    before = (tmp_path / "naslite.db").read_bytes()
    with pytest.raises(ForeignDatabase, match="newer naslite"):
        upgrade(url)
    assert (tmp_path / "naslite.db").read_bytes() == before


# Killed in the middle

KILLED = """
import itertools, os, signal, sys
from sqlalchemy import Engine, event
from storage.upgrading import upgrade

url, last = sys.argv[1], int(sys.argv[2])
numbers = itertools.count(1)

@event.listens_for(Engine, "before_cursor_execute")
def before(*_):
    if next(numbers) == last:
        os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(Engine, "commit")
def commit(connection):
    if last == 0:
        os.kill(os.getpid(), signal.SIGKILL)

upgrade(url)
print(next(numbers) - 1)
"""


def upgrade_until(url: str, last: int) -> subprocess.CompletedProcess[str]:
    """Upgrade in a process that kills itself before its statement number `last`; 0 = before
    its commit, -1 = never."""
    return subprocess.run(
        [sys.executable, "-c", KILLED, url, str(last)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@databases
def test_an_upgrade_that_is_killed_leaves_the_old_schema(old):
    before, tables = rows(old), structure(old)
    for last in (0, 8, 12, 20):
        ended = upgrade_until(old, last)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        assert (rows(old), structure(old)) == (before, tables), last
    assert upgrade(old).after == SCHEMA_VERSION


@pytest.mark.slow
@databases
def test_an_upgrade_can_be_killed_before_any_statement(old):
    before, tables = rows(old), structure(old)
    last = 1
    while (ended := upgrade_until(old, last)).returncode == -signal.SIGKILL:
        assert (rows(old), structure(old)) == (before, tables), last
        last += 1
    assert ended.returncode == 0, ended.stderr
    assert last > 25
    assert rows(old)["naslite_schema"] == [{"version": SCHEMA_VERSION}]


# What opening costs


def test_opening_does_not_load_alembic(tmp_path):
    code = (
        "import sys, storage; storage.Store('sqlite:///a.db'); sys.exit('alembic' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment).returncode == 0
    )


def test_a_new_study_in_an_upgraded_store_is_like_any(tmp_path):
    url = copy_old(ASSETS / "schema_1.db", tmp_path)
    upgrade(url)
    store = Store(url)
    made = store.create_study(new_study("t"), new_owner())
    assert store.study("t") == made
    assert [s.study.name for s in store.studies()] == ["s", "t"]
    store.close()
