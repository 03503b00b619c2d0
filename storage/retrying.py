"""Faults of a database that pass: what they are, and trying again until they have."""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from .errors import StoreError

RETRY_S = 60.0
HURRIED_S = 2.0  # instead, once somebody waits for us
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0
LOOK_S = 0.1  # how often a wait looks whether it is to hurry

# Locked, full, unreadable for now; PROTOCOL is a race for the locks of a WAL.
_SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
# SQLSTATE: connection lost, out of resources (disk, memory, connections), operator at work,
# system error; serialization failure, deadlock, lock not available, read-only for now.
_POSTGRES_PASSING = ("08", "53", "57P", "58", "40001", "40P01", "55P03", "25006")

_T = TypeVar("_T")
_jitter = random.Random()
log = logging.getLogger("naslite.storage")


def trying(
    action: Callable[[], _T],
    *,
    store: str,
    retry_s: float,
    is_hurried: Callable[[], bool] = lambda: False,
) -> _T:
    """What `action` returns, called again with growing waits while the database has a fault
    that may pass; each such fault is logged once.

    Args:
        store: The address to show.
        retry_s: Seconds after the first fault for which it is called again.
        is_hurried: Asked all the while; once it is true, `retry_s` is at most `HURRIED_S`.

    Raises:
        StoreError: The fault did not pass, or is not of this kind.
        IntegrityError: As it was raised.
    """
    since, wait, seen = 0.0, FIRST_WAIT_S, ""
    while True:
        try:
            result = action()
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            fault = first_line(error)
            if not may_pass(error):
                raise StoreError(f"the store {store} failed: {fault}") from error
            now = time.monotonic()
            since = since or now
            limit = min(retry_s, HURRIED_S) if is_hurried() else retry_s
            left = since + limit - now
            if left <= 0:
                failed_s = max(limit, now - since)
                raise StoreError(
                    f"the store {store} failed for {failed_s:.2g} s: {fault}; all that was stored"
                    " before is safe: `naslite resume NAME` goes on once the store works"
                ) from error
            if fault != seen:
                log.warning("the store %s: %s; trying again for up to %.0f s", store, fault, left)
                seen = fault
            _sleep(min(left, wait * _jitter.uniform(0.5, 1.0)), is_hurried)
            wait = min(2 * wait, LONGEST_WAIT_S)
        else:
            if since:
                log.info("the store %s works again after %.1f s", store, time.monotonic() - since)
            return result


def may_pass(error: SQLAlchemyError) -> bool:
    """Whether the same statement may succeed later, with nothing done by us."""
    if not isinstance(error, DBAPIError):
        return False
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        return getattr(origin, "sqlite_errorcode", 0) & 0xFF in _SQLITE_PASSING
    state = getattr(origin, "sqlstate", None)
    if state is None:  # psycopg: no answer from a server, so the connection is gone
        return error.connection_invalidated or type(origin).__name__ == "OperationalError"
    return str(state).startswith(_POSTGRES_PASSING)


def _sleep(seconds: float, is_hurried: Callable[[], bool]) -> None:
    """Wait; no longer from the moment on in which somebody begins to wait for us."""
    until, at_first = time.monotonic() + seconds, is_hurried()
    while (left := until - time.monotonic()) > 0 and is_hurried() == at_first:
        time.sleep(min(left, LOOK_S))


def first_line(error: Exception) -> str:
    """The driver's own message, without the statement and its parameters."""
    origin = getattr(error, "orig", None) or error
    return str(origin).strip().splitlines()[0] if str(origin).strip() else type(error).__name__
