"""Writing what the rows of a front measure when their search has ended."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from . import schema
from .records import Measurement, Study


def write_audit(
    connection: Connection,
    study: Study,
    number: int,
    measurements: Sequence[Measurement],
    records: bytes | None,
) -> None:
    """Measurements in the places of those of the same metrics, or behind all others; records of
    the audit split instead of others, unless there are none.

    Raises:
        ValueError: The trial is not complete.
    """
    trials, table, other = schema.trials.c, schema.measurements, schema.records
    state = select(trials.state).where(trials.study_id == study.id, trials.number == number)
    if connection.scalar(state) != "complete":
        raise ValueError(f"trial {number} of {study.name!r} is not complete")
    mine: Any = table.c.study_id == study.id, table.c.number == number
    stored = connection.execute(select(table.c.metric, table.c.position).where(*mine))
    places = {row.metric: row.position for row in stored}
    names = [m.metric for m in measurements]
    connection.execute(delete(table).where(*mine, table.c.metric.in_(names)))
    free = itertools.count(1 + max(places.values(), default=-1))
    where = {"study_id": study.id, "number": number}
    rows = [
        {**where, "position": places[m.metric] if m.metric in places else next(free), **asdict(m)}
        for m in measurements
    ]
    connection.execute(insert(table), rows)
    if records is not None:
        of_split = other.c.study_id == study.id, other.c.number == number, other.c.split == "audit"
        connection.execute(delete(other).where(*of_split))
        row = {**where, "split": "audit", "content": records}
        connection.execute(insert(other).values(row))
