"""Writes of a study's owner: fenced by its token, and known again by the event's."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from functools import cache
from typing import Any

from sqlalchemy import Connection, Update, bindparam, select, update

from . import schema
from .errors import StudyBusy
from .lease import lease_end
from .records import Study


class AlreadyDone(Exception):
    """The event was committed before, though the answer to its commit was lost."""


def new_event() -> str:
    """A token that no other event has."""
    return uuid.uuid4().hex[:16]


def fence(
    connection: Connection,
    study: Study,
    owner: str,
    event: str,
    values: Mapping[str, Any] = {},
    *,
    spent: float = 0.0,
) -> None:
    """Renew the lease and update the study's row, if the owner still owns it.

    It takes the lock of the row, so whatever follows in the transaction has it too.

    Args:
        spent: Seconds of searching to add.

    Raises:
        AlreadyDone: The study's latest event is this one.
        StudyBusy: The study has another owner, none, or is gone.
    """
    if _renew(connection, study, owner, {"event": event, **values}, spent=spent):
        return
    table = schema.studies
    latest = connection.scalar(select(table.c.event).where(table.c.id == study.id))
    if latest == event:
        raise AlreadyDone
    raise _lost(study)


def renew_lease(connection: Connection, study: Study, owner: str) -> None:
    """Renew the lease; this is no event, so one whose fate is unknown stays recognisable.

    Raises:
        StudyBusy: The study has another owner, none, or is gone.
    """
    if not _renew(connection, study, owner, {}):
        raise _lost(study)


def _renew(
    connection: Connection,
    study: Study,
    owner: str,
    values: Mapping[str, Any],
    *,
    spent: float = 0.0,
) -> bool:
    now = time.time()
    parameters = {
        "its_id": study.id,
        "its_owner": owner,
        "new_lease": lease_end(now),
        "now": now,
        **{f"new_{name}": value for name, value in values.items()},
    }
    if "event" in values:
        parameters["spent"] = spent
    return connection.execute(_fence(tuple(values)), parameters).rowcount == 1


def _lost(study: Study) -> StudyBusy:
    return StudyBusy(f"study {study.name!r} was taken over or removed; this controller stops")


@cache
def _fence(names: tuple[str, ...]) -> Update:
    table = schema.studies
    fenced = update(table).where(
        table.c.id == bindparam("its_id"), table.c.owner == bindparam("its_owner")
    )
    values: dict[str, Any] = {
        "lease_until": bindparam("new_lease"),
        "updated_at": bindparam("now"),
        **{name: bindparam(f"new_{name}") for name in names},
    }
    if "event" in names:
        fenced = fenced.where(table.c.event != bindparam("new_event"))
        values["seconds"] = table.c.seconds + bindparam("spent")
    return fenced.values(values)
