"""Timing a front again when its search has ended: what one moment shows, another may not."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from storage import CorruptFiles, Measurement, Store, Study, Trial

from .audit import by_file, front_of, is_unaudited
from .dispatch import Dispatcher
from .errors import one_line
from .file_timing import timed_alone, timing_seed
from .goals import Goals
from .jobs import Job, Timing
from .metrics import AUDIT, RATIO, latency_ratios, not_finite
from .observer import Observer
from .results import StudyResults
from .same_machine import differences

AFTER_SEARCH = 1  # of the turns of `timing_seed`: 0 is the search's, `verify` has those after

log = logging.getLogger("naslite.search")


def timed_once(trials: Iterable[Trial], baseline: Trial) -> list[Trial]:
    """Those that were timed against the baseline at one moment only. Who has the baseline's own
    file is none of them: its ratio is 1 by definition."""
    return [
        trial
        for trial in trials
        if RATIO in trial.metrics
        and f"{AUDIT}{RATIO}" not in trial.metrics
        and trial.artifact != baseline.artifact
    ]


def is_timed_once(results: StudyResults) -> bool:
    """Whether rows of a study's front are still to be timed again, which needs the CPU and the
    libraries that they were timed with before."""
    baseline = results.baseline()
    if baseline is None:
        return False
    rows = timed_once((row.trial for row in results.front()), baseline.trial)
    return bool(rows) and not differences(results.store, results.study, rows)


def is_to_measure_again(results: StudyResults) -> bool:
    """Whether rows of a study's front are still to be audited, or to be timed again."""
    return is_unaudited(results) or is_timed_once(results)


class Retiming:
    """Times the rows of a front once more, and stores what comes of it.

    Who picks the fastest of many measured at one moment each picks lucky moments as well, and a
    shared machine is another one some minutes later. The new ratio is stored as
    `audit_latency_ratio`, and the interval of `latency_ratio` is stretched to cover that of both
    timings, unless the new one is noisy; the ratio itself, by which the search went, stays.

    A row that cannot be timed is a warning; the study is none the worse for it.
    """

    def __init__(
        self, store: Store, study: Study, owner: str, goals: Goals, dispatcher: Dispatcher
    ) -> None:
        self._store = store
        self._study = study
        self._owner = owner
        self._goals = goals
        self._dispatcher = dispatcher
        self._ids = itertools.count(-1, -1)  # the dispatcher's own are positive

    def run(self, trials: list[Trial], observer: Observer, is_ended: Callable[[], bool]) -> bool:
        """Time what is still to be timed again.

        Args:
            trials: Of the study, by number; those timed again are replaced.
            is_ended: Asked again and again; once it is true, what runs is killed.

        Returns:
            Whether there was anything to time.
        """
        rows = timed_once(front_of(trials, self._goals), trials[0]) if trials else []
        if not rows:
            return False
        if differing := differences(self._store, self._study, rows):
            log.warning("the front is not timed again: %s", "; ".join(differing))
            return False
        if is_ended():
            return True
        observer.retiming(len(rows))
        for group in by_file(rows):
            if is_ended():
                break
            for again in self._timed(group, trials[0], is_ended):
                trials[again.number] = again
        return True

    def _timed(
        self, rows: list[Trial], baseline: Trial, is_ended: Callable[[], bool]
    ) -> list[Trial]:
        """The rows of one file with what timing it again has shown, stored."""
        try:
            job = self._job(rows[0], baseline)
        except (CorruptFiles, OSError) as error:
            return self._failed(rows[0], one_line(error))
        end = timed_alone(self._dispatcher.timer, self._dispatcher.lock, job, is_ended)
        if end is None:
            return []
        if end.kind != "returned":
            return self._failed(rows[0], end.cause)
        timings: tuple[Timing, ...] = tuple(end.value)
        self._dispatcher.controls.extend(t.control for t in timings if t.control is not None)
        found = {m.metric: m for m in latency_ratios(timings)}
        if wrong := not_finite(found.values()):
            return self._failed(rows[0], wrong)
        return [self._stored(trial, found) for trial in rows]

    def _failed(self, trial: Trial, cause: str) -> list[Trial]:
        log.warning("trial %d cannot be timed again: %s", trial.number, cause)
        return []

    def _job(self, trial: Trial, baseline: Trial) -> Job:
        own, reference = trial.artifact, baseline.artifact
        assert own is not None
        assert reference is not None
        paths = self._dispatcher.main_file(own), self._dispatcher.main_file(reference)
        arguments = (*paths, timing_seed(own, AFTER_SEARCH))
        return Job(next(self._ids), "time", arguments, self._dispatcher.timeout_s)

    def _stored(self, trial: Trial, found: dict[str, Measurement]) -> Trial:
        before = {m.metric: m for m in trial.measurements}
        changed = {
            **{name: _covering(before[name], m) for name, m in found.items() if name in before},
            **{f"{AUDIT}{name}": replace(m, metric=f"{AUDIT}{name}") for name, m in found.items()},
        }
        self._store.audit(self._study, self._owner, trial.number, tuple(changed.values()))
        return replace(trial, measurements=tuple({**before, **changed}.values()))


def _covering(first: Measurement, second: Measurement) -> Measurement:
    """The first ratio, noisy if it was, with an interval that covers those of both; one that was
    noisy only the second time says nothing of the first."""
    if second.noisy and not first.noisy:
        return first
    lows = [m.value if m.low is None else m.low for m in (first, second)]
    highs = [m.value if m.high is None else m.high for m in (first, second)]
    return replace(first, low=min(lows), high=max(highs))
