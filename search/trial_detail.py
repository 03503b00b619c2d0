"""One trial in full, as text: what a report shows where somebody clicks on it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from storage import Measurement

from .formats import format_value, level_text, plain
from .results import Row, StudyResults

OPTIONS = 600  # characters of a stage's options


@dataclass(frozen=True, slots=True)
class Detail:
    """One trial in full.

    Args:
        facts: Name and text, such as what it cost.
        stages: Name, options, seconds, cached, note.
        metrics: Name, value, interval, n.
        export: The command that hands its files over; empty if there are none.
    """

    number: int
    state: str
    candidate: Mapping[str, str]
    facts: tuple[tuple[str, str], ...]
    verdicts: Mapping[str, str]
    stages: tuple[tuple[str, ...], ...]
    metrics: tuple[tuple[str, ...], ...]
    export: str


def measured(found: Measurement) -> str:
    """A value with its interval: `0.219 [0.218, 0.223]`."""
    value = format_value(found.metric, found.value)
    said = interval(found)
    return f"{value} {said}" if said else value


def interval(found: Measurement) -> str:
    if found.low is None or found.high is None:
        return ""
    low, high = (format_value(found.metric, end) for end in (found.low, found.high))
    return f"[{low}, {high}]" + " noisy" * found.noisy


def detail(results: StudyResults, row: Row) -> Detail:
    """Everything about a trial that a person may ask."""
    trial = row.trial
    facts = [("cost", f"{trial.seconds:.1f} s"), ("proposed by", trial.origin)]
    if trial.cause:
        facts.append(("cause", trial.cause))
    for stage in trial.stages:
        if stage.scores:
            scores = ", ".join("-" if s is None else f"{s:.4f}" for s in stage.scores)
            facts.append((f"score by epoch of {stage.epochs}, {stage.name}", scores))
    if trial.attempt > 1:
        facts.append(("attempt", str(trial.attempt)))
    if trial.reused_from is not None:
        study = f" of study {trial.reused_study}" if trial.reused_study else ""
        facts.append(("measurements from", f"trial {trial.reused_from}{study}"))
    export = ""
    if trial.artifact:
        facts.append(("artifact, SHA-256", trial.artifact.sha256))
        if trial.state == "complete":
            name = shlex.quote(results.name)
            export = f"naslite export {name} {trial.number} shipped-{trial.number}/"
    return Detail(
        trial.number,
        trial.state,
        {name: plain(value) for name, value in trial.candidate.items()},
        tuple(facts),
        row.verdicts,
        tuple(
            (
                stage.name,
                ", ".join(f"{k}={plain(v)}" for k, v in stage.options.items())[:OPTIONS],
                f"{stage.seconds:.2f}",
                "yes" if stage.cached else "no",
                stage.note,
            )
            for stage in trial.stages
        ),
        tuple(
            (
                m.metric,
                format_value(m.metric, m.value),
                _leveled(m),
                "" if m.n is None else f"{m.n}",
            )
            for m in trial.measurements
        ),
        export,
    )


def _leveled(found: Measurement) -> str:
    said = interval(found)
    return f"{said} ({level_text(found.level)})" if said else ""
