"""Who may write to a study: one owner at a time, until its lease ends or its process is gone."""

from __future__ import annotations

import os
import socket
import time
import uuid
from datetime import UTC, datetime

from sqlalchemy import Connection, select, update

from . import schema
from .errors import StudyBusy
from .records import Study

# The environment variable is for tests: too short a lease loses a study to a busy machine.
LEASE_S = float(os.environ.get("NASLITE_LEASE_S", "60"))


def new_owner() -> str:
    """A token of this process that no other controller has."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


def lease_end(now: float) -> float:
    """When a lease that is taken or renewed now runs out (Unix seconds)."""
    return now + LEASE_S


def take_over(connection: Connection, study: Study, owner: str) -> None:
    """Make `owner` the study's owner, unless another one holds it.

    Raises:
        StudyBusy: Its controller is alive and its lease has not run out.
    """
    table = schema.studies
    holder = connection.execute(
        select(table.c.owner, table.c.lease_until, table.c.claimed_at).where(
            table.c.id == study.id
        )
    ).one_or_none()
    now = time.time()
    seen, until, since = holder or ("", 0.0, 0.0)
    if seen != owner and holds(seen, until, now):
        raise StudyBusy(
            f"study {study.name!r} is being run by {shown(seen, since)};"
            f" `naslite stop {study.name}` ends it after its current trial"
        )
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


def holds(owner: str, lease_until: float, now: float) -> bool:
    """Whether this owner may still write, as far as its lease and its process tell."""
    return bool(owner) and lease_until > now and is_alive(owner)


def shown(owner: str, since: float) -> str:
    """An owner for people: process, host and since when (Unix seconds, 0 = unknown)."""
    host, pid, _ = owner.split("/")
    if not since:
        return f"process {pid} on {host}"
    moment = datetime.fromtimestamp(since, UTC)
    return f"process {pid} on {host} since {moment:%Y-%m-%d %H:%M:%S} UTC"


def is_alive(owner: str) -> bool:
    """Whether the owner may still run: certainly not if its process on this host is gone."""
    host, pid, _ = owner.split("/")
    if host != socket.gethostname():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
