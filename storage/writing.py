"""Writing: records as rows, inside a transaction of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, insert, update
from sqlalchemy.dialects import postgresql, sqlite

from . import schema
from .records import Artifact, Study


def update_study(connection: Connection, study: Study, **values: Any) -> None:
    table = schema.studies
    connection.execute(update(table).where(table.c.id == study.id).values(**values))


def update_open_trial(connection: Connection, study: Study, number: int, **values: Any) -> None:
    table = schema.trials
    changed = connection.execute(
        update(table)
        .where(
            table.c.study_id == study.id,
            table.c.number == number,
            table.c.state.in_(("queued", "running")),
        )
        .values(**values)
    )
    if changed.rowcount != 1:
        raise ValueError(f"trial {number} of {study.name!r} is not running")


def storable(text: str) -> str:
    """The text without what a database refuses: the message of an error may quote any bytes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def ensure_artifact(connection: Connection, artifact: Artifact) -> None:
    dialects: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    statement = dialects[connection.dialect.name](schema.artifacts).values(**asdict(artifact))
    connection.execute(statement.on_conflict_do_nothing())


def insert_all(
    connection: Connection, table: Any, where: Mapping[str, Any], records: tuple[Any, ...]
) -> None:
    rows = [{**where, "position": i, **asdict(record)} for i, record in enumerate(records)]
    if rows:
        connection.execute(insert(table), rows)
