"""What a study spent and on what: failures by cause, stages, what the cache saved, the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage import Study, Trial
from storage.records import Session

from .causes import Cause, causes
from .results import Row

CONTROLS = 3  # of a session that are written out


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage cost over all trials.

    Args:
        computed: How often it was computed.
        cached: How often its result was taken from the cache.
        seconds: What that cost together.
        saved: An estimate: what the cached ones would have cost at the mean of the computed ones;
            None if none was computed.
    """

    name: str
    computed: int
    cached: int
    seconds: float
    saved: float | None


def failures(rows: Iterable[Row]) -> list[Cause]:
    """The trials that ended without becoming rows, the most frequent cause first."""
    states = ("failed", "refused", "stopped")
    return causes(row.trial for row in rows if row.trial.state in states)


def stage_costs(rows: Iterable[Row]) -> list[StageCost]:
    """The cost of each stage in the order in which trials go through them, and at last that of
    scoring and timing. Trials that were answered from known facts went through none."""
    counts: dict[str, list[float]] = {}
    rest = {"computed": 0, "seconds": 0.0}
    # The trial with the most stages first: it has them in their order.
    went = [row for row in rows if not _is_known(row.trial)]
    for row in sorted(went, key=lambda row: -len(row.trial.stages)):
        spent = 0.0
        for stage in row.trial.stages:
            computed, cached, seconds, cost = counts.setdefault(stage.name, [0, 0, 0.0, 0.0])
            here = [computed + (not stage.cached), cached + stage.cached, seconds + stage.seconds]
            counts[stage.name] = [*here, cost + (0.0 if stage.cached else stage.seconds)]
            spent += stage.seconds
        if row.trial.stages and row.trial.state == "complete" and row.trial.reused_from is None:
            rest["computed"] += 1
            rest["seconds"] += max(0.0, row.trial.seconds - spent)
    found = [
        StageCost(name, int(computed), int(cached), seconds, _saved(computed, cached, cost))
        for name, (computed, cached, seconds, cost) in counts.items()
    ]
    if rest["computed"]:
        found.append(
            StageCost("scoring, timing, waiting", int(rest["computed"]), 0, rest["seconds"], 0.0)
        )
    return found


def _is_known(trial: Trial) -> bool:
    """Whether a trial took all over: its stages are those of the trial it was taken from."""
    return trial.reused_from is not None and not trial.seconds


def _saved(computed: float, cached: float, cost: float) -> float | None:
    if not computed:
        return None if cached else 0.0
    return cached * cost / computed


def environment(study: Study) -> list[tuple[str, str]]:
    """The machine and libraries that the study was created with, its seed and its budget."""
    facts = study.facts
    runtime = study.config.get("runtime", {})
    shown: list[tuple[str, Any]] = [
        ("CPU", facts.get("cpu")),
        ("cores", facts.get("cores")),
        ("instruction sets", ", ".join(facts.get("isa", []))),
        ("threads that train", facts.get("threads")),
        ("runtime", runtime.get("name")),
        ("threads that are timed", runtime.get("threads")),
        ("batch sizes", ", ".join(map(str, runtime.get("batch_sizes", [])))),
        ("seed", study.seed),
        ("task", study.config.get("task")),
        ("folder", re.split(r"[/\\]", str(study.config.get("folder", "")).rstrip("/\\"))[-1]),
        *sorted(facts.get("versions", {}).items()),
    ]
    return [(name, str(value)) for name, value in shown if value not in (None, "")]


def session_lines(sessions: Sequence[Session]) -> list[tuple[str, ...]]:
    """From which trial on, CPU, load, A/A controls of the timings, noise floor."""
    return [
        (
            str(session.number),
            str(session.facts.get("cpu", "")),
            *_controls(session.facts.get("controls", [])),
        )
        for session in sessions
    ]


def _controls(controls: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """The load, the ratios and the noise floor of what `dataclasses.asdict` makes of controls."""
    if not controls:
        return "", "", ""
    loads = [f"{load:.2f}" for load in sorted({float(c["load"]) for c in controls})]
    load = loads[0] if loads[0] == loads[-1] else f"{loads[0]} to {loads[-1]}"
    ratios = [f"{c['ratio']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in controls[:CONTROLS]]
    rest = len(controls) - CONTROLS
    more = f"; and {rest} more" if rest > 0 else ""
    return load, "; ".join(ratios) + more, f"{100 * max(c['noise_floor'] for c in controls):.2g} %"


def config_text(study: Study) -> str:
    """The resolved config as JSON; of its folder only the name."""
    shown = dict(study.config)
    if "folder" in shown:
        shown["folder"] = re.split(r"[/\\]", str(shown["folder"]).rstrip("/\\"))[-1]
    return json.dumps(shown, indent=2, default=str, ensure_ascii=False)
