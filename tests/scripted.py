"""A dispatcher on executors whose jobs end when and as a test says, with real files and locks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from search.dispatch import Dispatcher
from search.executor import EpochEnded, untold
from search.jobs import Built, Job, JobEnd, Scored, Timing
from search.timing_lock import TimingLock
from search.trial_run import Baseline, TrialEnd
from storage import Artifact, StageRun
from storage.artifacts import ContentStore, describe_artifact

STAGE = StageRun("prune", "k", {"level": 1}, 0.5, False)
SCORED = Scored(0.75, 96, 10.0, 20.0)
TIMING = Timing(1, 2.0, 0.5, 0.4, 0.6, 15)


class Scripted:
    """An `Executor` that runs nothing: its jobs end by `end`, in any order.

    It writes what it is asked into `events`, and checks that its caller keeps the rules.
    """

    def __init__(self, name: str, slots: int, events: list[str]) -> None:
        self.name = name
        self.slots = slots
        self.events = events
        self.jobs: list[Job] = []
        self.submitted: list[Job] = []
        self.waited: list[float] = []
        self.epoch_ended: EpochEnded = untold
        self.is_paused = self.is_closed = False
        self._ends: list[JobEnd] = []

    @property
    def busy(self) -> int:
        return len(self.jobs)

    def submit(self, job: Job) -> None:
        assert len(self.jobs) < self.slots
        assert job.id not in {other.id for other in self.submitted}
        self.jobs.append(job)
        self.submitted.append(job)
        self.events.append(job.method)

    def wait(self, timeout_s: float) -> list[JobEnd]:
        self.waited.append(timeout_s)
        ends, self._ends = self._ends, []
        return ends

    def cancel(self, id: int) -> None:
        self.jobs = [job for job in self.jobs if job.id != id]
        self._ends = [end for end in self._ends if end.job.id != id]
        self.events.append("cancel")

    def pause(self) -> None:
        assert not self.is_paused
        self.is_paused = True
        self.events.append("pause")

    def resume(self) -> None:
        assert self.is_paused
        self.is_paused = False
        self.events.append("resume")

    def close(self) -> None:
        self.is_closed = True

    def end(
        self,
        kind: str,
        value: Any = None,
        *,
        which: int = 0,
        cause: str = "",
        stage: str = "",
        stages: Sequence[StageRun] = (),
        seconds: float = 1.0,
        is_corrupt: bool = False,
    ) -> None:
        """Let one of the running jobs end, the oldest unless `which` says otherwise."""
        job = self.jobs.pop(which)
        self._ends.append(
            JobEnd(job, kind, value, cause, stage, tuple(stages), seconds, is_corrupt)
        )


class Rig:
    """A dispatcher of scripted jobs; the candidate of trial n is `{"level": n}`.

    Args:
        folder: For the artifacts, each a real file that holds its level.
        lock: None = no lock.
        kind: Of the store.
        options: Of the dispatcher.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: int = 1,
        lock: Path | None = None,
        kind: type[ContentStore] = ContentStore,
        **options: Any,
    ) -> None:
        self.events: list[str] = []
        self.builders = Scripted("builders", slots, self.events)
        self.timer = Scripted("timer", 1, self.events)
        self.store = kind(folder / "artifacts")
        self._lock_path = lock
        self._folder = folder
        self.baseline = Baseline({"level": 0}, self.artifact(0), 1.0)
        self.dispatcher = Dispatcher(
            self.builders,
            self.timer,
            self.store,
            score_name="accuracy",
            higher_is_better=True,
            lock=TimingLock(lock),
            **options,
        )

    def artifact(self, level: int) -> Artifact:
        """The artifact of a level, stored."""
        path = self._folder / "model.onnx"
        path.write_text(f"level {level}")
        artifact = describe_artifact([path], "onnx")
        self.store.put(artifact.sha256, [path], {"main": path.name})
        return artifact

    def file(self, artifact: Artifact) -> Path:
        """Its file in the store, intact or not."""
        return self.store.root / artifact.sha256[:2] / artifact.sha256 / "model.onnx"

    def start(self, *numbers: int) -> None:
        for number in numbers:
            self.dispatcher.start(number, {"level": number}, self.baseline if number else None)

    def build(self, level: int = 1, **how: Any) -> list[TrialEnd]:
        """Let the oldest job of the builders give the artifact of this level."""
        self.builders.end("returned", Built((STAGE,), self.artifact(level)), **how)
        return self.wait()

    def score(self, scored: Scored = SCORED, **how: Any) -> list[TrialEnd]:
        self.builders.end("returned", scored, **how)
        return self.wait()

    def time(self, timing: Timing = TIMING, **how: Any) -> list[TrialEnd]:
        self.timer.end("returned", (timing,), **how)
        return self.wait()

    def wait(self, timeout_s: float = 0.0) -> list[TrialEnd]:
        return self.dispatcher.wait(timeout_s)

    @property
    def lock_is_free(self) -> bool:
        """Whether another study could be timed now."""
        assert self._lock_path is not None
        try:
            with FileLock(self._lock_path, blocking=False):
                return True
        except Timeout:
            return False
