"""What a study spent and on what: failures by cause, stages, what the cache saved, the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage import Study
from storage.records import Session

from .results import Row

CAUSES = 30  # that are listed
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Failure:
    """Trials that ended in the same state for the same reason, numbers in the cause aside.

    Args:
        cause: Of the first of them.
        numbers: The trials.
    """

    state: str
    cause: str
    numbers: tuple[int, ...]


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


def failures(rows: Iterable[Row]) -> list[Failure]:
    """The trials that did not become rows, the most frequent cause first, at most CAUSES."""
    groups: dict[tuple[str, str], tuple[str, list[int]]] = {}
    for row in rows:
        trial = row.trial
        if trial.state in ("failed", "refused", "stopped"):
            kind = trial.state, _NUMBER.sub("0", trial.cause)
            groups.setdefault(kind, (trial.cause, []))[1].append(trial.number)
    found = [Failure(s, cause, tuple(numbers)) for (s, _), (cause, numbers) in groups.items()]
    return sorted(found, key=lambda f: (-len(f.numbers), f.numbers))[:CAUSES]


def stage_costs(rows: Iterable[Row]) -> list[StageCost]:
    """The cost of each stage in the order in which trials go through them, and at last that of
    scoring and timing."""
    counts: dict[str, list[float]] = {}
    rest = {"computed": 0, "seconds": 0.0}
    # The trial with the most stages first: it has them in their order.
    for row in sorted(rows, key=lambda row: -len(row.trial.stages)):
        spent = 0.0
        for stage in row.trial.stages:
            computed, cached, seconds, cost = counts.setdefault(stage.name, [0, 0, 0.0, 0.0])
            here = [computed + (not stage.cached), cached + stage.cached, seconds + stage.seconds]
            counts[stage.name] = [*here, cost + (0.0 if stage.cached else stage.seconds)]
            spent += stage.seconds
        if row.trial.stages and row.trial.state == "complete":
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
        ("threads", facts.get("threads")),
        ("runtime", runtime.get("name")),
        ("batch sizes", ", ".join(map(str, runtime.get("batch_sizes", [])))),
        ("seed", study.seed),
        ("task", study.config.get("task")),
        ("folder", re.split(r"[/\\]", str(study.config.get("folder", "")).rstrip("/\\"))[-1]),
        *sorted(facts.get("versions", {}).items()),
    ]
    return [(name, str(value)) for name, value in shown if value not in (None, "")]


def session_lines(sessions: Sequence[Session]) -> list[tuple[str, ...]]:
    """When, from which trial on, CPU, load, control per batch size, noise floor."""
    return [
        (
            str(session.number),
            str(session.facts.get("cpu", "")),
            _load(session.facts.get("load")),
            "; ".join(_control(control) for control in _controls(session.facts)),
            "; ".join(_floor(session.facts)),
        )
        for session in sessions
    ]


def _load(load: Any) -> str:
    if isinstance(load, (list, tuple)):
        return ", ".join(_load(part) for part in load)
    return f"{load:.2f}" if isinstance(load, (int, float)) else ""


def _controls(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = facts.get("controls") or facts.get("control") or []
    return [found] if isinstance(found, Mapping) else list(found)


def _control(control: Mapping[str, Any]) -> str:
    said = f"batch {control.get('batch_size', '?')}: {float(control.get('ratio', 1)):.3f}"
    low, high = control.get("low"), control.get("high")
    return said if low is None or high is None else f"{said} [{low:.3f}, {high:.3f}]"


def _floor(facts: Mapping[str, Any]) -> list[str]:
    """How far a control's interval reaches from 1: differences below it cannot be told."""
    stored = facts.get("noise_floor")
    if isinstance(stored, Mapping):
        return [f"batch {size}: {100 * float(floor):.2g} %" for size, floor in stored.items()]
    if isinstance(stored, (int, float)):
        return [f"{100 * stored:.2g} %"]
    return [
        f"batch {c.get('batch_size', '?')}:"
        f" {100 * max(abs(1 - float(c['low'])), abs(float(c['high']) - 1)):.2g} %"
        for c in _controls(facts)
        if c.get("low") is not None and c.get("high") is not None
    ]


def config_text(study: Study) -> str:
    """The resolved config as JSON; of its folder only the name."""
    shown = dict(study.config)
    if "folder" in shown:
        shown["folder"] = re.split(r"[/\\]", str(shown["folder"]).rstrip("/\\"))[-1]
    return json.dumps(shown, indent=2, default=str, ensure_ascii=False)
