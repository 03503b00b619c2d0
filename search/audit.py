"""The audit: once a search has ended, its front is scored on data that it has never seen."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from storage import Artifact, Measurement, Store, Study, Trial

from .dispatch import Dispatcher
from .goals import Goals
from .jobs import Job, JobEnd, Scored
from .metrics import BOUNDS_LEVEL, audit_names, not_finite, score_drop
from .observer import Observer
from .results import StudyResults

HAS_AUDIT = "has_audit"  # the fact of a study that its task has an audit split
TICK_S = 0.2

log = logging.getLogger("naslite.search")


def unaudited(study: Study, goals: Goals, trials: list[Trial]) -> list[Trial]:
    """The rows of the front that are still to be audited, and before them the baseline."""
    if not study.facts.get(HAS_AUDIT):
        return []
    audited = audit_names(study.facts["score_name"])[0]
    return [trial for trial in front_of(trials, goals) if audited not in trial.metrics]


def is_unaudited(results: StudyResults) -> bool:
    """Whether rows of the front of a study are still to be audited; it reads no others."""
    if not results.study.facts.get(HAS_AUDIT):
        return False
    audited = audit_names(results.study.facts["score_name"])[0]
    baseline = results.baseline()
    return baseline is not None and any(
        audited not in row.metrics for row in [baseline, *results.front()]
    )


def front_of(trials: list[Trial], goals: Goals) -> list[Trial]:
    """The baseline, and the rows of the front by number; none where there is no baseline."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.artifact]
    if not complete or complete[0].number != 0:
        return []
    metrics = [trial.metrics for trial in complete]
    table = np.array([[found[name] for name in goals.names] for found in metrics], dtype=float)
    is_wanted = goals.on_front(table)
    is_wanted[0] = True
    return [trial for trial, wanted in zip(complete, is_wanted, strict=True) if wanted]


def by_file(rows: list[Trial]) -> list[list[Trial]]:
    """The rows of the same file together, since it is measured once; in the order of the rows."""
    files: dict[str, list[Trial]] = {}
    for trial in rows:
        assert trial.artifact is not None
        files.setdefault(trial.artifact.sha256, []).append(trial)
    return list(files.values())


class Audit:
    """Scores the rows of a front on the build workers, and stores what comes of it.

    A row that cannot be audited is a warning; the study is none the worse for it.
    """

    def __init__(
        self, store: Store, study: Study, owner: str, goals: Goals, dispatcher: Dispatcher
    ) -> None:
        self._store = store
        self._study = study
        self._owner = owner
        self._goals = goals
        self._builders = dispatcher.builders
        self._timeout_s = dispatcher.timeout_s
        self._ids = itertools.count(-1, -1)  # the dispatcher's own are positive

    def run(self, trials: list[Trial], observer: Observer, is_ended: Callable[[], bool]) -> bool:
        """Audit what is still to be audited.

        Args:
            trials: Of the study, by number; audited ones are replaced.
            is_ended: Asked again and again; once it is true, what runs is killed.

        Returns:
            Whether there was anything to audit.
        """
        rows = unaudited(self._study, self._goals, trials)
        if not rows:
            return False
        observer.auditing(len(rows))
        groups = [[trial.number for trial in group] for group in by_file(rows)]
        if groups[0][0] == 0:  # what the others are compared with
            self._score(groups[:1], trials, None, is_ended)
            groups = groups[1:]
        reference = self._store.records(self._study, 0, "audit")
        if self._name in trials[0].metrics:
            self._score(groups, trials, reference, is_ended)
        return True

    @property
    def _name(self) -> str:
        return audit_names(self._study.facts["score_name"])[0]

    def _score(
        self,
        groups: list[list[int]],
        trials: list[Trial],
        reference: bytes | None,
        is_ended: Callable[[], bool],
    ) -> None:
        """Score the file of each group of trials, as many at a time as there are workers."""
        waiting, running = list(groups), dict[int, list[int]]()
        try:
            while (waiting or running) and not is_ended():
                while waiting and len(running) < self._builders.slots:
                    numbers = waiting.pop(0)
                    job = self._job(trials[numbers[0]].artifact, reference)
                    running[job.id] = numbers
                    self._builders.submit(job)
                for end in self._builders.wait(TICK_S):
                    self._take(end, running.pop(end.job.id), trials)
        finally:
            for id in running:
                self._builders.cancel(id)

    def _job(self, artifact: Artifact | None, reference: bytes | None) -> Job:
        return Job(next(self._ids), "audit", (artifact, reference), self._timeout_s)

    def _take(self, end: JobEnd, numbers: list[int], trials: list[Trial]) -> None:
        found: Scored | None = end.value
        if end.kind != "returned" or found is None:
            cause = end.cause or "the task has no audit split any more"
            log.warning("trial %d cannot be audited: %s", numbers[0], cause)
            return
        for number in numbers:
            measured = self._measurements(number, found, trials[0])
            if wrong := not_finite(measured):
                log.warning("trial %d cannot be audited: %s", number, wrong)
                continue
            self._store.audit(self._study, self._owner, number, measured, found.records)
            others = [
                m for m in trials[number].measurements if not m.metric.startswith(self._name)
            ]
            trials[number] = replace(trials[number], measurements=(*others, *measured))

    def _measurements(
        self, number: int, found: Scored, baseline: Trial
    ) -> tuple[Measurement, ...]:
        facts = self._study.facts
        name, drop = audit_names(facts["score_name"])
        before = found.score if number == 0 else baseline.metrics[name]
        lost = score_drop(before, found.score, facts["higher_is_better"])
        low, high = found.interval or (None, None)
        least, most = (0.0, 0.0) if number == 0 else found.drop or (None, None)
        return (
            Measurement(name, found.score, "", low, high, found.samples),
            Measurement(drop, lost, "", least, most, found.samples, level=BOUNDS_LEVEL),
        )
