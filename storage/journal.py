"""When SQLite's journal (WAL) is written back into the database.

SQLite by itself tries after every commit once the journal is long, and while others read it can
never begin it anew: each try costs a flush to the disk, and ten readers slow a writer to a third.
"""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from .database import BUSY_TIMEOUT_S, sqlite_file

LOOK_S = 1.0  # between looks at its length
LONG_BYTES = 4 * 2**20  # it is copied, as far as no reader needs what would be overwritten,
TOO_LONG_BYTES = 64 * 2**20  # or we wait a moment for readers to end, so that it begins anew
PATIENCE_S = 0.25


class Journal:
    """The journal of a database; of one in memory or on a server there is none."""

    def __init__(self, engine: Engine) -> None:
        path = sqlite_file(engine.url)
        self._path = None if path is None else Path(f"{path}-wal")
        self._due = 0.0

    def look(self, connection: Connection) -> None:
        """Called after a commit: write the journal back if it has become long."""
        if self._path is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LOOK_S
        try:
            length = self._path.stat().st_size
        except OSError:
            return
        if length >= LONG_BYTES:
            self._write_back(connection, begin_anew=length >= TOO_LONG_BYTES)

    def _write_back(self, connection: Connection, *, begin_anew: bool) -> None:
        wait_ms = int(1000 * PATIENCE_S) if begin_anew else 0
        mode = "RESTART" if begin_anew else "PASSIVE"
        try:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={wait_ms}")
            connection.exec_driver_sql(f"PRAGMA wal_checkpoint({mode})").all()
        except OperationalError:  # another writer, a full disk: what is committed stays so
            pass
        finally:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={int(1000 * BUSY_TIMEOUT_S)}")
