"""What is handed to an executor, and how it comes back: plain data that crosses processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from storage.records import Artifact, StageRun


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch of a training that has just ended.

    Args:
        number: From 1, of `total`.
        score: Of the model as it is then, on some samples; None where it is not scored.
    """

    number: int
    total: int
    score: float | None = None


class Progress(Protocol):
    """Called by a bench when a stage begins, and after each epoch of a training in it."""

    def __call__(
        self, stage: str, ended: Sequence[StageRun], epoch: Epoch | None = None, /
    ) -> None:
        """
        Args:
            ended: The stages of the job before this one.
        """
        ...


def unheard(stage: str, ended: Sequence[StageRun], epoch: Epoch | None = None, /) -> None:
    """The progress of a job that nobody follows."""


@dataclass(frozen=True, slots=True)
class BenchSpec:
    """How a process makes the object whose methods are the jobs.

    Args:
        factory: `package.module:callable`.
        arguments: Its keyword arguments, picklable.
    """

    factory: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a bench's method: `method(*arguments, progress=...)`.

    Args:
        id: Given by the submitter, never twice to one executor.
        timeout_s: Seconds that it may run, the executor's pauses and the start of a process left
            out; None for ever.
    """

    id: int
    method: str
    arguments: tuple[Any, ...] = ()
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended.

    Args:
        kind: returned (`value`), raised (a Python exception: it would be raised again), lost (its
            process died, or was killed for its memory), expired (its time was up) or broken (the
            bench itself cannot be made; every other job would end the same way).
        value: What the method returned.
        cause: One line, unless returned: `ValueError: ...`, `worker died (signal 11)`,
            `used 4.2 GB, more than limits.memory = 4 GB`, `no result after 60 s`.
        stage: The stage that ran when it ended otherwise than by returning; "" if none had begun.
        stages: The stages that had ended before it.
        seconds: How long it ran, without pauses.
        is_corrupt: Whether it raised because stored files were not what was stored.
    """

    job: Job
    kind: str
    value: Any = None
    cause: str = ""
    stage: str = ""
    stages: tuple[StageRun, ...] = ()
    seconds: float = 0.0
    is_corrupt: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """What building a candidate gave: an artifact, or the state and cause of giving it up."""

    stages: tuple[StageRun, ...]
    artifact: Artifact | None
    state: str = "complete"
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Scored:
    """What is read off an artifact without timing it.

    Args:
        score: On the search split, over `samples` samples.
        macs: Multiply-accumulates of one sample.
        records: Of all samples, packed (see `sample_records`).
        interval: Of the score, two-sided, 95 %; None where none is known.
        drop: One-sided 95 % bounds of the drop below and above, against the baseline's records of
            the same samples; None without a baseline.
        size_zstd_bytes: Of the shipped files, compressed.
        stopped: Why the trial was given up before all samples were scored; "" if it was not.
        baseline_score: The baseline's on the same samples, where these are not all.
    """

    score: float
    samples: int
    parameters: float
    macs: float
    records: bytes | None = None
    interval: tuple[float, float] | None = None
    drop: tuple[float, float] | None = None
    size_zstd_bytes: int | None = None
    stopped: str = ""
    baseline_score: float | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """An A/A control of a timing process: the baseline against its own copy.

    Args:
        ratio: With its 95 % interval `low` to `high`.
        noise_floor: Differences of a ratio from 1 that are not larger than this mean nothing.
        load: The machine's load average over a minute when it was timed.
    """

    ratio: float
    low: float
    high: float
    blocks: int
    noise_floor: float
    load: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Latency of an artifact at one batch size, against the baseline.

    Args:
        milliseconds: Median time of a single call.
        ratio: Of candidate time to baseline time in the same block, a median.
        low: Lower end of the ratio's 95 % interval.
        high: Its upper end.
        p90_ms: 90th percentile of the time of a single call.
        load_ms: Of loading the file in a fresh process.
        peak_rss_bytes: By which loading the file and running the largest batch raised the
            resident memory of a fresh process at its peak.
        control: How the baseline did against a second session of itself, where it was timed.
        noisy: Whether other work left too few rounds alone, or kept the machine slow all along.
    """

    batch_size: int
    milliseconds: float
    ratio: float
    low: float
    high: float
    blocks: int
    p90_ms: float | None = None
    load_ms: float | None = None
    peak_rss_bytes: int | None = None
    control: Control | None = None
    noisy: bool = False
