"""Opening a database: by URL, checked to be ours before a byte of it changes."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orjson import dumps
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from .errors import ForeignDatabase, NoStore, StoreError
from .retrying import first_line
from .schema import SCHEMA_VERSION, alembic_version, metadata, schema_version

DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
ALIASES = {"postgres": "postgresql"}  # as many hosts write it
DURABILITIES = ("normal", "full")
# How long SQLite waits for a lock by itself; meanwhile Python cannot react to Ctrl-C.
BUSY_TIMEOUT_S = 2.0

_LOCK = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(6109431)"}


def parse_url(text: str) -> URL:
    """The URL with our driver.

    Raises:
        StoreError: Not a URL, or a database other than SQLite and PostgreSQL.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise StoreError(
            f"the store must be a URL such as sqlite:///naslite.db, got {without_password(text)!r}"
        ) from None
    backend, shown = url.get_backend_name(), without_password(text)
    backend = ALIASES.get(backend, backend)
    if backend not in DRIVERS:
        known = ", ".join(DRIVERS)
        raise StoreError(f"the store must be one of {known}, got {backend!r} in {shown!r}")
    if backend == "sqlite" and url.host:
        raise StoreError(f"an SQLite URL has three slashes, sqlite:///naslite.db, got {shown!r}")
    return url.set(drivername=DRIVERS[backend])


def sqlite_file(url: URL) -> Path | None:
    """The file behind a URL; None for a server or a database in memory."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def files_folder(url: str) -> Path:
    """Where a store keeps its files: beside an SQLite file (`naslite.db.files`), else
    NASLITE_FILES or `naslite.files`."""
    path = sqlite_file(parse_url(url))
    if path is not None:
        return path.with_name(f"{path.name}.files").absolute()
    return Path(os.environ.get("NASLITE_FILES", "naslite.files")).absolute()


def connect(url: URL, *, create: bool, durability: str = "normal") -> Engine:
    """An engine on a database that is ours; `create` makes the tables in an empty one.

    Args:
        durability: full = a commit has reached the disk before it returns; normal = SQLite may
            lose the last commits, never the file, when the machine (not the process) dies, and
            PostgreSQL does what its server is set to.

    Raises:
        NoStore: There is nothing at this address and `create` is False.
        ForeignDatabase: It holds something else, or another schema version.
        StoreError: The folder cannot be written or the server cannot be reached.
    """
    with opened(url, create=create, durability=durability) as engine:
        version = stored_version(engine)
        if version is not None:
            _check_version(version, engine.url)
        elif create:
            _create(engine)
        else:
            raise nothing_stored(engine.url)
    return engine


@contextmanager
def opened(url: URL, *, create: bool = False, durability: str = "normal") -> Iterator[Engine]:
    """An engine for a first look at a database, whatever it holds; it is closed by an error.

    Raises:
        NoStore, ForeignDatabase, StoreError
    """
    path = sqlite_file(url)
    if path is not None:
        _check_path(path, create=create)
    engine = _engine(url if create else _readable(url), durability)
    shown = address(url)
    try:
        yield engine
    except SQLAlchemyError as error:
        engine.dispose()
        if path is not None and type(error) is DatabaseError:  # SQLite: not a database at all
            raise ForeignDatabase(
                f"{shown} is not a naslite database ({first_line(error)}); choose another path"
            ) from None
        raise StoreError(f"cannot open the store {shown}: {first_line(error)}") from None
    except BaseException:
        engine.dispose()
        raise


def stored_version(engine: Engine) -> int | None:
    """The schema of a database of ours; None in an empty one.

    Raises:
        ForeignDatabase: It is not ours, or newer than this naslite.
    """
    shown = address(engine.url)
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        if not names:
            return None
        if schema_version.name not in names:
            raise ForeignDatabase(
                f"{shown} is not a naslite database (it holds {', '.join(sorted(names)[:3])});"
                " choose another path"
            )
        version = int(connection.execute(select(schema_version.c.version)).scalar_one())
    if version > SCHEMA_VERSION:
        raise ForeignDatabase(
            f"{shown} was written by a newer naslite (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); upgrade naslite or choose another store"
        )
    return version


def lock_schema(connection: Connection) -> None:
    """Let nobody else create or change the tables until the transaction ends."""
    connection.exec_driver_sql(_LOCK[connection.dialect.name])


def address(url: URL) -> str:
    """A URL for people, without its password."""
    return without_password(url.render_as_string(hide_password=True))


def without_password(text: str) -> str:
    """The text of a URL, be it valid or not, with *** for the passwords in it."""
    text = re.sub(r"(://[^/:@]*):.*@", r"\1:***@", text)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1***", text, flags=re.IGNORECASE)


def option(text: str) -> str:
    """What a command needs to be given to find the store of this URL."""
    shown = without_password(text)
    # With *** it would not run, and nobody wants his password in the history of a shell.
    return f" --store {shown}" if shown == text else ' --store "$NASLITE_STORE"'


def nothing_stored(url: URL) -> NoStore:
    return NoStore(f"no study is stored at {address(url)}; `naslite run CONFIG` starts one")


def check_writable(path: Path) -> None:
    """Check that an SQLite file can be made or written, without touching it.

    Raises:
        StoreError
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise StoreError(f"the store's folder {folder} does not exist; make it or use --store")
    try:
        with tempfile.TemporaryFile(dir=folder):  # SQLite writes its journal beside the file
            pass
    except OSError as error:
        raise StoreError(
            f"the store's folder {folder} cannot be written ({error.strerror});"
            " choose another with --store"
        ) from None
    if path.exists() and not os.access(path, os.W_OK):
        raise StoreError(f"the store {path} cannot be written; choose another with --store")


def _check_path(path: Path, *, create: bool) -> None:
    if path.is_dir():
        raise StoreError(f"the store must be a file, but {path} is a folder; name a file in it")
    if create:
        check_writable(path)
    elif not path.exists():
        raise NoStore(f"no study is stored at {path}; `naslite run CONFIG` starts one")


def _readable(url: URL) -> URL:
    """The URL under which SQLite can read a file that it cannot write a journal beside.

    A file without a journal was closed cleanly: nobody writes to it, so it may be read as it is.
    """
    path = sqlite_file(url)
    if path is None or _can_write(path):
        return url
    mode = "ro" if path.with_name(f"{path.name}-wal").exists() else "ro&immutable=1"
    return url.set(database=f"{path.absolute().as_uri()}?mode={mode}", query={"uri": "true"})


def _can_write(path: Path) -> bool:
    try:
        check_writable(path)
    except StoreError:
        return False
    return True


def _engine(url: URL, durability: str) -> Engine:
    assert durability in DURABILITIES, durability
    sqlite = url.get_backend_name() == "sqlite"
    options = _sqlite_options(url) if sqlite else {"pool_pre_ping": True}
    try:
        engine = create_engine(url, json_serializer=_dumps, **options)
    except ModuleNotFoundError:
        raise StoreError(
            "a PostgreSQL store needs psycopg: pip install 'naslite[postgres]'"
        ) from None

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        if sqlite:
            connection.isolation_level = None  # we begin transactions ourselves
            # These two leave no trace in the file; WAL, which does, is set when we create it.
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA synchronous={durability.upper()}")
            # See `journal`: we write it back, and one that begins anew is cut to what it holds.
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA journal_size_limit=0")
        elif durability == "full":
            connection.execute("SET SESSION synchronous_commit = on")
            connection.commit()

    return engine


def _dumps(value: Any) -> str:
    """JSON as the standard library reads it, ten times as fast for a candidate of 200 knobs."""
    try:
        return dumps(value).decode()
    except TypeError:  # an integer of more than 64 bits, a key that is no text
        return json.dumps(value)


def _sqlite_options(url: URL) -> dict[str, Any]:
    if sqlite_file(url) is None:
        return {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    return {"connect_args": {"timeout": BUSY_TIMEOUT_S}}


def _check_version(version: int, url: URL) -> None:
    shown, at = address(url), option(url.render_as_string(hide_password=False))
    if version < SCHEMA_VERSION:
        raise ForeignDatabase(
            f"{shown} was written by an older naslite (schema {version}, this one needs"
            f" {SCHEMA_VERSION}); `naslite db upgrade{at}` upgrades it"
        )


def _create(engine: Engine) -> None:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        # All tables at once or none, and one process at a time: another may open the same store.
        lock_schema(connection)
        if inspect(connection).has_table(schema_version.name):
            return
        metadata.create_all(connection)
        connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))
        connection.execute(alembic_version.insert().values(version_num=str(SCHEMA_VERSION)))
        connection.commit()
