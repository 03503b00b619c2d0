"""Transactions on an open database: whole or not at all, tried again when a fault may pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event

from .database import BUSY_TIMEOUT_S, address
from .journal import Journal
from .retrying import HURRIED_S, RETRY_S, trying

_T = TypeVar("_T")


class Transactions:
    """Runs functions of a connection, each in one transaction.

    A function may be called again after a fault, so all that it does goes through the
    connection.

    Args:
        retry_s: Seconds for which a fault that may pass is waited for.
    """

    def __init__(self, engine: Engine, *, retry_s: float = RETRY_S) -> None:
        self.engine = engine
        self.retry_s = retry_s
        # For tests of crashes: called with `EVENT/1`, `EVENT/2`... before each statement of a
        # write, `EVENT/commit` before its commit and `EVENT/committed` after it.
        self.faults: Callable[[str], None] | None = None
        self._shown = address(engine.url)
        self._is_hurried = False
        self._journal = Journal(engine)
        self._is_sqlite = engine.dialect.name == "sqlite"

    def hurry(self) -> None:
        """Wait for no fault longer than `HURRIED_S` from now on; any thread or signal handler
        may call it."""
        self._is_hurried = True

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """All queries of `work` see the same moment."""

        def attempt() -> _T:
            with self.engine.connect() as connection:
                if self._is_sqlite:
                    self._begin(connection, "BEGIN", self._is_hurried)
                else:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                return work(connection)

        return self._trying(attempt, lambda: self._is_hurried)

    def write(
        self,
        name: str,
        work: Callable[[Connection], _T],
        is_hurried: Callable[[], bool] = lambda: False,
    ) -> _T:
        """Commit what `work` does; `name` is the event's, for `faults`.

        Where the answer to a commit was lost, `work` is called again though it was committed,
        and must recognise what it did.

        Args:
            is_hurried: Tells when to `hurry` with this event.
        """

        def hurried() -> bool:
            return self._is_hurried or is_hurried()

        def attempt() -> _T:
            faults = self.faults
            with self.engine.connect() as connection:
                if self._is_sqlite:
                    # The write lock first: one that is taken after reading can be refused.
                    self._begin(connection, "BEGIN IMMEDIATE", hurried())
                if faults is not None:
                    _announce(connection, name, faults)
                result = work(connection)
                if faults is not None:
                    faults(f"{name}/commit")
                commit(connection)
                self._journal.look(connection)
            if faults is not None:
                faults(f"{name}/committed")
            return result

        return self._trying(attempt, hurried)

    def _begin(self, connection: Connection, begin: str, is_hurried: bool) -> None:
        if is_hurried:  # SQLite waits for locks by itself, and nobody can disturb it
            wait_ms = int(1000 * min(HURRIED_S / 4, BUSY_TIMEOUT_S))
            connection.exec_driver_sql(f"PRAGMA busy_timeout={wait_ms}")
        connection.exec_driver_sql(begin)

    def _trying(self, attempt: Callable[[], _T], is_hurried: Callable[[], bool]) -> _T:
        return trying(attempt, store=self._shown, retry_s=self.retry_s, is_hurried=is_hurried)


def commit(connection: Connection) -> None:
    """Commit, and leave no transaction open where that fails.

    SQLite keeps one open that met a lock at its end, and SQLAlchemy does not roll back what it
    could not commit.
    """
    try:
        connection.commit()
    except BaseException:
        if connection.dialect.name == "sqlite":
            connection.connection.rollback()
        raise


def _announce(connection: Connection, name: str, faults: Callable[[str], None]) -> None:
    numbers = itertools.count(1)

    @event.listens_for(connection, "before_cursor_execute")
    def _before(*_: Any) -> None:
        faults(f"{name}/{next(numbers)}")
