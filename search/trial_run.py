"""A trial on its way through its jobs, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from storage import Artifact, Measurement, Outcome, StageRun, Trial

from .jobs import Scored, Timing
from .metrics import PER_BATCH_SIZE, Facts, measurements, partial_measurements

if TYPE_CHECKING:
    from .stopping import Training


@dataclass(frozen=True, slots=True)
class Baseline:
    """What candidates are measured against.

    Args:
        candidate: From which its files are made again if they get lost.
        records: Of its samples, packed; None if an earlier naslite did not keep them.
    """

    candidate: Mapping[str, Any]
    artifact: Artifact
    score: float
    records: bytes | None = None

    @classmethod
    def of(cls, trial: Trial, score_name: str, records: bytes | None) -> Baseline:
        """What the complete trial 0 is to the others."""
        assert trial.artifact is not None
        return cls(dict(trial.candidate), trial.artifact, trial.metrics[score_name], records)


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """How a trial ended, or that a worker died over it.

    Args:
        outcome: What it has come to; for a death, what it comes to unless it is begun again.
        died: Whether a worker died: the trial is worth another attempt.
    """

    number: int
    outcome: Outcome
    died: bool = False


@dataclass(slots=True)
class Run:
    """A trial on its way: build -> score -> time.

    Args:
        peers: The trainings by which its own are judged; None where none is given up.
    """

    number: int
    candidate: Mapping[str, Any]
    baseline: Baseline | None
    peers: tuple[Training, ...] | None = None
    seconds: float = 0.0
    stages: tuple[StageRun, ...] = ()
    artifact: Artifact | None = None
    scored: Scored | None = None
    was_rebuilt: bool = False
    is_noisy: bool = False
    baseline_lost: bool = False  # its baseline is being built again
    baseline_rebuilt: bool = False

    @property
    def build_arguments(self) -> tuple[Any, ...]:
        return (self.candidate,) if self.peers is None else (self.candidate, self.peers)

    def measurements(
        self, score_name: str, higher_is_better: bool, timings: tuple[Timing, ...]
    ) -> tuple[Measurement, ...]:
        """All metrics of the trial, once it was timed; before that, what is known of it."""
        assert self.artifact is not None
        assert self.scored is not None
        scored, before = self.scored, self.scored.baseline_score
        if self.baseline is None:  # its own drop is 0 by definition
            scored, before = replace(scored, drop=(0.0, 0.0)), scored.score
        elif before is None:
            before = self.baseline.score
        facts = Facts(
            score_name=score_name,
            higher_is_better=higher_is_better,
            scored=scored,
            baseline_score=before,
            size_bytes=self.artifact.size_bytes,
            timings=timings,
        )
        if not timings:
            return partial_measurements(facts)
        found = measurements(facts)
        if not self.is_noisy:
            return found
        return tuple(replace(m, noisy=_is_timed(m.metric)) for m in found)


def with_outcome(trial: Trial, outcome: Outcome, *, died: bool) -> Trial:
    """The trial as it has just ended."""
    return replace(
        trial,
        state=outcome.state,
        cause=outcome.cause,
        stages=outcome.stages,
        artifact=outcome.artifact,
        measurements=outcome.measurements,
        seconds=outcome.seconds,
        reused_from=outcome.reused_from,
        reused_study=outcome.reused_study,
        deaths=trial.deaths + died,
        finished_at=time.time(),
    )


def _is_timed(metric: str) -> bool:
    return metric.startswith((*PER_BATCH_SIZE, "load_ms"))
