"""Who may write to a study: one owner at a time, until its lease ends or its process is gone."""

from __future__ import annotations

import hashlib
import math
import os
import socket
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, select, update

from . import schema
from .errors import StoreError, StudyBusy, UnknownStudy
from .records import Study


def _lease_s() -> float:
    """NaN if it is no number: `check_lease` says so, once a store is opened."""
    try:
        return float(os.environ.get("NASLITE_LEASE_S", "60"))
    except ValueError:
        return math.nan


# The environment variable is for tests: too short a lease loses a study to a busy machine.
LEASE_S = _lease_s()


def check_lease() -> None:
    """Check what NASLITE_LEASE_S says.

    Raises:
        StoreError: It is no positive number.
    """
    if not (math.isfinite(LEASE_S) and LEASE_S > 0):
        got = os.environ.get("NASLITE_LEASE_S", f"{LEASE_S:g}")
        raise StoreError(f"NASLITE_LEASE_S must be a positive number of seconds, got {got!r}")


def renewal_s() -> float:
    """How long an owner may wait before it renews its lease: it can miss two times."""
    return LEASE_S / 4


def new_owner() -> str:
    """A token of this process that no other controller has: `host/pid/place.random`."""
    return f"{socket.gethostname()}/{os.getpid()}/{_place()}.{uuid.uuid4().hex[:8]}"


def lease_end(now: float) -> float:
    """When a lease that is taken or renewed now runs out (Unix seconds)."""
    return now + LEASE_S


def take_over(connection: Connection, study: Study, owner: str) -> None:
    """Make `owner` the study's owner, unless another one holds it.

    Raises:
        StudyBusy: Its controller is alive and its lease has not run out.
        UnknownStudy: It was removed.
    """
    table = schema.studies
    holder = connection.execute(
        select(table.c.owner, table.c.lease_until, table.c.claimed_at).where(
            table.c.id == study.id, table.c.name == study.name
        )
    ).one_or_none()
    if holder is None:
        raise removed(study)
    now = time.time()
    seen, until, since = holder
    if seen != owner and holds(seen, until, now):
        raise busy(study.name, seen, since)
    changed = connection.execute(
        update(table)
        .where(table.c.id == study.id, table.c.owner == seen)
        .values(
            owner=owner,
            claimed_at=now,
            lease_until=lease_end(now),
            updated_at=now,
            state="running",
            cause="",
        )
    )
    if changed.rowcount != 1:
        raise StudyBusy(f"study {study.name!r} was just taken by another controller; try again")


def busy(name: str, owner: str, since: float) -> StudyBusy:
    """The error that a study has a live controller already."""
    return StudyBusy(
        f"study {name!r} is being run by {shown(owner, since)};"
        f" `naslite stop {name}` ends it after its running trials"
    )


def holds(owner: str, lease_until: float, now: float) -> bool:
    """Whether this owner may still write, as far as its lease and its process tell."""
    return bool(owner) and lease_until > now and is_alive(owner)


def removed(study: Study) -> UnknownStudy:
    return UnknownStudy(f"study {study.name!r} was removed; `naslite ls` lists those there are")


def shown(owner: str, since: float) -> str:
    """An owner for people: process, host and since when (Unix seconds, 0 = unknown)."""
    host, pid, _ = owner.split("/")
    if not since:
        return f"process {pid} on {host}"
    moment = datetime.fromtimestamp(since, UTC)
    return f"process {pid} on {host} since {moment:%Y-%m-%d %H:%M:%S} UTC"


def is_alive(owner: str) -> bool:
    """Whether the owner may still run: certainly not if its process is gone from here."""
    import psutil

    if not is_here(owner):
        return True
    pid = int(owner.split("/")[1])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        state = psutil.Process(pid).status()
    except psutil.Error:  # another user's, which may be hidden from us
        return True
    return state not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def is_here(owner: str) -> bool:
    """Whether the owner's process number means the same process here.

    Machines and containers may have one name and count their processes alike. Nobody knows this
    of owners in earlier databases, whose tokens tell no place.
    """
    host, _, token = owner.split("/")
    place, dot, _ = token.partition(".")
    return bool(dot) and (host, place) == (socket.gethostname(), _place())


@cache
def _place() -> str:
    """Differs between machines, between boots of one and between its PID namespaces, as far as
    the system tells."""
    told = []
    for path in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        with suppress(OSError):
            told.append(Path(path).read_text().strip())
    with suppress(OSError):
        told.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.sha256("/".join(told).encode()).hexdigest()[:10]
