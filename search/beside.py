"""Doing what takes long in a thread, while jobs are supervised."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from .executor import Executor
from .jobs import JobEnd

POLL_S = 0.02  # between looks at the jobs

T = TypeVar("T")


def beside(executor: Executor, ends: list[JobEnd], call: Callable[[], T]) -> T:
    """What a call gives that reads or computes for long without Python's lock.

    Executors supervise their jobs inside `wait`, so meanwhile somebody must wait.

    Args:
        ends: Jobs that end meanwhile are appended.
    """
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(call)
        while wait([found], POLL_S).not_done:
            ends += executor.wait(0)
        return found.result()
