"""Many runs on all cores, one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from search.errors import NasliteError

from .catalogue import load_problem
from .contestants import Contestant
from .race import Run, race

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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

    def run(self) -> Run:
        problem = load_problem(self.problem, self.data, self.cache)
        player = self.contestant.player(problem, budget=self.budget, seed=self.seed, lag=self.lag)
        try:
            return race(problem, player, self.budget, self.seed)
        except Exception as error:
            error.add_note(f"({self.contestant.label} on {problem.name}, seed {self.seed})")
            raise


def _end_at_once() -> None:
    """Ctrl-C reaches all processes of a terminal; a worker has nothing to say about it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_all(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Run]]:
    """Every task's position and run, as they end.

    Args:
        jobs: Worker processes, started afresh (spawn); 1 = none, all runs in this process.

    Raises:
        NasliteError: A worker process died.
    """
    if jobs == 1:
        for position, task in enumerate(tasks):
            yield position, task.run()
        return
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # the workers inherit them
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(tasks)), context, _end_at_once) as pool:
            futures = {pool.submit(task.run): position for position, task in enumerate(tasks)}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BrokenProcessPool:
                raise NasliteError("a worker process died; is there enough memory?") from None
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
