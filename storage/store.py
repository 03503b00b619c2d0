"""The study store: one transaction per event, one writer per study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from . import auditing, queries, removing, writing
from .errors import NameTaken
from .fencing import AlreadyDone, fence, new_event, renew_lease
from .lease import take_over
from .reading import check_new_study, name_taken
from .records import (
    ENDED_STATES,
    ORIGINS,
    STUDY_STATES,
    Known,
    Measurement,
    NewStudy,
    Outcome,
    Request,
    Study,
)
from .sharing import SharedStore

__all__ = ["Store", "check_new_study"]


class Store(SharedStore):
    """Studies in a database and their files beside it.

    Every write of a controller names its owner token and changes nothing once another controller
    has taken the study over (fencing). A fault of the database that may pass (locked, full, not
    reachable) is waited for; a write whose answer was lost is not done twice.

    Args:
        url: sqlite:///PATH, sqlite:// (in memory) or postgresql://...
        create: Make the tables if the database is empty; False for readers.
        files: The folder of artifacts and cached stages; default: beside an SQLite file
            (`naslite.db` -> `naslite.db.files`), else NASLITE_FILES or `naslite.files`.
        durability: normal or full, see `storage.database.connect`.
        retry_s: Seconds for which a fault is waited for.

    Raises:
        StoreError: See `storage.errors`.
    """

    def create_study(self, new: NewStudy, owner: str, known: Sequence[Known] = ()) -> Study:
        """Store a new study, owned by `owner`, with what is known about its candidates.

        Of two facts about the same candidate the first counts.

        Raises:
            NameTaken: A study of this name exists.
            ValueError: A measurement of a known fact is not finite.
            IntegrityError: A value is missing.
        """
        event = new_event()
        for fact in known:
            writing.check_finite(fact.outcome.measurements)

        def work(connection: Connection) -> None:
            removing.keep_artifacts(connection)
            study_id = writing.insert_study(connection, new, owner, event)
            writing.insert_known(connection, study_id, known)

        try:
            self._transactions.write("create_study", work)
        except IntegrityError:
            if not self.has_study(new.name):
                raise
            if not self._transactions.read(lambda c: queries.wrote(c, new.name, event)):
                raise NameTaken(name_taken(new.name)) from None
        return self.study(new.name)

    def claim(self, study: Study, owner: str) -> None:
        """Make `owner` the only one who may write to the study.

        Raises:
            StudyBusy: A live controller owns it.
            UnknownStudy: It was removed.
        """
        self._transactions.write("claim", lambda c: take_over(c, study, owner))

    def renew(
        self, study: Study, owner: str, *, is_hurried: Callable[[], bool] = lambda: False
    ) -> None:
        """Prolong the lease.

        Args:
            is_hurried: Asked while a fault is waited for; once it is true, see `hurry`.
        """
        self._transactions.write("renew", lambda c: renew_lease(c, study, owner), is_hurried)

    def release(
        self, study: Study, owner: str, state: str, cause: str = "", *, spent: float = 0.0
    ) -> None:
        """Give the study up in a state, so that another controller may claim it at once.

        Its running trials become queued ones.

        Args:
            spent: Seconds of searching since the last commit.
        """
        assert state in STUDY_STATES, state
        values = {
            "owner": "",
            "lease_until": 0.0,
            "state": state,
            "cause": writing.storable(cause),
        }
        work = partial(writing.requeue_running, study=study)
        self._event("release", study, owner, work, values, spent=spent)

    def set_budget(
        self,
        study: Study,
        owner: str,
        trials: int,
        minutes: float | None,
        number: int | None = None,
    ) -> None:
        """Give the study a new budget.

        Args:
            number: Of the first trial under it, to keep it among the `extensions`.
        """
        budget, event = {"trials": trials, "minutes": minutes}, new_event()

        def work(connection: Connection) -> None:
            if number is not None:
                writing.insert_budget_change(connection, study, budget, number, event)

        self._event("set_budget", study, owner, work, budget)

    def extend(
        self,
        study: Study,
        owner: str,
        request: Request,
        trials: int,
        minutes: float | None,
        number: int,
    ) -> None:
        """Answer a request to extend with a new budget.

        Args:
            number: Of the first trial under it.
        """
        budget = {"trials": trials, "minutes": minutes}
        asked = {**request.payload, **budget}
        self._event(
            "extend",
            study,
            owner,
            lambda c: writing.mark_handled(c, request.id, number, asked),
            budget,
        )

    def enqueue(
        self,
        study: Study,
        owner: str,
        request: Request,
        rows: Sequence[tuple[int, Mapping[str, Any], str, str]],
    ) -> None:
        """Answer a request to enqueue, or to continue, with queued trials.

        Args:
            rows: Number, candidate, candidate key and origin of each.
        """
        assert all(row[3] in ORIGINS for row in rows), rows

        def work(connection: Connection) -> None:
            writing.insert_queued(connection, study, rows)
            writing.mark_handled(connection, request.id, rows[0][0] if rows else None)

        self._event("enqueue", study, owner, work)

    def handle_request(
        self, study: Study, owner: str, request: Request, number: int | None = None
    ) -> None:
        """Mark a request as handled.

        Args:
            number: Of the first trial proposed after it.
        """
        self._event(
            "handle_request",
            study,
            owner,
            lambda c: writing.mark_handled(c, request.id, number),
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
        origin: str = "strategy",
    ) -> None:
        """Store a proposal with its memos, before anything of it is evaluated."""
        assert origin in ORIGINS, origin
        row = {
            "number": number,
            "candidate": dict(candidate),
            "candidate_key": candidate_key,
            "memo": dict(memo),
            "origin": origin,
        }
        values = {} if study_memo is None else {"memo": dict(study_memo)}
        self._event("propose", study, owner, lambda c: writing.insert_trial(c, study, row), values)

    def restart(self, study: Study, owner: str, number: int, *, died: bool = False) -> None:
        """Count one more attempt at a trial that did not end.

        Args:
            died: The worker of the attempt before it died under a live controller.

        Raises:
            ValueError: It ended, or there is none.
        """
        self._event(
            "restart", study, owner, lambda c: writing.restart_trial(c, study, number, died=died)
        )

    def finish(
        self,
        study: Study,
        owner: str,
        number: int,
        outcome: Outcome,
        *,
        spent: float | None = None,
        died: bool = False,
    ) -> None:
        """Store how a trial ended: state, stages, artifact and measurements, all or nothing.

        Args:
            spent: Seconds of searching since the last commit; default: those of the outcome.
            died: Whether it ended with the death of a worker, which is counted.

        Raises:
            ValueError: A measurement is not finite, or the trial is not running.
            CorruptFiles: The artifact's files are not in the store (any more).
        """
        assert outcome.state in ENDED_STATES, outcome.state
        writing.check_finite(outcome.measurements)

        def work(connection: Connection) -> None:
            # A store in memory has no other process that could remove the files.
            if outcome.artifact is not None and self.is_shared:
                removing.check_files(outcome.artifact.sha256, self.artifacts)
            writing.end_trial(connection, study, number, outcome, died=died)

        self._event(
            "finish",
            study,
            owner,
            work,
            keeps=outcome.artifact is not None,
            spent=outcome.seconds if spent is None else spent,
        )

    def audit(
        self,
        study: Study,
        owner: str,
        number: int,
        measurements: Sequence[Measurement],
        records: bytes | None = None,
    ) -> None:
        """Store what a complete trial measured after the search, instead of what it has of these
        metrics.

        Args:
            records: Of the samples of the audit split, packed; None leaves those it has.

        Raises:
            ValueError: A measurement is not finite, or the trial is not complete.
        """
        writing.check_finite(measurements)
        work = partial(
            auditing.write_audit,
            study=study,
            number=number,
            measurements=measurements,
            records=records,
        )
        self._event("audit", study, owner, work)

    def add_session(self, study: Study, owner: str, number: int, facts: Mapping[str, Any]) -> None:
        """Store that a controller runs the study from now on, and on what machine.

        Args:
            number: Of the next trial to be proposed.
        """
        work = partial(writing.insert_session, study=study, number=number, facts=facts)
        self._event("add_session", study, owner, work)

    def update_session(self, study: Study, owner: str, facts: Mapping[str, Any]) -> None:
        """Replace the facts of the session that was added last."""
        work = partial(writing.update_session, study=study, facts=facts)
        self._event("update_session", study, owner, work)

    def _event(
        self,
        name: str,
        study: Study,
        owner: str,
        work: Callable[[Connection], None],
        values: Mapping[str, Any] = {},
        *,
        keeps: bool = False,
        spent: float = 0.0,
    ) -> None:
        """A write of the owner, with new values of the study's row, done once.

        Args:
            keeps: It uses an artifact: none is removed meanwhile.
        """
        event = new_event()

        def fenced(connection: Connection) -> None:
            if keeps:
                removing.keep_artifacts(connection)
            fence(connection, study, owner, event, values, spent=spent)
            work(connection)

        with suppress(AlreadyDone):
            self._transactions.write(name, fenced)
