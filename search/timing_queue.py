"""The trials that wait to be timed: one at a time, with the machine's lock, while builds stand."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from .executor import Executor
from .jobs import Job
from .timing_lock import TimingLock


class _Numbered(Protocol):
    number: int


Run = TypeVar("Run", bound=_Numbered)


class TimingQueue(Generic[Run]):
    """Hands runs to a timer in the order of their numbers.

    Args:
        exclusive: Whether the builders are paused while a file is timed.
        lock: Held while a file is timed, against the studies of other processes.
    """

    def __init__(
        self, timer: Executor, builders: Executor, *, exclusive: bool, lock: TimingLock
    ) -> None:
        self.waiting: list[Run] = []
        self.current: Run | None = None
        self._job = 0
        self._timer = timer
        self._builders = builders
        self._exclusive = exclusive
        self._lock = lock
        self._is_pausing = False

    @property
    def runs(self) -> list[Run]:
        """Those that wait, and the one that is timed."""
        return [*self.waiting, *([] if self.current is None else [self.current])]

    def put(self, run: Run) -> None:
        bisect.insort(self.waiting, run, key=lambda other: other.number)

    def begin(self, prepare: Callable[[Run], Job | None]) -> None:
        """Time the next one, if no other is being timed on this machine.

        Args:
            prepare: Makes its job; None if it cannot be timed now, and is no more ours.
        """
        if self.current is not None:
            return
        if not self.waiting:
            self._lock.release()  # our turn, if we had one, is for others
            return
        try:
            if not self._lock.acquire():
                return
            run = self.waiting.pop(0)
            job = prepare(run)
            if job is None:
                self._lock.release()
                return
            self.current, self._job = run, job.id
            if self._exclusive:
                self._is_pausing = True
                self._builders.pause()
            self._timer.submit(job)
        except BaseException:
            self.stop()
            raise

    def end(self, job: Job) -> Run | None:
        """The run whose job has ended, if it is the one that is timed."""
        run = self.current
        if run is None or job.id != self._job:
            return None
        self._finish()
        return run

    def stop(self) -> None:
        """Kill the timing that runs, and give the lock back; what waits, waits on."""
        try:
            if self.current is not None:
                self._timer.cancel(self._job)
        finally:
            self._finish()

    def clear(self) -> None:
        """`stop`, and nothing waits any more."""
        self.waiting.clear()
        self.stop()

    def _finish(self) -> None:
        self.current = None
        try:
            if self._is_pausing:
                self._is_pausing = False
                self._builders.resume()
        finally:
            self._lock.release()
