"""Databases for tests: where they are, what they hold, and copies of earlier ones."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import ASSETS
from sqlalchemy import MetaData, create_engine, inspect, select, text
from sqlalchemy.engine import make_url

from storage.database import parse_url

POSTGRES = os.environ.get("NASLITE_TEST_POSTGRES", "")
needs_postgres = pytest.mark.skipif(
    not POSTGRES, reason="NASLITE_TEST_POSTGRES=postgresql://... names no database to test on"
)
OLD = sorted(ASSETS.glob("schema_*.db"))


@contextmanager
def own_postgres() -> Iterator[str]:
    """The URL of an empty database of its own, dropped in the end."""
    name = f"naslite_{uuid.uuid4().hex[:12]}"
    server = create_engine(parse_url(POSTGRES), isolation_level="AUTOCOMMIT")
    try:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
        finally:
            with server.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        server.dispose()


def copy_old(asset: Path, folder: Path) -> str:
    """A copy of a database of an earlier schema; returns its URL."""
    shutil.copy(asset, folder / "naslite.db")
    return f"sqlite:///{folder / 'naslite.db'}"


def rows(url: str) -> dict[str, list[dict[str, Any]]]:
    """All rows by table, JSON decoded, sorted; the same on every database."""
    engine = create_engine(parse_url(url))
    found = {}
    try:
        metadata = MetaData()
        metadata.reflect(engine)
        with engine.connect() as connection:
            for name, table in sorted(metadata.tables.items()):
                lines = [dict(row._mapping) for row in connection.execute(select(table))]
                found[name] = sorted(lines, key=json.dumps)
    finally:
        engine.dispose()
    return found


def structure(url: str) -> dict[str, Any]:
    """Columns and indexes by table, as the database itself tells them."""
    engine = create_engine(parse_url(url))
    try:
        seen = inspect(engine)
        return {
            name: (
                [{**c, "type": str(c["type"])} for c in seen.get_columns(name)],
                seen.get_indexes(name),
                seen.get_foreign_keys(name),
                seen.get_pk_constraint(name),
            )
            for name in sorted(seen.get_table_names())
        }
    finally:
        engine.dispose()


def dump(path: Path) -> list[str]:
    """An SQLite file as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())
