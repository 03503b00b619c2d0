"""The parts that a config names, made: the task, the compressors and the runtime."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compressors
from compressors.base import ArtifactCompressor, ModelCompressor

from . import runtimes
from .config import StudyConfig
from .errors import NasliteError, Problem
from .registry import load
from .runtimes.base import Runtime
from .stages import Step

if TYPE_CHECKING:
    from .task import LoadedTask

# What a model compressor does, by its class attribute `kind`, in the order in which they pay. One
# that declares none may stand anywhere.
KINDS = ("prune", "distil", "cluster", "quantize")


def make_task(
    config: StudyConfig, folder: Path, threads: int, problems: list[Problem]
) -> LoadedTask | None:
    """The task with its model; None if the config or the task has a problem with it.

    Args:
        threads: Of torch from here on: a task may train its model when it is loaded.
    """
    if any(problem.path.startswith("task") for problem in problems):
        return None
    import torch

    from .task import TaskProblems, load_task

    torch.set_num_threads(threads)
    try:
        return load_task(config.task, config.task_options, folder)
    except TaskProblems as error:
        problems.extend(error.problems)
        return None


def make_steps(config: StudyConfig, folder: Path, problems: list[Problem]) -> list[Step | None]:
    """The compressors of the pipeline's entries; None in the place of one with a problem."""
    steps: list[Step | None] = []
    for position, (name,) in enumerate(config.pipeline):
        try:
            found = load("compressor", "compressors", name, compressors.BUILTIN, folder)
            steps.append(Step(name.rpartition(":")[2], _compressor(found)))
        except NasliteError as error:
            problems.append(Problem(f"pipeline.{position}", str(error)))
            steps.append(None)
    _check_order(steps, problems)
    for position, (step, following) in enumerate(pairwise(steps)):
        if step and following and following.changes_model and not step.changes_model:
            problems.append(
                Problem(
                    f"pipeline.{position + 1}",
                    f"{following.name!r} changes the model, so it must stand before"
                    f" {step.name!r}, which changes the exported file",
                )
            )
    return steps


def make_runtime(config: StudyConfig, folder: Path) -> Runtime:
    """The runtime that the config names.

    Raises:
        NasliteError: There is none of that name, or it cannot be imported.
    """
    runtime: Runtime = load("runtime", "runtimes", config.runtime.name, runtimes.BUILTIN, folder)()
    return runtime


def _compressor(found: Any) -> ModelCompressor | ArtifactCompressor:
    try:
        compressor = found()
    except Exception as error:
        raise NasliteError(f"{found!r}() failed: {type(error).__name__}: {error}") from error
    if isinstance(compressor, ModelCompressor):
        return compressor
    if isinstance(compressor, ArtifactCompressor) and not hasattr(compressor, "replay"):
        return compressor
    raise NasliteError(
        f"{type(compressor).__name__} must have version, libraries, knobs() and apply(), and"
        " either replay() (it changes the model) or formats (it changes the exported file)"
    )


def _check_order(steps: list[Step | None], problems: list[Problem]) -> None:
    """Whether the compressors that declare a kind stand in the order of KINDS."""
    last: Step | None = None
    for position, step in enumerate(steps):
        if step is None or _kind(step) not in KINDS:
            continue
        if last and KINDS.index(_kind(step)) < KINDS.index(_kind(last)):
            problems.append(
                Problem(
                    f"pipeline.{position}",
                    f"{step.name!r} must stand before {last.name!r}:"
                    f" first {', then '.join(KINDS)}",
                )
            )
            return
        last = step


def _kind(step: Step) -> str:
    return str(getattr(step.compressor, "kind", ""))
