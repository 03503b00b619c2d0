"""A supervised pool of worker processes: whatever a job does, the pool lives on."""

from __future__ import annotations

import logging
import pickle
import select
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .channel import Damaged
from .errors import one_line
from .executor import EpochEnded, untold
from .jobs import BenchSpec, Epoch, Job, JobEnd
from .processes import WorkerProcess
from .protocol import heard
from .sizes import format_bytes
from .starting import Starts

if TYPE_CHECKING:
    from storage.records import StageRun

START = "start"  # the stage of a job whose worker still makes its bench
TICK_S = 0.1  # between looks at what no message tells: deaths, time, memory
MEMORY_S = 0.2  # between looks at the memory of a worker,
MEMORY_SHARE = 0.02  # or longer, so that looking takes no more than this share of a core
PARTIAL_S = 30.0  # beyond its time for a job whose result is already on its way

log = logging.getLogger("naslite.search")


@dataclass(slots=True)
class _Running:
    """A job and the last that its worker said of it; `began` None while the bench is made."""

    job: Job
    stood_s: float  # pauses before it was handed out
    began: float | None = None
    stage: str = ""
    stages: tuple[StageRun, ...] = ()


@dataclass(slots=True, eq=False)
class _Worker:
    process: WorkerProcess
    started: float
    after: int  # failures to start when it was started
    is_ready: bool = False
    running: _Running | None = None
    memory_due: float = 0.0


class ProcessPool:
    """An `Executor` of up to `slots` processes, each with a bench of its own.

    A process is started when a job needs one, is kept for the next job, and is replaced when it
    has died. Use a pool from one thread at a time. If that is not the main thread, it may end
    before the pool is closed: the workers do not end with it, only with their whole parent.

    Supervision happens inside `wait`, in the calling thread, so call it often. It never blocks
    for longer than a tenth of a second without letting Python run signal handlers.

    Args:
        memory_bytes: Resident memory that a worker may use with all that it has started.
        log: What workers print is appended here, with tracebacks of errors and crashes.
        environment: Variables that workers have beyond this process's.
        scratch: Where each worker has a folder for temporary files, until it is dead.
        start_timeout_s: Seconds in which a bench must be made.
    """

    def __init__(
        self,
        spec: BenchSpec,
        slots: int = 1,
        *,
        memory_bytes: int | None = None,
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        scratch: Path | None = None,
        start_timeout_s: float = 600.0,
    ) -> None:
        if slots < 1:
            raise ValueError(f"a pool needs at least one slot, got {slots}")
        self.spec = spec
        self.slots = slots
        self.epoch_ended: EpochEnded = untold
        self._memory_bytes = memory_bytes
        self._log = log
        self._environment = dict(environment or {})
        self._scratch = scratch
        self._start_timeout_s = start_timeout_s
        self._queue: deque[Job] = deque()
        self._workers: list[_Worker] = []
        self._ends: list[JobEnd] = []
        self._starts = Starts()
        self._paused_at: float | None = None
        self._paused_s = 0.0
        self._is_closed = False

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def busy(self) -> int:
        return len(self._queue) + sum(worker.running is not None for worker in self._workers)

    def submit(self, job: Job) -> None:
        if self._is_closed:
            raise RuntimeError("a closed pool takes no jobs; open another")
        self._queue.append(job)
        self._assign()

    def wait(self, timeout_s: float) -> list[JobEnd]:
        deadline = time.monotonic() + timeout_s
        while True:
            left = 0.0 if self._ends or not self.busy else deadline - time.monotonic()
            self._listen(min(max(left, 0.0), TICK_S))
            for worker in list(self._workers):
                self._look(worker)
            self._assign()
            if self._ends or not self.busy or time.monotonic() >= deadline:
                ends, self._ends = self._ends, []
                return ends

    def cancel(self, id: int) -> None:
        self._queue = deque(job for job in self._queue if job.id != id)
        self._ends = [end for end in self._ends if end.job.id != id]
        for worker in list(self._workers):
            if worker.running is not None and worker.running.job.id == id:
                self._kill(worker)

    def pause(self) -> None:
        if self._paused_at is None:
            self._paused_at = time.monotonic()
            for worker in self._workers:
                worker.process.pause()

    def resume(self) -> None:
        if self._paused_at is not None:
            self._paused_s += time.monotonic() - self._paused_at
            self._paused_at = None
            for worker in self._workers:
                worker.process.resume()
            self._assign()

    def close(self) -> None:
        self._is_closed = True
        self._queue.clear()
        for worker in list(self._workers):
            self._kill(worker)
        self._ends.clear()

    def _now(self) -> float:
        """Seconds on a clock that stands still during pauses."""
        return time.monotonic() - self._stood_s()

    def _stood_s(self) -> float:
        """Seconds of all pauses so far."""
        since = 0.0 if self._paused_at is None else time.monotonic() - self._paused_at
        return self._paused_s + since

    def _assign(self) -> None:
        """Give waiting jobs to idle workers; during a pause they wait on."""
        while self._queue and self._paused_at is None:
            idle = [worker for worker in self._workers if worker.running is None]
            if not idle and (len(self._workers) == self.slots or not self._starts.are_due):
                return
            if idle and idle[0].process.is_dead:
                self._kill(idle[0])
                continue
            job = self._queue.popleft()
            try:
                message = pickle.dumps((job.method, job.arguments))
            except Exception as error:
                cause = f"the arguments of {job.method} cannot be pickled: {one_line(error)}"
                self._ends.append(JobEnd(job, "raised", cause=cause))
                continue
            try:
                worker = idle[0] if idle else self._start()
            except (OSError, MemoryError) as error:
                cause = f"no worker can be started: {one_line(error)}"
                self._take_failed_start(job, self._starts.failures, cause, may_pass=True)
                continue
            began = self._now() if worker.is_ready else None
            worker.running = _Running(job, self._stood_s(), began)
            worker.process.channel.send(message)

    def _start(self) -> _Worker:
        process = WorkerProcess(
            self.spec, log=self._log, environment=self._environment, scratch=self._scratch
        )
        worker = _Worker(process, self._now(), self._starts.failures)
        self._workers.append(worker)
        return worker

    def _take_failed_start(self, job: Job, after: int, cause: str, *, may_pass: bool) -> None:
        """A job whose worker could not begin is for the next worker, unless there is no hope."""
        if self._starts.fail(after, may_pass=may_pass):
            self._ends.append(JobEnd(job, "broken", cause=cause, stage=START))
        else:
            log.warning("a worker cannot begin, another one is started soon: %s", cause)
            self._queue.appendleft(job)

    def _listen(self, timeout_s: float) -> None:
        """Wait until a worker says something, dies or takes what was not sent yet."""
        poll = select.poll()
        for worker in self._workers:
            channel = worker.process.channel
            unsent = select.POLLOUT if channel.has_unsent else 0
            poll.register(channel, select.POLLIN | unsent)
        poll.poll(timeout_s * 1000)

    def _look(self, worker: _Worker) -> None:
        """Take note of all that has happened to a worker."""
        channel = worker.process.channel
        channel.flush()
        was_dead = worker.process.is_dead  # asked first: then all that it sent has arrived
        try:
            messages = channel.receive()
            while was_dead and (more := channel.receive()):
                messages += more
            for message in messages:
                self._hear(worker, message)
                if worker not in self._workers:  # it could not make its bench
                    return
        except Damaged as error:
            self._kill(worker)
            self._end(worker, "lost", f"worker sent what is no message ({error})")
            return
        if was_dead or channel.is_closed:
            self._bury(worker)
        elif self._paused_at is None:
            self._limit(worker)

    def _hear(self, worker: _Worker, message: bytes) -> None:
        kind, content = heard(message)
        running = worker.running
        if kind == "ready":
            worker.is_ready = True
            self._starts.succeed()
            if running is not None:
                running.began = self._now()
        elif kind == "broken":
            cause, may_pass = content
            self._break(worker, cause, may_pass=may_pass)
        elif running is None:
            return
        elif kind == "stage":
            running.stage, running.stages = content
        elif kind == "epoch":
            self.epoch_ended(running.job.id, Epoch(*content))
        else:
            # Its own clock ran on in pauses; ours, until we came to look.
            pauses_s = self._stood_s() - running.stood_s
            seconds = min(content[1], max(content[1] - pauses_s, self._seconds(running)))
            worker.running = None
            if kind == "returned":
                self._ends.append(JobEnd(running.job, kind, content[0], seconds=seconds))
                return
            cause, _, is_corrupt = content
            stage, stages = running.stage, running.stages
            self._ends.append(
                JobEnd(running.job, kind, None, cause, stage, stages, seconds, is_corrupt)
            )

    def _break(self, worker: _Worker, cause: str, *, may_pass: bool) -> None:
        """A worker could not make its bench."""
        self._kill(worker)
        running, worker.running = worker.running, None
        if running is not None:
            self._take_failed_start(running.job, worker.after, cause, may_pass=may_pass)

    def _bury(self, worker: _Worker) -> None:
        """A worker has died, or does not listen any more, which is as bad."""
        died = worker.process.ending()
        code = self._kill(worker)
        if not died:
            cause = "worker closed its connection"  # a job that closes what it did not open
        elif code < 0:
            cause = f"worker died (signal {-code})"
        else:
            cause = f"worker died (exit code {code})"
        self._end(worker, "lost", cause)

    def _limit(self, worker: _Worker) -> None:
        """Kill a worker whose job takes too long or too much memory."""
        running, now = worker.running, self._now()
        if running is not None and running.began is None:
            if now - worker.started > self._start_timeout_s:
                self._break(worker, f"no bench after {self._start_timeout_s:g} s", may_pass=True)
                return
        elif running is not None and running.job.timeout_s is not None:
            limit_s = running.job.timeout_s
            spare_s = PARTIAL_S if worker.process.channel.has_partial else 0.0
            if self._seconds(running) > limit_s + spare_s:
                self._kill(worker)
                self._end(
                    worker, "expired", f"no result after {round(limit_s, 2):g} s (limits.timeout)"
                )
                return
        limit = self._memory_bytes
        if limit is None or now < worker.memory_due:
            return
        began = time.perf_counter()
        used = worker.process.memory_bytes(limit)
        cost_s = time.perf_counter() - began
        worker.memory_due = now + max(MEMORY_S, cost_s / MEMORY_SHARE)
        if used > limit:
            self._kill(worker)
            said = f"{format_bytes(used)}, more than limits.memory = {format_bytes(limit)}"
            self._end(worker, "lost", f"used {said}")

    def _seconds(self, running: _Running) -> float:
        return 0.0 if running.began is None else self._now() - running.began

    def _kill(self, worker: _Worker) -> int:
        """Kill a worker and free its slot; what it ran is told by the caller, or not at all."""
        code = worker.process.kill()
        self._workers.remove(worker)
        return code

    def _end(self, worker: _Worker, kind: str, cause: str) -> None:
        running, worker.running = worker.running, None
        if running is None:
            return
        stage = START if running.began is None else running.stage
        seconds = self._seconds(running)
        self._ends.append(JobEnd(running.job, kind, None, cause, stage, running.stages, seconds))
