"""Upgrading a database of an earlier schema, in one transaction."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, column, select, table, update

from .database import address, lock_schema, nothing_stored, opened, parse_url, stored_version
from .database import sqlite_file as file_of
from .errors import StoreError, StudyBusy
from .lease import holds
from .retrying import RETRY_S, trying
from .schema import SCHEMA_VERSION, schema_version
from .transactions import commit

# What the migrations begin with: columns that every schema has.
_studies = table("studies", *map(column, ("id", "name", "state", "cause", "owner", "lease_until")))


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What an upgrade did.

    Args:
        before: The schema that was found.
        after: The schema now; the same if there was nothing to do.
        copy: The copy of an SQLite file that was made first.
    """

    before: int
    after: int
    copy: Path | None = None


def upgrade(url: str, *, retry_s: float = RETRY_S) -> Upgrade:
    """Bring a database to this version's schema, all or nothing.

    A copy of an SQLite file stays beside it (`naslite.db.schema-1.bak`).

    Args:
        retry_s: Seconds for which a fault that may pass is waited for.

    Raises:
        StudyBusy: A controller runs a study of the store.
        NoStore, ForeignDatabase, StoreError
    """
    parsed = parse_url(url)
    with opened(parsed) as engine:
        before = stored_version(engine)
        if before is None:
            raise nothing_stored(parsed)
        if before == SCHEMA_VERSION:
            done = Upgrade(before, before)
        else:
            with _Copy(file_of(parsed), before) as copy:
                done = trying(
                    lambda: _upgrade(engine, copy), store=address(parsed), retry_s=retry_s
                )
                copy.keep = True
    engine.dispose()
    return done


class _Copy:
    """The copy of an SQLite file, made once however often an upgrade is tried; it is removed with
    the block unless it is to be kept.

    Args:
        source: None where there is nothing to copy.
        version: The schema.
    """

    def __init__(self, source: Path | None, version: int) -> None:
        self.source = source
        self.version = version
        self.path: Path | None = None
        self.keep = False
        self._connection: sqlite3.Connection | None = None
        self._state = 0  # of the file when it was copied

    def __enter__(self) -> _Copy:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        if self.path is not None and not self.keep:
            self.path.unlink(missing_ok=True)  # the database itself is still what it was

    def make(self) -> None:
        """Copy the file as it was committed, unless it has not changed since the last time.

        Raises:
            StoreError: It cannot be copied.
        """
        if self.source is None:
            return
        target = self.path or _free_name(self.source, self.version)
        try:
            if self._connection is None:
                # Another connection, which sees nothing of our transaction.
                self._connection = sqlite3.connect(self.source)
            (state,) = self._connection.execute("PRAGMA data_version").fetchone()
            if self.path is not None and state == self._state:
                return
            self.path, self._state = target, state
            with closing(sqlite3.connect(target)) as copy:
                self._connection.backup(copy)
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot copy {self.source} to {target} before its upgrade ({error}); it was left"
                " as it is"
            ) from None


def _free_name(path: Path, version: int) -> Path:
    names = (f".{n}" if n else "" for n in range(1000))
    return next(
        free
        for name in names
        if not (free := path.with_name(f"{path.name}.schema-{version}{name}.bak")).exists()
    )


def _upgrade(engine: Engine, copy: _Copy) -> Upgrade:
    with engine.connect() as connection:
        is_sqlite = engine.dialect.name == "sqlite"
        if is_sqlite:
            # Checked as a whole below; it cannot be switched inside of a transaction.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        lock_schema(connection)
        before = connection.execute(select(schema_version.c.version)).scalar_one()
        if before == SCHEMA_VERSION:  # by another process, or our commit was not answered
            return Upgrade(copy.version, before, copy.path)
        _let_go(connection)
        copy.make()
        _migrate(connection, before)
        if is_sqlite:
            _check_references(connection)
        commit(connection)
        return Upgrade(before, SCHEMA_VERSION, copy.path)


def _let_go(connection: Connection) -> None:
    """Take all studies from controllers that are gone: one that wakes up finds itself fenced."""
    owned = connection.execute(select(_studies).where(_studies.c.owner != "")).all()
    now = time.time()
    for study in owned:
        if holds(study.owner, study.lease_until, now):
            host, pid, _ = study.owner.split("/")
            raise StudyBusy(
                f"study {study.name!r} is being run by process {pid} on {host}, and a store is"
                f" upgraded while none is; `naslite stop {study.name}` ends it"
            )
    connection.execute(
        update(_studies)
        .where(_studies.c.owner != "")
        .values(owner="", lease_until=0.0, state="interrupted", cause="its controller is gone")
    )


def _migrate(connection: Connection, before: int) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    # `naslite_schema` says where we are, whatever Alembic's own table may hold.
    command.stamp(config, str(before), purge=True)
    command.upgrade(config, str(SCHEMA_VERSION))
    connection.execute(update(schema_version).values(version=SCHEMA_VERSION))


def _check_references(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise StoreError(
            f"{address(connection.engine.url)} has rows whose study or trial is gone"
            f" ({len(broken)}, the first in {broken[0][0]!r}); it was left as it is"
        )
