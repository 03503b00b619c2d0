"""Transactions on an open database: whole or not at all, tried again when a fault may pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event

from .retrying import RETRY_S, trying

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
        self._shown = engine.url.render_as_string(hide_password=True)
        self._is_sqlite = engine.dialect.name == "sqlite"

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """All queries of `work` see the same moment."""

        def attempt() -> _T:
            with self.engine.connect() as connection:
                if self._is_sqlite:
                    connection.exec_driver_sql("BEGIN")
                else:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                return work(connection)

        return trying(attempt, store=self._shown, retry_s=self.retry_s)

    def write(self, name: str, work: Callable[[Connection], _T]) -> _T:
        """Commit what `work` does; `name` is the event's, for `faults`.

        Where the answer to a commit was lost, `work` is called again though it was committed,
        and must recognise what it did.
        """

        def attempt() -> _T:
            faults = self.faults
            with self.engine.connect() as connection:
                if self._is_sqlite:
                    # The write lock first: one that is taken after reading can be refused.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                if faults is not None:
                    _announce(connection, name, faults)
                result = work(connection)
                if faults is not None:
                    faults(f"{name}/commit")
                connection.commit()
            if faults is not None:
                faults(f"{name}/committed")
            return result

        return trying(attempt, store=self._shown, retry_s=self.retry_s)


def _announce(connection: Connection, name: str, faults: Callable[[str], None]) -> None:
    numbers = itertools.count(1)

    @event.listens_for(connection, "before_cursor_execute")
    def _before(*_: Any) -> None:
        faults(f"{name}/{next(numbers)}")
