"""The rows of the store as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TRIAL_STATES = ("queued", "running", "complete", "refused", "stopped", "failed")
ENDED_STATES = ("complete", "refused", "stopped", "failed")
ORIGINS = ("baseline", "strategy", "enqueued", "continued")
STUDY_STATES = ("running", "interrupted", "stopped", "finished", "failed")
REQUESTS = ("stop", "extend", "enqueue", "continue")
SPLITS = ("search", "audit")


@dataclass(frozen=True, slots=True)
class File:
    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file set that a runtime loads, named by the SHA-256 of its manifest."""

    sha256: str
    format: str
    size_bytes: int
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of one artifact.

    Args:
        low: Lower end of a confidence interval, where one is known.
        high: Its upper end.
        n: Samples, or repetitions of a timing, behind the value.
        noisy: Timed beside other work, ours or a neighbour's, so that its interval may be off.
        level: Of the interval, two-sided: 0.90 is two one-sided bounds of 95 %.
    """

    metric: str
    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    noisy: bool = False
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a trial: which compressor, its options, and whether its result was cached.

    Args:
        seconds: What it cost in this trial.
        note: What a person should know, such as a fallback that was taken.
        epochs: How many a training was to have; 0 for what is none.
        scores: Of the model after each of them, where trainings may be given up; None where the
            task could score nothing.
    """

    name: str
    key: str
    options: Mapping[str, Any]
    seconds: float
    cached: bool
    note: str = ""
    epochs: int = 0
    scores: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.scores, tuple):  # JSON has no tuples; older rows have none at all
            object.__setattr__(self, "scores", tuple(self.scores or ()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended.

    Args:
        state: complete, refused, stopped or failed.
        cause: One line, for every state but complete.
        reused_from: The trial whose measurements were taken over, the files being identical.
        reused_study: The study of that trial, if it is another one.
        records: Of the samples of the search split, packed; None if the trial has none of its own.
    """

    state: str
    cause: str = ""
    stages: tuple[StageRun, ...] = ()
    artifact: Artifact | None = None
    measurements: tuple[Measurement, ...] = ()
    seconds: float = 0.0
    reused_from: int | None = None
    reused_study: str = ""
    records: bytes | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What an earlier study found out about a candidate of a new one.

    Args:
        outcome: With `reused_from` and `reused_study`, which say where it comes from.
    """

    candidate_key: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Trial:
    """A stored trial.

    Args:
        origin: Who chose the candidate: baseline, strategy, enqueued, or continued (a row with
            more epochs than the study's space has).
        attempt: How often it was begun.
        deaths: How many of the attempts ended with the death of a worker under a live controller.
    """

    number: int
    state: str
    candidate: Mapping[str, Any]
    memo: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "strategy"
    attempt: int = 1
    deaths: int = 0
    cause: str = ""
    stages: tuple[StageRun, ...] = ()
    artifact: Artifact | None = None
    measurements: tuple[Measurement, ...] = ()
    seconds: float = 0.0
    reused_from: int | None = None
    reused_study: str = ""
    created_at: float = 0.0
    finished_at: float | None = None

    @property
    def is_continued(self) -> bool:
        """Whether it has more epochs than the study's space; strategies do not see it."""
        return self.origin == "continued"

    @property
    def metrics(self) -> dict[str, float]:
        return {m.metric: m.value for m in self.measurements}


@dataclass(frozen=True, slots=True)
class NewStudy:
    """What a study is created from; everything that resuming it needs.

    Args:
        config: The resolved config, JSON.
        space: The resolved space, JSON.
        facts: What was true at creation: threads, library versions, CPU, score name...
    """

    name: str
    config: Mapping[str, Any]
    space: list[dict[str, Any]]
    task_fingerprint: str
    seed: int
    trials: int
    minutes: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Study:
    """A stored study.

    Args:
        trials: The budget: trials without the baseline.
        minutes: The budget in minutes of searching, all sessions together.
        seconds: Searched so far.
        memo: What the strategy stored with the study.
        owner: The controller that runs it, `host/pid/token` (see `lease`); empty if none.
        claimed_at: When it began to (Unix seconds).
    """

    id: int
    name: str
    state: str
    cause: str
    config: Mapping[str, Any]
    space: list[dict[str, Any]]
    task_fingerprint: str
    seed: int
    trials: int
    minutes: float | None
    facts: Mapping[str, Any]
    memo: Mapping[str, Any]
    seconds: float
    owner: str
    claimed_at: float
    lease_until: float
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A line of `naslite ls`: a study and how many trials are in each state."""

    study: Study
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asks of a running controller."""

    id: int
    kind: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Extension:
    """A new budget, and the number of the first trial that was proposed under it."""

    number: int
    trials: int
    minutes: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a query needs of the complete trials, by column.

    Args:
        numbers: Of the complete trials, ascending.
        columns: By name the values of a metric, of a knob or of `seconds`, by the number of the
            trial; a trial that has none is not there.
    """

    numbers: tuple[int, ...]
    columns: Mapping[str, Mapping[int, Any]]

    def row(self, number: int) -> dict[str, Any]:
        """Of one trial `number`, `state` and what the columns say."""
        found = {name: column[number] for name, column in self.columns.items() if number in column}
        return {"number": number, "state": "complete", **found}


@dataclass(frozen=True, slots=True)
class Session:
    """A time in which a controller ran a study.

    Args:
        began_at: Unix seconds.
        number: Of the next trial to be proposed then.
        facts: The machine (cpu, isa, cores), library versions, and the controls of its timings.
    """

    began_at: float
    number: int
    facts: Mapping[str, Any]
