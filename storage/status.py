"""What a store is: its address, schema and sizes. It reads databases of every schema so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, func, inspect, select, table, text

from .artifacts import file_stores
from .database import address, files_folder, nothing_stored, opened, parse_url, stored_version
from .database import sqlite_file as file_of
from .schema import SCHEMA_VERSION, metadata


@dataclass(frozen=True, slots=True)
class Folder:
    """The entries of a file store, and the bytes of their files."""

    path: Path
    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Status:
    """A store seen from outside.

    Args:
        url: Without its password.
        rows: By table, the studies among them.
        size_bytes: Of the database: its files, or on a server its tables and indexes.
    """

    url: str
    schema: int
    rows: Mapping[str, int]
    size_bytes: int
    artifacts: Folder
    stages: Folder

    @property
    def studies(self) -> int:
        return self.rows["studies"]

    @property
    def needs_upgrade(self) -> bool:
        return self.schema < SCHEMA_VERSION


def status(url: str) -> Status:
    """Look at a store without changing anything.

    Raises:
        NoStore, ForeignDatabase, StoreError
    """
    parsed = parse_url(url)
    with opened(parsed) as engine:
        schema = stored_version(engine)
        if schema is None:
            raise nothing_stored(parsed)
        with engine.connect() as connection:
            names = [
                name for name in inspect(connection).get_table_names() if name in metadata.tables
            ]
            rows = {
                name: connection.execute(
                    select(func.count()).select_from(table(name))
                ).scalar_one()
                for name in sorted(names)
                if name not in ("naslite_schema", "alembic_version")
            }
            size = _size(engine, connection, names)
    engine.dispose()
    artifacts, stages = (
        Folder(files.root, *files.total()) for files in file_stores(files_folder(url))
    )
    return Status(address(parsed), schema, rows, size, artifacts, stages)


def _size(engine: Engine, connection: Connection, names: list[str]) -> int:
    path = file_of(engine.url)
    if path is not None:
        parts = [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]
        return sum(part.stat().st_size for part in parts if part.exists())
    if engine.dialect.name == "sqlite":
        return 0
    size = text("SELECT pg_total_relation_size(to_regclass(:name))")
    return sum(connection.execute(size, {"name": name}).scalar_one() for name in names)
