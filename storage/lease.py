"""Who may write to a study: one owner at a time, until its lease ends or its process is gone."""

from __future__ import annotations

import os
import socket
import time
import uuid

from sqlalchemy import Connection, select, update

from . import schema
from .errors import StudyBusy
from .records import Study

LEASE_S = 60.0


def new_owner() -> str:
    """A token of this process that no other controller has."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"


def lease_end(now: float) -> float:
    """When a lease that is taken or renewed now runs out (Unix seconds)."""
    return now + LEASE_S


def take_over(connection: Connection, study: Study, owner: str) -> None:
    table = schema.studies
    holder = connection.execute(
        select(table.c.owner, table.c.lease_until).where(table.c.id == study.id)
    ).one_or_none()
    now = time.time()
    seen, until = holder or ("", 0.0)
    if seen and until > now and is_alive(seen):
        host, pid, _ = seen.split("/")
        raise StudyBusy(
            f"study {study.name!r} is being run by process {pid} on {host};"
            f" `naslite stop {study.name}` ends it after its current trial"
        )
    changed = connection.execute(
        update(table)
        .where(table.c.id == study.id, table.c.owner == seen)
        .values(owner=owner, lease_until=lease_end(now), updated_at=now, state="running", cause="")
    )
    if changed.rowcount != 1:
        raise StudyBusy(f"study {study.name!r} was just taken by another controller; try again")


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
