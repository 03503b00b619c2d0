"""The study store: one transaction per event, one writer per study."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from . import queries, schema
from .artifacts import file_stores
from .database import (
    check_writable,
    connect,
    files_folder,
    first_line,
    parse_url,
    sqlite_file,
)
from .errors import NameTaken, NoStore, StoreError, StudyBusy, UnknownStudy
from .lease import is_alive, lease_end, new_owner, take_over
from .records import (
    ENDED_STATES,
    REQUESTS,
    STUDY_STATES,
    NewStudy,
    Outcome,
    Request,
    Study,
    StudySummary,
    Trial,
)
from .writing import ensure_artifact, insert_all, storable, update_open_trial, update_study


class Store:
    """Studies in a database and their files beside it.

    Every write of a controller names its owner token and changes nothing once another controller
    has taken the study over (fencing).

    Args:
        url: sqlite:///PATH, sqlite:// (in memory) or postgresql://...
        create: Make the tables if the database is empty; False for readers.
        files: The folder of artifacts and cached stages; default: beside an SQLite file
            (`naslite.db` -> `naslite.db.files`), else NASLITE_FILES or `naslite.files`.

    Raises:
        StoreError: See `storage.errors`.
    """

    def __init__(self, url: str, *, create: bool = True, files: Path | None = None) -> None:
        self.url = url
        self.is_shared = sqlite_file(parse_url(url)) is not None or not url.startswith("sqlite")
        self._engine = connect(parse_url(url), create=create)
        self.artifacts, self.stages = file_stores(files or files_folder(url))

    def close(self) -> None:
        self._engine.dispose()

    # Reading

    def study(self, name: str) -> Study:
        with self._reading() as connection:
            found = queries.study_named(connection, name)
            if found is None:
                names = [s.study.name for s in queries.summaries(connection)]
        if found is None:
            known = ", ".join(names[-10:]) if names else "none yet"
            shown = parse_url(self.url).render_as_string(hide_password=True)
            raise UnknownStudy(f"unknown study {name!r}; studies in {shown}: {known}")
        return self._as_seen(found)

    def studies(self) -> list[StudySummary]:
        with self._reading() as connection:
            found = queries.summaries(connection)
        return [replace(summary, study=self._as_seen(summary.study)) for summary in found]

    def trials(self, study: Study, *, since: int = 0) -> list[Trial]:
        with self._reading() as connection:
            return queries.trials(connection, study.id, since=since)

    def has_study(self, name: str) -> bool:
        with self._reading() as connection:
            return queries.study_named(connection, name) is not None

    def requests(self, study: Study) -> list[Request]:
        """What was asked of the study's controller and not handled yet, the oldest first."""
        with self._reading() as connection:
            return queries.open_requests(connection, study.id)

    def is_live(self, study: Study) -> bool:
        """Whether a controller runs the study, as far as its lease and its process tell."""
        holds = bool(study.owner) and study.lease_until > time.time()
        return holds and is_alive(study.owner)

    # Requests of others

    def add_request(self, study: Study, kind: str, payload: Mapping[str, Any] = {}) -> None:
        assert kind in REQUESTS, kind
        with self._writing() as connection:
            connection.execute(
                insert(schema.requests).values(
                    study_id=study.id, kind=kind, payload=dict(payload), created_at=time.time()
                )
            )

    def remove(self, name: str) -> list[str]:
        """Delete a study and the artifacts that no other study uses; returns their SHA-256s.

        Raises:
            UnknownStudy, StudyBusy
        """
        study = self.study(name)
        with self._writing() as connection:
            take_over(connection, study, new_owner())
            connection.execute(delete(schema.studies).where(schema.studies.c.id == study.id))
            unused = queries.unused_artifacts(connection)
            connection.execute(
                delete(schema.artifacts).where(schema.artifacts.c.sha256.not_in(queries.USED))
            )
        for sha256 in unused:
            self.artifacts.remove(sha256)
        return unused

    # The controller's events

    def create_study(self, new: NewStudy, owner: str) -> Study:
        """Store a new study, owned by `owner`.

        Raises:
            NameTaken: A study of this name exists.
        """
        now = time.time()
        try:
            with self._writing() as connection:
                connection.execute(
                    insert(schema.studies).values(
                        **asdict(new),
                        state="running",
                        memo={},
                        owner=owner,
                        lease_until=lease_end(now),
                        created_at=now,
                        updated_at=now,
                    )
                )
        except IntegrityError:
            raise NameTaken(name_taken(new.name)) from None
        return self.study(new.name)

    def claim(self, study: Study, owner: str) -> None:
        """Make `owner` the only one who may write to the study.

        Raises:
            StudyBusy: A live controller owns it.
        """
        with self._writing() as connection:
            take_over(connection, study, owner)

    def renew(self, study: Study, owner: str) -> None:
        """Prolong the lease."""
        with self._fenced(study, owner):
            pass

    def release(self, study: Study, owner: str, state: str, cause: str = "") -> None:
        """Give the study up in a state, so that another controller may claim it at once."""
        assert state in STUDY_STATES, state
        with self._fenced(study, owner) as connection:
            given_up = {"owner": "", "lease_until": 0.0, "state": state, "cause": storable(cause)}
            update_study(connection, study, **given_up)

    def set_budget(self, study: Study, owner: str, trials: int, minutes: float | None) -> None:
        with self._fenced(study, owner) as connection:
            update_study(connection, study, trials=trials, minutes=minutes)

    def handle_request(self, study: Study, owner: str, request: Request) -> None:
        with self._fenced(study, owner) as connection:
            table = schema.requests
            connection.execute(
                update(table).where(table.c.id == request.id).values(handled_at=time.time())
            )

    def propose(
        self,
        study: Study,
        owner: str,
        number: int,
        candidate: Mapping[str, Any],
        candidate_key: str,
        *,
        memo: Mapping[str, Any] = {},
        study_memo: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a proposal with its memos, before anything of it is evaluated."""
        with self._fenced(study, owner) as connection:
            connection.execute(
                insert(schema.trials).values(
                    study_id=study.id,
                    number=number,
                    state="running",
                    candidate=dict(candidate),
                    candidate_key=candidate_key,
                    memo=dict(memo),
                    created_at=time.time(),
                )
            )
            if study_memo is not None:
                update_study(connection, study, memo=dict(study_memo))

    def restart(self, study: Study, owner: str, number: int) -> None:
        """Count one more attempt at a trial that did not end.

        Raises:
            ValueError: It ended, or there is none.
        """
        with self._fenced(study, owner) as connection:
            update_open_trial(
                connection, study, number, state="running", attempt=schema.trials.c.attempt + 1
            )

    def finish(self, study: Study, owner: str, number: int, outcome: Outcome) -> None:
        """Store how a trial ended: state, stages, artifact and measurements, all or nothing.

        Raises:
            ValueError: A measurement is not finite, or the trial is not running.
        """
        assert outcome.state in ENDED_STATES, outcome.state
        for m in outcome.measurements:
            if not all(math.isfinite(x) for x in (m.value, m.low, m.high) if x is not None):
                raise ValueError(f"a measurement must be finite, got {m}")
        with self._fenced(study, owner) as connection:
            if outcome.artifact is not None:
                ensure_artifact(connection, outcome.artifact)
            update_open_trial(
                connection,
                study,
                number,
                state=outcome.state,
                cause=storable(outcome.cause),
                artifact=outcome.artifact.sha256 if outcome.artifact else None,
                seconds=outcome.seconds,
                reused_from=outcome.reused_from,
                finished_at=time.time(),
            )
            where = {"study_id": study.id, "number": number}
            stages = tuple(replace(s, note=storable(s.note)) for s in outcome.stages)
            insert_all(connection, schema.stages, where, stages)
            insert_all(connection, schema.measurements, where, outcome.measurements)
            spent = schema.studies.c.seconds + outcome.seconds
            update_study(connection, study, seconds=spent)

    def _as_seen(self, study: Study) -> Study:
        """A study whose controller is gone is interrupted, though it could not say so."""
        if study.state != "running" or self.is_live(study):
            return study
        return replace(study, state="interrupted", cause="its controller is gone")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A read transaction: all its queries see the same moment."""
        with _store_errors(self._engine), self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A write transaction: all or nothing."""
        with _store_errors(self._engine), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _fenced(self, study: Study, owner: str) -> Iterator[Connection]:
        """A transaction that begins by renewing the lease, and fails if it was taken over."""
        with self._writing() as connection:
            now = time.time()
            table = schema.studies
            changed = connection.execute(
                update(table)
                .where(table.c.id == study.id, table.c.owner == owner)
                .values(lease_until=lease_end(now), updated_at=now)
            )
            if changed.rowcount != 1:
                raise StudyBusy(
                    f"study {study.name!r} was taken over or removed; this controller stops"
                )
            yield connection


@contextmanager
def _store_errors(engine: Engine) -> Iterator[None]:
    """A locked database, a full disk or a lost server as one line."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise StoreError(f"the store {shown} failed: {first_line(error)}") from error


def check_new_study(url: str, name: str) -> None:
    """Check, without writing, that a study of this name can be created at this address.

    Raises:
        StoreError: The name is taken, the database is not ours, or it cannot be written.
    """
    path = sqlite_file(parse_url(url))
    try:
        store = Store(url, create=False)
    except NoStore:
        if path is not None:
            check_writable(path)
        return
    try:
        if store.has_study(name):
            raise NameTaken(name_taken(name))
    finally:
        store.close()
    if path is not None:
        check_writable(path)


def name_taken(name: str) -> str:
    return (
        f"a study named {name!r} exists; continue it with `naslite resume {name}`"
        " or choose another --name"
    )
