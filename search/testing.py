"""The contract of executors as tests to inherit; it needs pytest and Hypothesis.

class TestMyExecutor(ExecutorContract):
    def open(self, spec: BenchSpec, slots: int) -> Executor:
        return MyExecutor(spec, slots)
"""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .executor import Executor
from .jobs import BenchSpec, Epoch, Job, JobEnd
from .testing_bench import LOADING, ContractBench
from .testing_supervision import OpenExecutor, SupervisionContract, the_end

__all__ = ["ContractBench", "ExecutorContract"]

# Method, arguments, and the kind and the cause of the end that must follow.
CALLS: dict[str, tuple[str, tuple[object, ...], str, str]] = {
    "return": ("echo", ("value",), "returned", ""),
    "raise": ("fail", ("no such layer",), "raised", "ValueError: no such layer"),
    "exit": ("leave", (3,), "raised", "SystemExit: 3"),
    "no method": ("fly", (), "raised", "AttributeError:"),
    "cancel": ("echo", ("value",), "", ""),
    "die": ("die", (), "lost", ""),
}


class ExecutorContract(SupervisionContract):
    """What an executor promises: each job ends once, and whatever it does, the next one runs.

    Write `open`. The flags say what an executor cannot do by its nature: `Serial` has none.

    Attributes:
        bench: The factory of a `ContractBench`, where the executor's workers find it.
        survives_deaths: A job may kill its process.
        limits_time: `Job.timeout_s` ends a job.
        runs_at_once: Jobs run while the caller does other things, as many at a time as slots.
        pauses: `pause` stops what runs.
    """

    @pytest.fixture
    def executor(self, opened: OpenExecutor) -> Executor:
        return opened()

    def test_what_a_method_returns_comes_back_with_its_job(self, executor: Executor) -> None:
        arguments: tuple[object, ...] = (
            {"ratio": 0.5, "scheme": None},
            (1, 2.5, True),
            "é\n",
            b"\x00",
            [[]],
        )
        job = Job(7, "echo", arguments)
        end = the_end(executor, job)

        assert end.job == job
        assert (end.kind, end.value, end.cause) == ("returned", arguments, "")

    def test_a_large_argument_and_result_arrive_whole(self, executor: Executor) -> None:
        large = bytes(range(256)) * 40_000  # more than any socket holds
        assert the_end(executor, Job(0, "echo", (large,))).value == (large,)

    def test_jobs_on_one_slot_end_in_their_order_each_once(self, executor: Executor) -> None:
        for number in range(5):
            executor.submit(Job(number, "echo", (number,)))
            (end,) = executor.wait(60)
            assert (end.job.id, end.value) == (number, (number,))
        assert executor.wait(0) == []

    def test_waiting_for_nothing_returns_at_once(self, executor: Executor) -> None:
        assert executor.wait(3600) == []

    def test_a_bench_is_kept_for_the_next_job(self, executor: Executor) -> None:
        counts = [the_end(executor, Job(number, "count")).value for number in range(3)]
        assert counts == [1, 2, 3]

    def test_a_python_error_is_one_line_with_its_stage_and_leaves_the_bench_alone(
        self, executor: Executor
    ) -> None:
        the_end(executor, Job(0, "count"))
        end = the_end(executor, Job(1, "fail", ("no such layer\n\nand more",)))

        assert (end.kind, end.cause, end.value) == ("raised", "ValueError: no such layer", None)
        assert (end.stage, end.stages) == ("working", (LOADING,))
        assert the_end(executor, Job(2, "count")).value == 2

    def test_epochs_are_told_with_their_job_before_it_ends(self, executor: Executor) -> None:
        told: list[tuple[int, Epoch]] = []
        executor.epoch_ended = lambda job, epoch: told.append((job, epoch))
        for number in (4, 5):
            assert the_end(executor, Job(number, "train", (3,))).value == 3
            expected = [Epoch(1, 3), Epoch(2, 3, 2 / 3), Epoch(3, 3)]
            assert told == [(number, epoch) for epoch in expected]
            told.clear()

    def test_stages_are_those_of_the_job_itself(self, executor: Executor) -> None:
        the_end(executor, Job(0, "fail", ("",)))
        end = the_end(executor, Job(1, "fly"))
        assert (end.kind, end.stage, end.stages) == ("raised", "", ())

    def test_leaving_python_is_an_error_like_any_other(self, executor: Executor) -> None:
        end = the_end(executor, Job(0, "leave", (3,)))
        assert (end.kind, end.cause, end.stage) == ("raised", "SystemExit: 3", "working")
        assert the_end(executor, Job(1, "echo")).kind == "returned"

    def test_a_job_tells_how_long_it_ran(self, executor: Executor) -> None:
        began = time.perf_counter()
        end = the_end(executor, Job(0, "nap", (0.05,)))
        assert 0.05 <= end.seconds <= time.perf_counter() - began

    def test_busy_counts_jobs_that_have_not_ended(self, opened: OpenExecutor) -> None:
        executor = opened(slots=2)
        assert executor.busy == 0
        executor.submit(Job(0, "nap", (0.05,)))
        executor.submit(Job(1, "nap", (0.05,)))
        assert executor.busy == 2
        executor.cancel(1)
        assert executor.busy == 1
        assert [end.job.id for end in executor.wait(60)] == [0]
        assert executor.busy == 0

    def test_of_a_cancelled_job_nothing_is_heard(self, executor: Executor) -> None:
        executor.submit(Job(0, "echo"))
        executor.cancel(0)
        assert executor.wait(0) == []
        assert the_end(executor, Job(1, "echo")).kind == "returned"

    def test_cancelling_what_has_ended_or_never_was_does_nothing(self, executor: Executor) -> None:
        the_end(executor, Job(0, "count"))
        executor.cancel(0)
        executor.cancel(99)
        assert the_end(executor, Job(1, "count")).value == 2

    def test_pausing_is_harmless_when_nothing_runs(self, executor: Executor) -> None:
        executor.resume()
        executor.pause()
        executor.pause()
        executor.resume()
        assert the_end(executor, Job(0, "echo")).kind == "returned"

    def test_closing_again_does_nothing(self, executor: Executor) -> None:
        executor.submit(Job(0, "echo"))
        executor.close()
        executor.close()
        assert executor.busy == 0
        assert executor.wait(0) == []

    # The method is inherited by several classes, each an executor to Hypothesis.
    @settings(
        max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
    )
    @given(names=st.lists(st.sampled_from(sorted(CALLS)), max_size=6), slots=st.integers(1, 3))
    def test_each_job_ends_once_unless_it_is_cancelled(self, names: list[str], slots: int) -> None:
        if not self.survives_deaths:
            names = [name for name in names if name != "die"]
        executor = self.open(BenchSpec(self.bench, {}), slots)
        ends: list[JobEnd] = []
        try:
            for id, name in enumerate(names):
                while executor.busy >= executor.slots:
                    ends += executor.wait(60)
                method, arguments, _, _ = CALLS[name]
                executor.submit(Job(id, method, arguments))
                if name == "cancel":
                    executor.cancel(id)
            while executor.busy:
                ends += executor.wait(60)
            assert executor.wait(0) == []
        finally:
            executor.close()

        expected = [CALLS[name][2:] for name in names]
        assert sorted(end.job.id for end in ends) == [i for i, e in enumerate(expected) if e[0]]
        for end in ends:
            kind, cause = expected[end.job.id]
            assert end.kind == kind
            assert end.cause.startswith(cause)
