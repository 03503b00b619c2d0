"""Resolving a config against its task: every problem of both, found in one go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressors.base import TrainingCompressor
from storage import Study
from strategies.base import Strategy, capabilities
from strategies.space import Space

from .audit import HAS_AUDIT
from .config import StudyConfig, parse_config
from .enqueue import resolve
from .environment import core_count, cpu_facts, library_versions
from .errors import ConfigError, NasliteError, Problem, TaskChanged
from .goals import Goals
from .knob_specs import resolved_space
from .metrics import drop_name, metric_names
from .parts import make_runtime, make_steps, make_task
from .registry import unknown_name
from .stages import Step
from .strategy import make_strategy

if TYPE_CHECKING:
    from .task import LoadedTask


@dataclass(frozen=True, slots=True)
class Prepared:
    """A config that was checked and resolved against its model."""

    config: StudyConfig
    folder: Path
    loaded: LoadedTask
    space: Space
    pipeline: tuple[Step, ...]
    strategy: Strategy
    goals: Goals
    facts: dict[str, Any]

    @property
    def stored_config(self) -> dict[str, Any]:
        return {**self.config.model_dump(exclude={"store"}), "folder": str(self.folder)}


def prepare(config: StudyConfig, folder: Path, problems: list[Problem], label: str) -> Prepared:
    """Resolve a config against its task, collecting whatever is wrong with either."""
    problems = list(problems)
    threads = config.threads or max(1, core_count() // config.workers)
    loaded = make_task(config, folder, threads, problems)
    steps = make_steps(config, folder, problems)
    space = resolved_space(config, steps, loaded, problems)
    strategy = _strategy(config, folder, problems)
    _check_runtime(config, folder, steps, problems)
    goals = _goals(config, loaded, problems)
    _check_looks(config, loaded, goals, problems)
    _check_stop(config, steps, problems)
    device = _device(config, problems)
    enqueued = [] if space is None else _enqueued(config, space, problems)
    if strategy is not None and space is not None and goals is not None:
        _check_capabilities(config.strategy.name, strategy, space, goals, problems)
    if problems or loaded is None or goals is None or space is None or strategy is None:
        raise ConfigError(label, problems)
    resolved = config.model_copy(
        update={
            "threads": threads,
            "device": device,
            "amp": config.amp if device != "cpu" else "none",
            "objectives": goals.objectives,
            "enqueue": enqueued,
            "lag": config.lag or (1 if config.workers == 1 else 2 * config.workers),
        }
    )
    pipeline = tuple(step for step in steps if step is not None)
    facts = _facts(loaded, threads)
    return Prepared(resolved, folder, loaded, space, pipeline, strategy, goals, facts)


def prepare_stored(study: Study, workers: int | None = None) -> Prepared:
    """A stored study's config with its task loaded again; the space is the stored one.

    Args:
        workers: Instead of the stored ones.
    """
    stored = dict(study.config)
    if workers is not None:
        stored["workers"] = workers
    stored.setdefault("device", "cpu")  # where all were trained before there was a choice
    folder = Path(stored.pop("folder"))
    label = f"study {study.name}"
    config, problems = parse_config(stored)
    if config is None or problems:
        raise ConfigError(label, problems)
    loaded = make_task(config, folder, study.facts["threads"], problems)
    steps = make_steps(config, folder, problems)
    strategy = _strategy(config, folder, problems)
    _device(config, problems)
    if problems or loaded is None or strategy is None:
        raise ConfigError(label, problems)
    if loaded.fingerprint != study.task_fingerprint:
        raise TaskChanged(
            f"the task {config.task!r} in {folder} is not the one that study {study.name!r} was"
            " created with (its files, options, weights or data differ); restore it, or start a"
            " new study with `naslite run`"
        )
    space = Space.from_json(study.space)
    goals = Goals.of_config(study.config)
    pipeline = tuple(step for step in steps if step is not None)
    facts = dict(study.facts)
    return Prepared(config, folder, loaded, space, pipeline, strategy, goals, facts)


def _strategy(config: StudyConfig, folder: Path, problems: list[Problem]) -> Strategy | None:
    options = config.strategy.model_extra or {}
    return make_strategy(config.strategy.name, options, folder, problems)


def _check_capabilities(
    name: str, strategy: Strategy, space: Space, goals: Goals, problems: list[Problem]
) -> None:
    able = capabilities(strategy)
    for text in able.problems(space, len(goals.objectives), len(goals.constraints)):
        problems.append(Problem("strategy", f"{able.name or name} {text}"))


def _enqueued(config: StudyConfig, space: Space, problems: list[Problem]) -> list[dict[str, Any]]:
    candidates, total = resolve(config.enqueue, space, problems), config.budget.trials
    if len(candidates) > total:
        problems.append(
            Problem(
                "enqueue",
                f"at most budget.trials = {total} candidates can be enqueued,"
                f" got {len(candidates)}; raise the budget or remove some",
            )
        )
    return candidates


def _check_runtime(
    config: StudyConfig, folder: Path, steps: list[Step | None], problems: list[Problem]
) -> None:
    try:
        runtime = make_runtime(config, folder)
    except NasliteError as error:
        problems.append(Problem("runtime.name", str(error)))
        return
    for position, step in enumerate(steps):
        formats = getattr(step.compressor, "formats", None) if step else None
        if step and formats is not None and runtime.format not in formats:
            problems.append(
                Problem(
                    f"pipeline.{position}",
                    f"{step.name!r} works on {', '.join(sorted(formats))} files, but runtime"
                    f" {config.runtime.name!r} writes {runtime.format}",
                )
            )


def _goals(
    config: StudyConfig, loaded: LoadedTask | None, problems: list[Problem]
) -> Goals | None:
    if loaded is None:
        return None
    score_name = loaded.task.score_name
    better = "maximize" if loaded.task.higher_is_better else "minimize"
    default = {score_name: better, "latency_ratio": "minimize"}
    objectives = dict(config.objectives) or default
    known = metric_names(score_name, config.runtime.batch_sizes)
    goals = Goals.of_config({"objectives": objectives, "constraints": config.constraints})
    for name in goals.objectives:
        if name not in known:
            problems.append(Problem(f"objectives.{name}", unknown_name("metric", name, known)))
    for position, constraint in enumerate(goals.constraints):
        if constraint.name not in known:
            problems.append(
                Problem(f"constraints.{position}", unknown_name("metric", constraint.name, known))
            )
    return goals


def _check_looks(
    config: StudyConfig, loaded: LoadedTask | None, goals: Goals | None, problems: list[Problem]
) -> None:
    """Whether candidates can be given up early, if they are to be."""
    if not config.stage_evaluation or loaded is None or goals is None:
        return
    from compressors.training import seeded

    from .cutting import CannotCut, cut, sample_count
    from .looks import limiting

    task = loaded.task
    name, better = task.score_name, task.higher_is_better
    if not limiting(goals.constraints, name, better):
        bound = f"{name} {'>=' if better else '<='} NUMBER"
        problems.append(
            Problem(
                "stage_evaluation",
                f"needs a constraint that a low score breaks, such as '{drop_name(name)} <= 0.01'"
                f" or '{bound}', got {[str(c) for c in goals.constraints]}",
            )
        )
    try:
        with seeded(0):
            batch = next(iter(task.eval_batches()))
            cut(batch, np.arange(1), sample_count(task.inputs(batch)))
    except CannotCut as error:
        problems.append(
            Problem("stage_evaluation", f"{error}; leave it false, or change eval_batches()")
        )


def _check_stop(config: StudyConfig, steps: list[Step | None], problems: list[Problem]) -> None:
    """Whether there is a training to give up, if one is to be."""
    trains = any(step and isinstance(step.compressor, TrainingCompressor) for step in steps)
    if config.stop.rule != "none" and not trains and None not in steps:
        names = ", ".join(step.name for step in steps if step)
        problems.append(
            Problem("stop", f"needs a compressor that trains, such as distillation, got {names}")
        )


def _device(config: StudyConfig, problems: list[Problem]) -> str:
    from compressors.devices import resolved_device

    try:
        device = resolved_device(config.device)
    except ValueError as error:
        problems.append(Problem("device", str(error)))
        return "cpu"
    if config.amp != "none" and config.device == "cpu":
        problems.append(
            Problem("amp", f"{config.amp!r} is for trainings on a GPU, got `device: cpu`")
        )
    return device


def _facts(loaded: LoadedTask, threads: int) -> dict[str, Any]:
    return {
        "score_name": loaded.task.score_name,
        "higher_is_better": loaded.task.higher_is_better,
        HAS_AUDIT: _has_audit(loaded),
        "threads": threads,
        "versions": library_versions(),
        **cpu_facts(),
    }


def _has_audit(loaded: LoadedTask) -> bool:
    from compressors.training import seeded

    with seeded(0):
        return loaded.task.audit_batches() is not None
