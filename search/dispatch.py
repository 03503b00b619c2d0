"""Taking trials through their jobs: build, score, time. It knows neither store nor strategy."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from storage import Artifact, CorruptFiles, Measurement, Outcome
from storage.artifacts import ContentStore

from .beside import beside
from .errors import NasliteError, one_line
from .executor import EpochEnded, Executor, untold
from .file_timing import timing_seed
from .jobs import Built, Control, Epoch, Job, JobEnd, Scored, Timing
from .metrics import not_finite
from .timing_lock import TimingLock
from .timing_queue import TimingQueue
from .trial_run import Baseline, Run, TrialEnd

if TYPE_CHECKING:
    from .stopping import Training

MEASURE = "measure"
POLL_S = 0.02  # where two executors, or a lock of others, must be watched

log = logging.getLogger("naslite.search")

MeasuredBefore = Callable[[str], tuple[int, tuple[Measurement, ...]] | None]


class Dispatcher:
    """Runs trials on executors, at most one job of a trial at a time.

    Args:
        builders: Its bench has `build` and `score` (see `evaluation.Workbench`).
        timer: Its bench has `time` (see `timing.Timer`).
        timeout_s: For all jobs of a trial together; None for ever.
        exclusive: Whether builds stand still while a file is timed.
        lock: Held while a file is timed, against the studies of other processes.
        needed: Metrics without which a trial has failed.
    """

    def __init__(
        self,
        builders: Executor,
        timer: Executor,
        artifacts: ContentStore,
        *,
        score_name: str,
        higher_is_better: bool,
        timeout_s: float | None = None,
        exclusive: bool = True,
        lock: TimingLock | None = None,
        needed: Collection[str] = (),
    ) -> None:
        self.measured_before: MeasuredBefore = lambda sha256: None
        self.epoch_ended: EpochEnded = untold  # with the number of a trial
        self.controls: list[Control] = []  # of timings since, for the controller to take
        self.builders = builders
        builders.epoch_ended = self._hear
        self.timer = timer
        self.lock = lock or TimingLock(None)
        self._artifacts = artifacts
        self._score_name = score_name
        self._higher_is_better = higher_is_better
        self.timeout_s = timeout_s
        self._exclusive = exclusive
        self._needed = frozenset(needed)
        self._ids = 0
        self._waiting: deque[tuple[Run, str, tuple[Any, ...]]] = deque()  # for a builder
        self._building: dict[int, Run] = {}  # by job
        self._timing: TimingQueue[Run] = TimingQueue(
            timer, builders, exclusive=exclusive, lock=self.lock
        )
        self._seen: list[JobEnd] = []  # while files were read
        self._ended: list[TrialEnd] = []
        self._fault: NasliteError | None = None

    @property
    def running(self) -> set[int]:
        """The numbers of the trials that have begun and not ended."""
        waiting = [run for run, _, _ in self._waiting]
        return {run.number for run in (*waiting, *self._building.values(), *self._timing.runs)}

    @property
    def has_room(self) -> bool:
        """Whether another trial would start at once."""
        slots, building = self.builders.slots, len(self._building) + len(self._waiting)
        return self._fault is None and building < slots and len(self._timing.waiting) < slots

    def start(
        self,
        number: int,
        candidate: Mapping[str, Any],
        baseline: Baseline | None,
        peers: tuple[Training, ...] | None = None,
    ) -> None:
        """Begin a trial; `baseline` None if it is the baseline itself; `peers`: see `Run`."""
        run = Run(number, dict(candidate), baseline, peers)
        self._enqueue(run, "build", run.build_arguments)

    def wait(self, timeout_s: float) -> list[TrialEnd]:
        """The trials that have ended since; waits up to `timeout_s` for something to happen.

        Raises:
            NasliteError: A worker cannot even load the task. What has ended is returned first.
        """
        if self._fault is not None:
            raise self._fault
        self._begin_timing()
        ends, self._seen = self._seen, []
        for end in ends + self._job_ends(0 if ends else timeout_s):
            self._take(end)
        self._submit()
        self._begin_timing()
        ended, self._ended = self._ended, []
        if self._fault is not None and not ended:
            raise self._fault
        return ended

    def abandon(self) -> None:
        """Kill whatever runs; the trials do not end."""
        try:
            for job in self._building:
                self.builders.cancel(job)
        finally:
            self._timing.clear()
        self._building.clear()
        self._waiting.clear()
        self._seen.clear()
        self._ended.clear()

    def close(self) -> None:
        with closing(self.timer), closing(self.builders):
            self.abandon()

    def _hear(self, job: int, epoch: Epoch) -> None:
        if job in self._building:
            self.epoch_ended(self._building[job].number, epoch)

    def _job_ends(self, timeout_s: float) -> list[JobEnd]:
        if self._timing.current is None:
            if self._timing.waiting:  # others are timing
                timeout_s = min(timeout_s, POLL_S)
                if not self._building:  # nor does the executor wait for nothing
                    time.sleep(timeout_s)
            return self.builders.wait(timeout_s)
        if self._exclusive or not self._building:
            return self.timer.wait(timeout_s) + self.builders.wait(0)
        return self.timer.wait(POLL_S) + self.builders.wait(POLL_S)

    def _enqueue(self, run: Run, method: str, arguments: tuple[Any, ...]) -> None:
        self._waiting.append((run, method, arguments))
        self._submit()

    def _submit(self) -> None:
        while self._waiting and len(self._building) < self.builders.slots:
            run, method, arguments = self._waiting.popleft()
            job = self._job(run, method, arguments)
            if self._timing.current is not None and not self._exclusive:
                self._timing.current.is_noisy = True
            self._building[job.id] = run
            self.builders.submit(job)

    def _job(self, run: Run, method: str, arguments: tuple[Any, ...]) -> Job:
        self._ids += 1
        left = self.timeout_s and max(1e-3, self.timeout_s - run.seconds)
        return Job(self._ids, method, arguments, left)

    def _take(self, end: JobEnd) -> None:
        """What follows from the end of a job."""
        run = self._timing.end(end.job) or self._building.pop(end.job.id)
        run.seconds += end.seconds
        if end.kind == "broken":
            self._fault = NasliteError(f"a worker cannot begin: {end.cause}")
            return
        if end.kind != "returned":
            self._take_failure(run, end)
        elif run.baseline_lost:
            self._take_repair(run, end.value)
        elif end.job.method == "build":
            self._take_built(run, end.value)
        elif end.job.method == "score":
            self._take_scored(run, end.value)
        else:
            self._take_timings(run, end.value)

    def _take_failure(self, run: Run, end: JobEnd) -> None:
        if end.is_corrupt and not run.was_rebuilt:
            self._rebuild(run, end.cause)
            return
        stage = end.stage or (MEASURE if end.job.method != "build" else "start")
        if end.kind == "raised":
            cause = f"{stage}: {end.cause}"
        elif end.kind == "expired" and self.timeout_s:  # not what other jobs left of it
            cause = f"no result after {self.timeout_s:g} s (limits.timeout) in stage {stage}"
        else:
            cause = f"{end.cause} in stage {stage}"
        if run.baseline_lost:
            self._end_without_baseline(run, cause, died=end.kind == "lost")
        else:
            stages = end.stages if end.job.method == "build" else run.stages
            self._end(replace(run, stages=stages), "failed", cause, died=end.kind == "lost")

    def _take_built(self, run: Run, built: Built) -> None:
        if not run.was_rebuilt:
            run.stages = built.stages
        run.artifact = built.artifact
        if built.artifact is None:
            self._end(run, built.state, built.cause)
            return
        if before := self.measured_before(built.artifact.sha256):
            self._end(run, "complete", measured=before[1], reused_from=before[0])
            return
        reference = run.baseline.records if run.baseline else None
        arguments = (built.artifact,) if reference is None else (built.artifact, reference)
        self._enqueue(run, "score", arguments)

    def _take_scored(self, run: Run, scored: Scored) -> None:
        run.scored = scored
        if scored.stopped:
            found = run.measurements(self._score_name, self._higher_is_better, ())
            wrong = not_finite(found)
            self._end(run, "stopped", scored.stopped, measured=() if wrong else found)
            return
        self._timing.put(run)

    def _take_timings(self, run: Run, timings: tuple[Timing, ...]) -> None:
        found = run.measurements(self._score_name, self._higher_is_better, tuple(timings))
        lacking = sorted(self._needed - {m.metric for m in found})
        wrong = not_finite(found)
        if lacking and not wrong:
            wrong = f"{lacking[0]} was not measured, and the study asks for it"
        if wrong:
            self._end(run, "failed", f"{MEASURE}: {wrong}")
            return
        self.controls.extend(t.control for t in timings if t.control is not None)
        self._end(run, "complete", measured=found)

    def _rebuild(self, run: Run, reason: str) -> None:
        """Make a trial's files again: somebody damaged them after they were written."""
        log.warning("trial %d: %s; its files are made again", run.number, reason)
        run.was_rebuilt = True
        self._enqueue(run, "build", run.build_arguments)

    def _take_repair(self, run: Run, built: Built) -> None:
        """The baseline was built again for a trial that waits to be timed against it."""
        assert run.baseline is not None
        run.baseline_lost, run.baseline_rebuilt = False, True
        found = built.artifact.sha256 if built.artifact else built.cause
        if found == run.baseline.artifact.sha256:
            self._timing.put(run)
        else:
            self._end_without_baseline(run, found)

    def _begin_timing(self) -> None:
        self._timing.begin(self._timing_job)

    def _timing_job(self, run: Run) -> Job | None:
        paths = self._paths(run)
        if paths is None:
            return None
        assert run.artifact is not None
        run.is_noisy = not self._exclusive and bool(self._building)
        return self._job(run, "time", (*paths, timing_seed(run.artifact)))

    def _paths(self, run: Run) -> tuple[Any, Any] | None:
        """The intact files of a trial and of the baseline; None if some cannot be had."""
        assert run.artifact is not None
        try:
            path = self.main_file(run.artifact)
        except (CorruptFiles, OSError) as error:
            if run.was_rebuilt or isinstance(error, OSError):
                self._end(run, "failed", f"{MEASURE}: {one_line(error)}")
            else:
                self._rebuild(run, str(error))
            return None
        if run.baseline is None:
            return path, None
        try:
            return path, self.main_file(run.baseline.artifact)
        except (CorruptFiles, OSError) as error:
            if run.baseline_rebuilt or isinstance(error, OSError):
                self._end_without_baseline(run, one_line(error))
            else:
                log.warning("%s; the baseline's files are made again", error)
                run.baseline_lost = True
                self._enqueue(run, "build", (run.baseline.candidate,))
            return None

    def main_file(self, artifact: Artifact) -> Any:
        """The path of the file that is loaded, all files having been compared with their SHA-256s.

        Raises:
            CorruptFiles, OSError
        """
        verified = partial(self._artifacts.verified, artifact.sha256)
        folder, facts = beside(self.builders, self._seen, verified)
        try:
            return folder / str(facts["main"])
        except KeyError:
            raise CorruptFiles(f"{folder} does not say which file is loaded") from None

    def _end_without_baseline(self, run: Run, reason: str, *, died: bool = False) -> None:
        self._end(run, "failed", f"{MEASURE}: the baseline's files are lost ({reason})", died=died)

    def _end(
        self,
        run: Run,
        state: str,
        cause: str = "",
        *,
        measured: tuple[Measurement, ...] = (),
        reused_from: int | None = None,
        died: bool = False,
    ) -> None:
        outcome = Outcome(
            state, cause, run.stages, run.artifact, measured, run.seconds, reused_from
        )
        if state == "complete" and run.scored is not None:
            outcome = replace(outcome, records=run.scored.records)
        self._ended.append(TrialEnd(run.number, outcome, died))
