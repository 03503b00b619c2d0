"""The part of the executor contract that is about jobs in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Protocol

import pytest

from .executor import Executor
from .jobs import BenchSpec, Job, JobEnd
from .testing_bench import LOADING

DEADLINE_S = 60.0
STEP_S = 0.005


class OpenExecutor(Protocol):
    """Opens an executor for one test, with arguments for its bench."""

    def __call__(self, slots: int = 1, **bench: object) -> Executor: ...


class SupervisionContract:
    """Deaths, hangs, cancelling, pauses; what an executor cannot do is skipped by its flags."""

    bench: ClassVar[str] = "search.testing_bench:ContractBench"
    survives_deaths: ClassVar[bool] = True
    limits_time: ClassVar[bool] = True
    runs_at_once: ClassVar[bool] = True
    pauses: ClassVar[bool] = True

    def open(self, spec: BenchSpec, slots: int) -> Executor:
        """A new executor."""
        raise NotImplementedError

    @pytest.fixture
    def opened(self) -> Iterator[OpenExecutor]:
        executors: list[Executor] = []

        def open_executor(slots: int = 1, **bench: object) -> Executor:
            executors.append(self.open(BenchSpec(self.bench, bench), slots))
            return executors[-1]

        yield open_executor
        for executor in executors:
            executor.close()

    @pytest.fixture
    def killable(self, opened: OpenExecutor) -> OpenExecutor:
        return _only(opened, self.survives_deaths, "survives_deaths")

    @pytest.fixture
    def timed(self, opened: OpenExecutor) -> OpenExecutor:
        return _only(opened, self.limits_time, "limits_time")

    @pytest.fixture
    def parallel(self, opened: OpenExecutor) -> OpenExecutor:
        return _only(opened, self.runs_at_once, "runs_at_once")

    @pytest.fixture
    def pausable(self, opened: OpenExecutor) -> OpenExecutor:
        return _only(opened, self.pauses, "pauses")

    # Deaths

    def test_a_job_whose_process_dies_is_lost_and_the_next_one_runs(
        self, killable: OpenExecutor
    ) -> None:
        executor = killable()
        end = the_end(executor, Job(0, "die"))

        assert (end.kind, end.value) == ("lost", None)
        assert end.cause
        assert "\n" not in end.cause
        assert (end.stage, end.stages) == ("working", (LOADING,))
        assert the_end(executor, Job(1, "count")).value == 1

    def test_a_death_leaves_other_jobs_alone(self, killable: OpenExecutor, tmp_path: Path) -> None:
        executor = killable(slots=2)
        executor.submit(Job(0, "tick", (tmp_path,)))
        until(lambda: size(tmp_path) > 0)
        executor.submit(Job(1, "die"))
        (lost,) = executor.wait(DEADLINE_S)
        assert (lost.job.id, lost.kind) == (1, "lost")
        (tmp_path / "stop").touch()
        (ticked,) = executor.wait(DEADLINE_S)
        assert (ticked.job.id, ticked.kind, ticked.value) == (0, "returned", size(tmp_path))

    def test_a_bench_that_cannot_be_made_is_broken_for_each_job(
        self, killable: OpenExecutor
    ) -> None:
        executor = killable(error="no weights")
        for number in range(2):
            end = the_end(executor, Job(number, "echo"))
            assert (end.kind, end.cause) == ("broken", "ValueError: no weights")

    # Time

    def test_a_job_that_hangs_expires_and_the_next_one_runs(self, timed: OpenExecutor) -> None:
        executor = timed()
        end = the_end(executor, Job(0, "hang", timeout_s=1.5))

        assert end.kind == "expired"
        assert "1.5 s" in end.cause
        assert (end.stage, end.stages) == ("working", (LOADING,))
        assert end.seconds >= 1.5
        assert the_end(executor, Job(1, "echo", timeout_s=DEADLINE_S)).kind == "returned"

    def test_the_time_to_make_a_bench_is_not_the_jobs(self, timed: OpenExecutor) -> None:
        end = the_end(timed(seconds=2.0), Job(0, "echo", timeout_s=1.5))
        assert end.kind == "returned"
        assert end.seconds < 1.5

    def test_waiting_returns_when_its_own_time_is_up(self, parallel: OpenExecutor) -> None:
        executor = parallel()
        executor.submit(Job(0, "hang"))
        began = time.monotonic()
        assert executor.wait(0) == []
        assert executor.wait(0.3) == []
        assert 0.3 <= time.monotonic() - began < DEADLINE_S

    # Side by side

    def test_slots_run_at_the_same_time(self, parallel: OpenExecutor, tmp_path: Path) -> None:
        executor = parallel(slots=2)
        executor.submit(Job(0, "meet", (tmp_path, "a", "b")))
        executor.submit(Job(1, "meet", (tmp_path, "b", "a")))
        ends = executor.wait(DEADLINE_S)
        while executor.busy:
            ends += executor.wait(DEADLINE_S)
        assert {end.job.id: end.value for end in ends} == {0: True, 1: True}

    def test_a_cancelled_job_stops_and_frees_its_slot(
        self, parallel: OpenExecutor, tmp_path: Path
    ) -> None:
        executor = parallel()
        executor.submit(Job(0, "tick", (tmp_path,)))
        until(lambda: size(tmp_path) > 0)
        executor.cancel(0)
        assert executor.busy == 0
        assert_still(tmp_path)
        assert the_end(executor, Job(1, "echo", ("next",))).value == ("next",)

    def test_closing_kills_what_runs(self, parallel: OpenExecutor, tmp_path: Path) -> None:
        executor = parallel()
        executor.submit(Job(0, "tick", (tmp_path,)))
        until(lambda: size(tmp_path) > 0)
        executor.close()
        assert_still(tmp_path)

    # Pauses

    def test_a_paused_job_stands_still_and_its_time_too(
        self, pausable: OpenExecutor, tmp_path: Path
    ) -> None:
        executor = pausable()
        began = time.monotonic()
        executor.submit(Job(0, "tick", (tmp_path,), timeout_s=2.0))
        until(lambda: executor.wait(0) == [] and size(tmp_path) > 0)
        executor.pause()
        paused = time.monotonic()
        assert_still(tmp_path)
        assert executor.wait(2.2) == []
        assert executor.busy == 1
        (tmp_path / "stop").touch()
        pause_s = time.monotonic() - paused
        executor.resume()
        (end,) = executor.wait(DEADLINE_S)
        assert (end.kind, end.value) == ("returned", size(tmp_path))
        assert end.seconds <= time.monotonic() - began - pause_s

    def test_a_job_submitted_in_a_pause_runs_after_it(self, pausable: OpenExecutor) -> None:
        executor = pausable()
        the_end(executor, Job(0, "count"))
        executor.pause()
        executor.submit(Job(1, "count"))
        assert executor.wait(0.2) == []
        executor.resume()
        (end,) = executor.wait(DEADLINE_S)
        assert (end.job.id, end.value) == (1, 2)

    def test_a_paused_job_can_be_cancelled(self, pausable: OpenExecutor, tmp_path: Path) -> None:
        executor = pausable()
        executor.submit(Job(0, "tick", (tmp_path,)))
        until(lambda: size(tmp_path) > 0)
        executor.pause()
        executor.cancel(0)
        executor.resume()
        assert_still(tmp_path)
        assert the_end(executor, Job(1, "count")).value == 1

    def test_a_paused_executor_can_be_closed(self, pausable: OpenExecutor, tmp_path: Path) -> None:
        executor = pausable()
        executor.submit(Job(0, "tick", (tmp_path,)))
        until(lambda: size(tmp_path) > 0)
        executor.pause()
        executor.close()
        assert_still(tmp_path)


def the_end(executor: Executor, job: Job) -> JobEnd:
    """Submit a job; the one end that follows."""
    executor.submit(job)
    (end,) = executor.wait(DEADLINE_S)
    return end


def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(STEP_S)


def size(folder: Path) -> int:
    """How often the job `tick` has ticked."""
    path = folder / "ticks"
    return path.stat().st_size if path.exists() else 0


def assert_still(folder: Path) -> None:
    """The job `tick` has come to a stop, if not in the same instant."""

    def stands() -> bool:
        before = size(folder)
        time.sleep(20 * STEP_S)
        return size(folder) == before

    until(stands)
    assert stands()


def _only(opened: OpenExecutor, can: bool, flag: str) -> OpenExecutor:
    if not can:
        pytest.skip(f"{flag} is False")
    return opened
