"""One job at a time, waited for: timing a stored file outside of a search."""

from __future__ import annotations

import time
from collections.abc import Callable

from storage import Artifact

from .executor import Executor
from .jobs import Job, JobEnd
from .timing_lock import TimingLock

TICK_S = 0.2


def result_of(executor: Executor, job: Job, is_ended: Callable[[], bool]) -> JobEnd | None:
    """Submit a job and wait for it; None if `is_ended` told to wait no longer."""
    executor.submit(job)
    try:
        ends = executor.wait(0)
        while not ends:
            if is_ended():
                executor.cancel(job.id)
                return None
            ends = executor.wait(TICK_S)
    except BaseException:
        executor.cancel(job.id)  # or it would run beside whoever is timed next
        raise
    return ends[0]


def timed_alone(
    timer: Executor, lock: TimingLock, job: Job, is_ended: Callable[[], bool]
) -> JobEnd | None:
    """`result_of` once the machine's timing lock is ours, which is given back then."""
    try:
        while not lock.acquire():
            if is_ended():
                return None
            time.sleep(TICK_S)
        return result_of(timer, job, is_ended)
    finally:
        lock.release()


def timing_seed(artifact: Artifact, turn: int = 0) -> int:
    """Decides the order of blocks: of a file always the same, but not in another turn."""
    return int(artifact.sha256[:15], 16) + turn
