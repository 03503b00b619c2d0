"""What a store says: studies, their trials, requests and known facts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from . import queries
from .artifacts import file_stores
from .database import address, check_writable, connect, files_folder, parse_url, sqlite_file
from .errors import NameTaken, NoStore, UnknownStudy
from .lease import busy, check_lease, holds
from .records import (
    SPLITS,
    Extension,
    Facts,
    Outcome,
    Request,
    Session,
    Study,
    StudySummary,
    Trial,
)
from .retrying import RETRY_S
from .transactions import Transactions

_T = TypeVar("_T")


class StoreReader:
    """The part of a store that reads; `Store` is what to use."""

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        files: Path | None = None,
        durability: str = "normal",
        retry_s: float = RETRY_S,
    ) -> None:
        check_lease()
        self.url = url
        self.is_shared = sqlite_file(parse_url(url)) is not None or not url.startswith("sqlite")
        engine = connect(parse_url(url), create=create, durability=durability)
        self.artifacts, self.stages = file_stores(files or files_folder(url))
        self._transactions = Transactions(engine, retry_s=retry_s)

    @property
    def faults(self) -> Callable[[str], None] | None:
        """For tests of crashes, off by default: called with `EVENT/1`, `EVENT/2`... before each
        statement of a write, with `EVENT/commit` before its commit, `EVENT/committed` after it;
        EVENT is the method, such as `propose`."""
        return self._transactions.faults

    @faults.setter
    def faults(self, called: Callable[[str], None] | None) -> None:
        self._transactions.faults = called

    def hurry(self) -> None:
        """Wait for a fault of the database 2 s at most from now on, because a user waits for us;
        any thread or signal handler may call it."""
        self._transactions.hurry()

    def close(self) -> None:
        self._transactions.engine.dispose()

    def study(self, name: str) -> Study:
        """A study by its name.

        Raises:
            UnknownStudy
        """
        found, names = self._transactions.read(lambda c: queries.study_or_names(c, name))
        if found is None:
            known = ", ".join(names[-10:]) if names else "none yet"
            shown = address(parse_url(self.url))
            raise UnknownStudy(f"unknown study {name!r}; studies in {shown}: {known}")
        return self._as_seen(found)

    def studies(self) -> list[StudySummary]:
        """All studies, the oldest first, with the count of trials in each state."""
        found = self._transactions.read(queries.summaries)
        return [replace(summary, study=self._as_seen(summary.study)) for summary in found]

    def has_study(self, name: str) -> bool:
        return self._transactions.read(lambda c: queries.has_study(c, name))

    def trials(
        self,
        study: Study,
        *,
        since: int = 0,
        stages: bool = True,
        numbers: Collection[int] | None = None,
    ) -> list[Trial]:
        """The trials with number >= since, or only those of some numbers, by number.

        Args:
            stages: False leaves them out of the trials, which is faster.
        """
        return self._transactions.read(
            lambda c: queries.trials(c, study.id, since=since, stages=stages, numbers=numbers)
        )

    def facts(self, study: Study, metrics: Sequence[str], knobs: Sequence[str] = ()) -> Facts:
        """What a query needs of the complete trials, and fast: `seconds`, and these metrics and
        knobs."""
        return self._transactions.read(lambda c: queries.facts(c, study.id, metrics, knobs))

    def known(self, study: Study) -> dict[str, Outcome]:
        """What was known about candidates when the study was created, by candidate key."""
        return self._transactions.read(lambda c: queries.known(c, study.id))

    def records(self, study: Study, number: int, split: str = "search") -> bytes | None:
        """The packed records of a trial's samples, or of the trial whose measurements it took
        over; None if there are none."""
        assert split in SPLITS, split
        return self._transactions.read(lambda c: queries.records(c, study.id, number, split))

    def sessions(self, study: Study) -> list[Session]:
        """The times in which a controller ran the study, in order."""
        return self._transactions.read(lambda c: queries.sessions(c, study.id))

    def requests(self, study: Study) -> list[Request]:
        """What was asked of the study's controller and not handled yet, the oldest first."""
        return self._transactions.read(lambda c: queries.open_requests(c, study.id))

    def extensions(self, study: Study) -> list[Extension]:
        """The changes of the study's budget, by the number of the first trial under each."""
        return self._transactions.read(lambda c: queries.extensions(c, study.id))

    def used_artifacts(self) -> frozenset[str]:
        """The SHA-256s of all artifacts that a trial or a known fact points to."""
        return self._transactions.read(queries.used_artifacts)

    def is_live(self, study: Study) -> bool:
        """Whether a controller runs the study, as far as its lease and its process tell."""
        return holds(study.owner, study.lease_until, time.time())

    def read(self, work: Callable[[Connection], _T]) -> _T:
        """What a function of a connection returns; all that it reads is of one moment."""
        return self._transactions.read(work)

    def check_free(self, study: Study) -> None:
        """Check, without writing, that nobody runs the study.

        Raises:
            StudyBusy
        """
        if self.is_live(study):
            raise busy(study.name, study.owner, study.claimed_at)

    def _as_seen(self, study: Study) -> Study:
        """A study whose controller is gone is interrupted, though it could not say so."""
        if study.state != "running" or self.is_live(study):
            return study
        return replace(study, state="interrupted", cause="its controller is gone")


def check_new_study(url: str, name: str) -> None:
    """Check, without writing, that a study of this name can be created at this address.

    Raises:
        StoreError: The name is taken (StudyBusy if that study runs), the database is not ours, or
            it cannot be written.
    """
    path = sqlite_file(parse_url(url))
    try:
        store = StoreReader(url, create=False)
    except NoStore:
        if path is not None:
            check_writable(path)
        return
    try:
        if store.has_study(name):
            store.check_free(store.study(name))
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
