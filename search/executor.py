"""Where jobs run: the interface of executors, and the one that uses the calling process."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .errors import is_corruption, one_line
from .jobs import Epoch, Job, JobEnd

if TYPE_CHECKING:
    from storage.records import StageRun


EpochEnded = Callable[[int, Epoch], None]


def untold(job: int, epoch: Epoch) -> None:
    """What hears of epochs where nobody does."""


class Executor(Protocol):
    """Runs jobs, and tells how each ended; whatever a job does, the caller lives on.

    `search.testing.ExecutorContract` says as tests what is promised.
    """

    slots: int  # how many jobs may run at a time
    epoch_ended: EpochEnded  # called inside `wait` with the id of the job that a training is of

    @property
    def busy(self) -> int:
        """How many jobs have been submitted and have neither ended nor been cancelled."""
        ...

    def submit(self, job: Job) -> None:
        """Start a job; the caller keeps to at most `slots` unfinished ones."""
        ...

    def wait(self, timeout_s: float) -> list[JobEnd]:
        """The jobs that have ended since, each once; waits up to `timeout_s` for the first.

        With nothing to wait for it returns at once.
        """
        ...

    def cancel(self, id: int) -> None:
        """Kill a job now: no end of it is told. Nothing happens if it has ended."""
        ...

    def pause(self) -> None:
        """Stop all jobs from using the processor until `resume`; their time stands still."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None:
        """Kill what runs, and give everything back."""
        ...


class Serial:
    """Runs jobs one after the other in the calling process, inside `wait`.

    For benches that cost nothing and cannot crash: time and memory are not limited.
    """

    slots = 1

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.epoch_ended: EpochEnded = untold
        self._jobs: deque[Job] = deque()

    @property
    def busy(self) -> int:
        return len(self._jobs)

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def wait(self, timeout_s: float) -> list[JobEnd]:
        return [self._run(self._jobs.popleft())] if self._jobs else []

    def cancel(self, id: int) -> None:
        self._jobs = deque(job for job in self._jobs if job.id != id)

    def pause(self) -> None:
        """Nothing runs outside of `wait`."""

    def resume(self) -> None: ...

    def close(self) -> None:
        self._jobs.clear()

    def _run(self, job: Job) -> JobEnd:
        began = time.perf_counter()
        stage = ""
        done: tuple[StageRun, ...] = ()

        def progress(name: str, ended: Sequence[StageRun], epoch: Epoch | None = None, /) -> None:
            nonlocal stage, done
            stage, done = name, tuple(ended)
            if epoch is not None:
                self.epoch_ended(job.id, epoch)

        try:
            value = getattr(self.bench, job.method)(*job.arguments, progress=progress)
        except (Exception, SystemExit) as error:  # but not the user's Ctrl-C
            seconds = time.perf_counter() - began
            cause, is_corrupt = one_line(error), is_corruption(error)
            return JobEnd(job, "raised", None, cause, stage, done, seconds, is_corrupt)
        return JobEnd(job, "returned", value, seconds=time.perf_counter() - began)
