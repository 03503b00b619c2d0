"""Reading: rows of the database as records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, Text, cast, func, select, union
from sqlalchemy.exc import DBAPIError

from . import schema
from .records import (
    Artifact,
    Extension,
    Facts,
    File,
    Measurement,
    Outcome,
    Request,
    Session,
    StageRun,
    Study,
    StudySummary,
    Trial,
)

# Artifacts that something points to: all others may go.
USED = union(
    select(schema.trials.c.artifact).where(schema.trials.c.artifact.is_not(None)),
    select(schema.known.c.artifact).where(schema.known.c.artifact.is_not(None)),
)
# A database takes only so many parameters: above, it is cheaper to read the rows between as well.
MANY = 500
_STUDY = [schema.studies.c[field.name] for field in fields(Study)]


def study_named(connection: Connection, name: str) -> Study | None:
    row = connection.execute(select(*_STUDY).where(schema.studies.c.name == name)).one_or_none()
    return None if row is None else _study(row)


def study_or_names(connection: Connection, name: str) -> tuple[Study | None, list[str]]:
    """The study; if there is none, the names of those there are, the oldest first."""
    found = study_named(connection, name)
    if found is not None:
        return found, []
    table = schema.studies
    return None, list(connection.scalars(select(table.c.name).order_by(table.c.id)))


def has_study(connection: Connection, name: str) -> bool:
    table = schema.studies
    return connection.scalar(select(table.c.id).where(table.c.name == name)) is not None


def wrote(connection: Connection, name: str, event: str) -> bool:
    """Whether the latest event of the study of this name is this one."""
    table = schema.studies
    return connection.scalar(select(table.c.event).where(table.c.name == name)) == event


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
    rows = connection.execute(select(*_STUDY).order_by(schema.studies.c.id))
    return [StudySummary(_study(row), counts[row.id]) for row in rows]


def trials(
    connection: Connection,
    study_id: int,
    *,
    since: int = 0,
    stages: bool = True,
    numbers: Collection[int] | None = None,
) -> list[Trial]:
    """The trials of a study with number >= since, or of these numbers, by number, with all that
    belongs to them."""
    if numbers is not None and len(numbers) > MANY:
        wanted = frozenset(numbers)
        found = trials(connection, study_id, since=min(wanted), stages=stages)
        return [trial for trial in found if trial.number in wanted]
    which = _Which(study_id, since, None if numbers is None else tuple(numbers))
    artifacts = _artifacts(connection, which.rows(schema.trials, schema.trials.c.artifact))
    measured = _records(connection, Measurement, schema.measurements, which)
    staged = _records(connection, StageRun, schema.stages, which) if stages else {}
    return [
        Trial(
            number=row.number,
            state=row.state,
            candidate=row.candidate,
            memo=row.memo,
            origin=row.origin,
            attempt=row.attempt,
            deaths=row.deaths,
            cause=row.cause,
            stages=tuple(staged.get(row.number, ())),
            artifact=artifacts.get(row.artifact),
            measurements=tuple(measured.get(row.number, ())),
            seconds=row.seconds,
            reused_from=row.reused_from,
            reused_study=row.reused_study,
            created_at=row.created_at,
            finished_at=row.finished_at,
        )
        for row in connection.execute(which.rows(schema.trials)).all()
    ]


def facts(
    connection: Connection, study_id: int, metrics: Sequence[str], knobs: Sequence[str]
) -> Facts:
    """Seconds, these metrics and these knobs of the complete trials."""
    table, measured = schema.trials.c, schema.measurements.c
    columns: list[Any] = [table.number, table.seconds]
    if knobs:
        columns.append(cast(table.candidate, Text))  # as text: reading JSON is what costs
    complete = select(*columns).where(table.study_id == study_id, table.state == "complete")
    rows = sorted(_tuples(connection, complete), key=itemgetter(0))
    found: dict[str, dict[int, Any]] = {name: {} for name in (*metrics, *knobs)}
    for number, _, *texts in rows if knobs else ():
        candidate = orjson.loads(texts[0])
        for name in knobs:
            if name in candidate:
                found[name][number] = candidate[name]
    numbers = tuple([row[0] for row in rows])
    if metrics:
        values = select(measured.number, measured.metric, measured.value).where(
            measured.study_id == study_id, measured.metric.in_(metrics)
        )
        for number, metric, value in _tuples(connection, values):
            found[metric][number] = value
        complete_ones = set(numbers)
        for metric in metrics:
            if not found[metric].keys() <= complete_ones:  # a stopped trial has some, too
                found[metric] = {n: found[metric][n] for n in numbers if n in found[metric]}
    return Facts(numbers, {"seconds": {row[0]: row[1] for row in rows}, **found})


def _tuples(connection: Connection, statement: Select[Any]) -> list[tuple[Any, ...]]:
    """All rows as the driver gives them: making `Row`s of many thousands takes as long again."""
    result = connection.execute(statement)
    dialect = connection.dialect
    error_type = dialect.loaded_dbapi.Error
    try:
        return list(result.cursor.fetchall())
    except error_type as error:  # as SQLAlchemy would raise it, so that it is tried again
        raise DBAPIError.instance(
            str(statement), None, error, error_type, dialect=dialect
        ) from error
    finally:
        result.close()


def known(connection: Connection, study_id: int) -> dict[str, Outcome]:
    """The facts that the study was created with, by candidate key."""
    table = schema.known
    used = select(table.c.artifact).where(table.c.study_id == study_id)
    artifacts = _artifacts(connection, used)
    return {
        row.candidate_key: Outcome(
            state=row.state,
            cause=row.cause,
            stages=tuple(StageRun(**stage) for stage in row.stages),
            artifact=artifacts.get(row.artifact),
            measurements=tuple(Measurement(**measured) for measured in row.measurements),
            seconds=row.seconds,
            reused_from=row.reused_from,
            reused_study=row.reused_study,
            records=row.records,
        )
        for row in connection.execute(select(table).where(table.c.study_id == study_id))
    }


def records(connection: Connection, study_id: int, number: int, split: str) -> bytes | None:
    """The records of a trial, or of the one whose measurements it took over."""
    table, trials = schema.records.c, schema.trials.c
    for _ in range(2):
        found = connection.scalar(
            select(table.content).where(
                table.study_id == study_id, table.number == number, table.split == split
            )
        )
        source = connection.scalar(
            select(trials.reused_from).where(
                trials.study_id == study_id, trials.number == number, trials.reused_study == ""
            )
        )
        if found is not None or source is None:
            return found
        number = source
    return None


def sessions(connection: Connection, study_id: int) -> list[Session]:
    table = schema.sessions.c
    columns = table.began_at, table.number, table.facts
    rows = connection.execute(
        select(*columns).where(table.study_id == study_id).order_by(table.id)
    )
    return [Session(*row) for row in rows]


def open_requests(connection: Connection, study_id: int) -> list[Request]:
    table = schema.requests
    rows = connection.execute(
        select(table)
        .where(table.c.study_id == study_id, table.c.handled_at.is_(None))
        .order_by(table.c.id)
    )
    return [Request(row.id, row.kind, row.payload) for row in rows]


def extensions(connection: Connection, study_id: int) -> list[Extension]:
    """The changes of a study's budget, by number, those of one number in their order."""
    table = schema.requests
    rows = connection.execute(
        select(table.c.number, table.c.payload)
        .where(
            table.c.study_id == study_id,
            table.c.kind == "extend",
            table.c.number.is_not(None),
        )
        .order_by(table.c.number, table.c.handled_at, table.c.id)
    )
    return [Extension(number, payload["trials"], payload["minutes"]) for number, payload in rows]


def used_artifacts(connection: Connection) -> frozenset[str]:
    """The SHA-256s of artifacts that something points to."""
    return frozenset(connection.scalars(USED))


def unused_artifacts(connection: Connection) -> list[str]:
    """The SHA-256s of stored artifacts that nothing points to."""
    table = schema.artifacts
    return list(connection.scalars(select(table.c.sha256).where(table.c.sha256.not_in(USED))))


def is_used(connection: Connection, sha256: str) -> bool:
    return any(
        connection.scalar(select(table.c.artifact).where(table.c.artifact == sha256).limit(1))
        for table in (schema.trials, schema.known)
    )


@dataclass(frozen=True, slots=True)
class _Which:
    """Trials of a study: those from a number on, or those of these numbers."""

    study_id: int
    since: int
    numbers: tuple[int, ...] | None

    def rows(self, table: Any, *columns: Any) -> Select[Any]:
        """The rows of a table that belong to them, in order."""
        order = [table.c.number] + ([table.c.position] if "position" in table.c else [])
        statement = select(*(columns or (table,))).where(table.c.study_id == self.study_id)
        if self.numbers is None:
            statement = statement.where(table.c.number >= self.since)
        else:
            statement = statement.where(table.c.number.in_(self.numbers))
        return statement.order_by(*order)


def _records(
    connection: Connection, record: Any, table: Any, which: _Which
) -> Mapping[int, list[Any]]:
    """The rows of a table that belong to trials, as records by the number of the trial."""
    columns = [table.c[field.name] for field in fields(record)]
    found: dict[int, list[Any]] = defaultdict(list)
    for row in connection.execute(which.rows(table, table.c.number, *columns)).all():
        found[row[0]].append(record(*row[1:]))
    return found


def _artifacts(connection: Connection, used: Select[Any]) -> Mapping[str | None, Artifact]:
    table = schema.artifacts
    return {
        row.sha256: Artifact(
            row.sha256, row.format, row.size_bytes, tuple([File(**file) for file in row.files])
        )
        for row in connection.execute(select(table).where(table.c.sha256.in_(used))).all()
    }


def _study(row: Row[Any]) -> Study:
    return Study(**row._mapping)
