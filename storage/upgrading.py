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
            done = trying(lambda: _upgrade(engine), store=address(parsed), retry_s=retry_s)
    engine.dispose()
    return done


def _upgrade(engine: Engine) -> Upgrade:
    with engine.connect() as connection:
        is_sqlite = engine.dialect.name == "sqlite"
        if is_sqlite:
            # Checked as a whole below; it cannot be switched inside of a transaction.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        lock_schema(connection)
        before = connection.execute(select(schema_version.c.version)).scalar_one()
        if before == SCHEMA_VERSION:  # by another process, while we waited for the lock
            return Upgrade(before, before)
        _let_go(connection)
        copy = _copy_file(engine, before)
        try:
            _migrate(connection, before)
            if is_sqlite:
                _check_references(connection)
        except BaseException:
            if copy is not None:
                copy.unlink()  # the database itself is still what it was
            raise
        connection.commit()
        return Upgrade(before, SCHEMA_VERSION, copy)


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


def _copy_file(engine: Engine, version: int) -> Path | None:
    """A copy of an SQLite file as it was committed, under a name that is not taken."""
    path = file_of(engine.url)
    if path is None:
        return None
    names = (f".{n}" if n else "" for n in range(1000))
    copy = next(
        made
        for name in names
        if not (made := path.with_name(f"{path.name}.schema-{version}{name}.bak")).exists()
    )
    try:
        # Another connection, which sees nothing of our transaction.
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        copy.unlink(missing_ok=True)
        raise StoreError(
            f"cannot copy {path} to {copy} before its upgrade ({error}); it was left as it is"
        ) from None
    return copy


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
