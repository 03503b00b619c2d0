"""Writing: the rows of each event, inside a transaction of the store."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Insert,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from . import schema
from .lease import lease_end, removed
from .records import Artifact, File, Known, Measurement, NewStudy, Outcome, StageRun, Study

OPEN = ("queued", "running")


def check_finite(measurements: Iterable[Measurement]) -> None:
    """Check that no measurement is NaN or infinite.

    Raises:
        ValueError
    """
    for m in measurements:
        if not all(math.isfinite(x) for x in (m.value, m.low, m.high) if x is not None):
            raise ValueError(f"a measurement must be finite, got {m}")


def insert_study(connection: Connection, new: NewStudy, owner: str, event: str) -> int:
    """The id of a new study."""
    now = time.time()
    made = connection.execute(
        insert(schema.studies).values(
            **_row(new),
            state="running",
            memo={},
            owner=owner,
            claimed_at=now,
            lease_until=lease_end(now),
            event=event,
            created_at=now,
            updated_at=now,
        )
    )
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def insert_known(connection: Connection, study_id: int, known: Sequence[Known]) -> None:
    """What is known about candidates; of two facts about the same one the first counts."""
    first: dict[str, Known] = {}
    for fact in known:
        first.setdefault(fact.candidate_key, fact)
    known = list(first.values())
    artifacts = {
        k.outcome.artifact.sha256: k.outcome.artifact for k in known if k.outcome.artifact
    }
    ensure_artifacts(connection, list(artifacts.values()))
    rows = [
        {
            "study_id": study_id,
            "candidate_key": fact.candidate_key,
            "state": fact.outcome.state,
            "cause": storable(fact.outcome.cause),
            "stages": [_row(stage) for stage in _storable_stages(fact.outcome)],
            "measurements": [_row(measured) for measured in fact.outcome.measurements],
            "artifact": _sha256(fact.outcome),
            "seconds": fact.outcome.seconds,
            "reused_from": fact.outcome.reused_from,
            "reused_study": fact.outcome.reused_study,
            "records": fact.outcome.records,
        }
        for fact in known
    ]
    if rows:
        connection.execute(_INSERT_KNOWN, rows)


def insert_trial(connection: Connection, study: Study, row: Mapping[str, Any]) -> None:
    """A new trial, which runs."""
    shared = {"study_id": study.id, "state": "running", "attempt": 1, "created_at": time.time()}
    connection.execute(_INSERT_TRIAL, {**shared, **row})


def insert_queued(
    connection: Connection,
    study: Study,
    rows: Sequence[tuple[int, Mapping[str, Any], str, str]],
) -> None:
    """New trials that somebody asked for: number, candidate, candidate key and origin."""
    shared = {"study_id": study.id, "state": "queued", "attempt": 0, "created_at": time.time()}
    trials = [
        {
            **shared,
            "memo": {},
            "number": number,
            "candidate": dict(candidate),
            "candidate_key": key,
            "origin": origin,
        }
        for number, candidate, key, origin in rows
    ]
    if trials:
        connection.execute(_INSERT_TRIAL, trials)


def restart_trial(connection: Connection, study: Study, number: int, *, died: bool) -> None:
    """Count one more attempt at a trial that did not end.

    Raises:
        ValueError: It ended, or there is none.
    """
    table = schema.trials.c
    changed = connection.execute(
        update(schema.trials)
        .where(table.study_id == study.id, table.number == number, table.state.in_(OPEN))
        .values(state="running", attempt=table.attempt + 1, deaths=table.deaths + int(died))
    )
    _check_open(changed.rowcount, study, number)


def end_trial(
    connection: Connection, study: Study, number: int, outcome: Outcome, *, died: bool
) -> None:
    """Store an outcome whole, and that a worker died over it.

    Raises:
        ValueError: The trial is not running.
    """
    if outcome.artifact is not None:
        ensure_artifacts(connection, [outcome.artifact])
    changed = connection.execute(
        _END_TRIAL,
        {
            "its_study": study.id,
            "its_number": number,
            "new_state": outcome.state,
            "new_cause": storable(outcome.cause),
            "new_artifact": _sha256(outcome),
            "new_seconds": outcome.seconds,
            "new_reused_from": outcome.reused_from,
            "new_reused_study": outcome.reused_study,
            "new_deaths": int(died),
            "now": time.time(),
        },
    )
    _check_open(changed.rowcount, study, number)
    where = {"study_id": study.id, "number": number}
    _insert_all(connection, _INSERT_STAGE, where, _storable_stages(outcome))
    _insert_all(connection, _INSERT_MEASUREMENT, where, outcome.measurements)
    if outcome.records is not None:
        content = {"split": "search", "content": outcome.records}
        connection.execute(_INSERT_RECORDS, {**where, **content})


def insert_session(
    connection: Connection, study: Study, number: int, facts: Mapping[str, Any]
) -> None:
    row = {"study_id": study.id, "began_at": time.time(), "number": number, "facts": dict(facts)}
    connection.execute(insert(schema.sessions).values(row))


def update_session(connection: Connection, study: Study, facts: Mapping[str, Any]) -> None:
    """Replace the facts of the study's last session."""
    table = schema.sessions
    last = select(func.max(table.c.id)).where(table.c.study_id == study.id).scalar_subquery()
    connection.execute(update(table).where(table.c.id == last).values(facts=dict(facts)))


def requeue_running(connection: Connection, study: Study) -> None:
    """What ran when its study was given up waits to be begun again."""
    table = schema.trials
    connection.execute(
        update(table)
        .where(table.c.study_id == study.id, table.c.state == "running")
        .values(state="queued")
    )


def insert_request(
    connection: Connection, study: Study, kind: str, payload: Mapping[str, Any], event: str
) -> None:
    """What somebody asks.

    Raises:
        UnknownStudy: The study was removed.
    """
    table = schema.studies.c
    # By name, too: SQLite may have given the number of a removed study to a new one.
    is_there = select(table.id).where(table.id == study.id, table.name == study.name)
    if connection.scalar(is_there) is None:
        raise removed(study)
    values = {"study_id": study.id, "kind": kind, "payload": dict(payload), "event": event}
    connection.execute(
        _new(connection.dialect.name, schema.requests), {**values, "created_at": time.time()}
    )


def insert_budget_change(
    connection: Connection, study: Study, budget: Mapping[str, Any], number: int, event: str
) -> None:
    """A handled request to extend, for a new budget that nobody asked of a running controller."""
    now = time.time()
    connection.execute(
        insert(schema.requests).values(
            study_id=study.id,
            kind="extend",
            payload=dict(budget),
            created_at=now,
            handled_at=now,
            number=number,
            event=event,
        )
    )


def mark_handled(
    connection: Connection,
    request_id: int,
    number: int | None,
    payload: Mapping[str, Any] | None = None,
) -> None:
    table = schema.requests
    changed: dict[str, Any] = {} if payload is None else {"payload": dict(payload)}
    connection.execute(
        update(table)
        .where(table.c.id == request_id)
        .values(handled_at=time.time(), number=number, **changed)
    )


def ensure_artifacts(connection: Connection, artifacts: Sequence[Artifact]) -> None:
    rows = [{**_row(a), "files": [_row(file) for file in a.files]} for a in artifacts]
    if rows:
        connection.execute(_new(connection.dialect.name, schema.artifacts), rows)


def storable(text: str) -> str:
    """The text without what a database refuses: the message of an error may quote any bytes."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


_trials = schema.trials.c
_END_TRIAL = (
    update(schema.trials)
    .where(
        _trials.study_id == bindparam("its_study"),
        _trials.number == bindparam("its_number"),
        _trials.finished_at.is_(None),
    )
    .values(
        {
            "state": bindparam("new_state"),
            "cause": bindparam("new_cause"),
            "artifact": bindparam("new_artifact"),
            "seconds": bindparam("new_seconds"),
            "reused_from": bindparam("new_reused_from"),
            "reused_study": bindparam("new_reused_study"),
            "deaths": _trials.deaths + bindparam("new_deaths"),
            "finished_at": bindparam("now"),
        }
    )
)
_INSERT_TRIAL = insert(schema.trials)
_INSERT_STAGE = insert(schema.stages)
_INSERT_MEASUREMENT = insert(schema.measurements)
_INSERT_KNOWN = insert(schema.known)
_INSERT_RECORDS = insert(schema.records)
_NAMES = {
    record: tuple(field.name for field in fields(record))
    for record in (NewStudy, Artifact, File, StageRun, Measurement)
}


@cache
def _new(dialect: str, table: Table) -> Insert:
    """An insert that leaves a row as it is which is there already."""
    dialects: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    statement: Insert = dialects[dialect](table).on_conflict_do_nothing()
    return statement


def _check_open(changed: int, study: Study, number: int) -> None:
    if changed != 1:
        raise ValueError(f"trial {number} of {study.name!r} is not running")


def _insert_all(
    connection: Connection, statement: Insert, where: Mapping[str, Any], records: Sequence[Any]
) -> None:
    rows = [{**where, "position": i, **_row(record)} for i, record in enumerate(records)]
    if rows:
        connection.execute(statement, rows)


def _row(record: Any) -> dict[str, Any]:
    """The fields of a record by name; unlike `asdict` it copies no value, so it is fast."""
    return {name: getattr(record, name) for name in _NAMES[type(record)]}


def _storable_stages(outcome: Outcome) -> tuple[StageRun, ...]:
    return tuple(replace(stage, note=storable(stage.note)) for stage in outcome.stages)


def _sha256(outcome: Outcome) -> str | None:
    return outcome.artifact.sha256 if outcome.artifact else None
