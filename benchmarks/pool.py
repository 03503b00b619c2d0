"""Many runs on all cores, one thread each; a run that fails takes no other with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.errors import NasliteError

from .catalogue import load_problem
from .contestants import Contestant
from .race import Run, race

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that did not come to its end.

    Args:
        cause: One line.
    """

    cause: str


@dataclass(frozen=True, slots=True)
class Task:
    """One run, as it is sent to a worker process."""

    problem: str
    contestant: Contestant
    seed: int
    budget: int
    lag: int
    data: Path | None
    cache: Path

    def run(self) -> Run | Failed:
        try:
            problem = load_problem(self.problem, self.data, self.cache)
            player = self.contestant.player(
                problem, budget=self.budget, seed=self.seed, lag=self.lag
            )
            return race(problem, player, self.budget, self.seed)
        except (Exception, SystemExit) as error:
            return Failed(_cause(error))


def _cause(error: BaseException) -> str:
    """One line; with the place of an error that is not about what a user wrote."""
    text = " ".join(str(error).split()).removesuffix(" (--debug shows where)")
    raised = error
    if isinstance(error, NasliteError):
        if error.__cause__ is None:
            return text
        raised = error.__cause__  # what a strategy raised; the text names it
    else:
        text = f"{type(error).__name__}: {text}"
    *_, frame = traceback.extract_tb(raised.__traceback__)
    return f"{text} ({Path(frame.filename).name}, line {frame.lineno})"


def run_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Run | Failed]]:
    """Every task's position and how it went, as they end.

    Where a worker process dies, the runs that it may have died of are made again, each in a
    process of its own: one that dies again has failed.

    Args:
        jobs: Worker processes, started afresh (spawn); 1 = none, all runs in this process.
    """
    if jobs == 1:
        for position, task in enumerate(tasks):
            yield position, task.run()
        return
    waiting = deque(range(len(tasks)))
    with _one_thread_each():
        while waiting:
            for suspect in (yield from _until_a_death(tasks, waiting, jobs)):
                yield suspect, _alone(tasks[suspect])


def _until_a_death(
    tasks: Sequence[Task], waiting: deque[int], jobs: int
) -> Generator[tuple[int, Run | Failed], None, list[int]]:
    """Take tasks off `waiting` until none is left or a worker dies; those under way then."""
    running: dict[Future[Run | Failed], int] = {}
    with _pool(min(jobs, len(waiting))) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:  # never more than may have killed a worker
                    running[pool.submit(tasks[waiting[0]].run)] = waiting[0]
                    waiting.popleft()
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in sorted(ended, key=lambda f: f.exception() is not None):
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            return list(running.values())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return []


def _alone(task: Task) -> Run | Failed:
    with _pool(1) as pool:
        try:
            return pool.submit(task.run).result()
        except BrokenProcessPool:
            return Failed("its process died twice: killed, out of memory, or crashed")


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_at_once)


def _end_at_once() -> None:
    """Ctrl-C reaches all processes of a terminal; a worker has nothing to say about it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start meanwhile inherit one thread per numeric library."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
