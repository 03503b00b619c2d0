"""Reading: rows of the database as records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, func, select

from . import schema
from .records import Artifact, File, Measurement, Request, StageRun, Study, StudySummary, Trial

USED = select(schema.trials.c.artifact).where(schema.trials.c.artifact.is_not(None))


def study_named(connection: Connection, name: str) -> Study | None:
    row = connection.execute(
        select(schema.studies).where(schema.studies.c.name == name)
    ).one_or_none()
    return None if row is None else _study(row)


def summaries(connection: Connection) -> list[StudySummary]:
    """All studies, the oldest first, with the count of trials in each state."""
    counts: dict[int, dict[str, int]] = defaultdict(dict)
    table = schema.trials
    for study_id, state, count in connection.execute(
        select(table.c.study_id, table.c.state, func.count()).group_by(
            table.c.study_id, table.c.state
        )
    ):
        counts[study_id][state] = count
    rows = connection.execute(select(schema.studies).order_by(schema.studies.c.id))
    return [StudySummary(_study(row), counts[row.id]) for row in rows]


def trials(connection: Connection, study_id: int, *, since: int = 0) -> list[Trial]:
    """The trials of a study with number >= since, by number, with all that belongs to them."""
    artifacts = _artifacts(connection, study_id)
    measured: dict[int, list[Measurement]] = defaultdict(list)
    for row in connection.execute(_of(schema.measurements, study_id, since)):
        measured[row.number].append(
            Measurement(row.metric, row.value, row.unit, row.low, row.high, row.n)
        )
    staged: dict[int, list[StageRun]] = defaultdict(list)
    for row in connection.execute(_of(schema.stages, study_id, since)):
        staged[row.number].append(
            StageRun(row.name, row.key, row.options, row.seconds, row.cached, row.note)
        )
    return [
        Trial(
            number=row.number,
            state=row.state,
            candidate=row.candidate,
            memo=row.memo,
            attempt=row.attempt,
            cause=row.cause,
            stages=tuple(staged[row.number]),
            artifact=artifacts.get(row.artifact),
            measurements=tuple(measured[row.number]),
            seconds=row.seconds,
            reused_from=row.reused_from,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )
        for row in connection.execute(_of(schema.trials, study_id, since))
    ]


def open_requests(connection: Connection, study_id: int) -> list[Request]:
    table = schema.requests
    rows = connection.execute(
        select(table)
        .where(and_(table.c.study_id == study_id, table.c.handled_at.is_(None)))
        .order_by(table.c.id)
    )
    return [Request(row.id, row.kind, row.payload) for row in rows]


def unused_artifacts(connection: Connection) -> list[str]:
    """The SHA-256s of artifacts that no trial points to."""
    table = schema.artifacts
    return list(connection.scalars(select(table.c.sha256).where(table.c.sha256.not_in(USED))))


def _of(table: Any, study_id: int, since: int) -> Select[Any]:
    order = [table.c.number] + ([table.c.position] if "position" in table.c else [])
    return (
        select(table)
        .where(and_(table.c.study_id == study_id, table.c.number >= since))
        .order_by(*order)
    )


def _artifacts(connection: Connection, study_id: int) -> Mapping[str | None, Artifact]:
    table = schema.artifacts
    used = select(schema.trials.c.artifact).where(schema.trials.c.study_id == study_id)
    return {
        row.sha256: Artifact(
            row.sha256, row.format, row.size_bytes, tuple(File(**file) for file in row.files)
        )
        for row in connection.execute(select(table).where(table.c.sha256.in_(used)))
    }


def _study(row: Row[Any]) -> Study:
    return Study(**row._mapping)
