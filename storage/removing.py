"""Deleting studies and artifacts, without taking a file from a controller that begins to use it.

A writer that points to artifacts holds a shared lock, one that deletes them an exclusive lock,
each until its transaction ends. On SQLite the write lock of the database is both.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, text

from . import queries, schema
from .artifacts import ContentStore
from .errors import CorruptFiles
from .lease import take_over
from .records import Study

_KEY = 6109432
_SHARED = text(f"SELECT pg_advisory_xact_lock_shared({_KEY})")
_EXCLUSIVE = text(f"SELECT pg_advisory_xact_lock({_KEY})")


def keep_artifacts(connection: Connection) -> None:
    """Let nobody delete artifacts until the transaction ends; take it before any other lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SHARED)


def exclude_keepers(connection: Connection) -> None:
    """Let nobody begin to use an artifact until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(_EXCLUSIVE)


def check_files(sha256: str, files: ContentStore) -> None:
    """Check that an artifact which is kept has not been deleted before; its content is not read.

    Raises:
        CorruptFiles
    """
    if not files.exists(sha256):
        raise CorruptFiles(f"the files of artifact {sha256[:12]} are not in {files.root} any more")


def remove_study(connection: Connection, study: Study, owner: str) -> list[str]:
    """Delete a study's rows; returns the artifacts that nothing points to now.

    Raises:
        StudyBusy: A live controller owns it.
    """
    table = schema.studies
    is_there = select(table.c.id).where(table.c.id == study.id)
    if connection.scalar(is_there) is not None:  # else an earlier attempt was committed
        take_over(connection, study, owner)
        connection.execute(delete(table).where(table.c.id == study.id))
    return queries.unused_artifacts(connection)


def remove_artifact(connection: Connection, sha256: str, files: ContentStore) -> bool:
    """Delete an artifact's row and files, unless something points to it; says whether it did.

    Files that somebody holds stay for `naslite db gc`.
    """
    exclude_keepers(connection)
    if queries.is_used(connection, sha256):
        return False
    table = schema.artifacts
    connection.execute(delete(table).where(table.c.sha256 == sha256))
    return files.remove(sha256)
