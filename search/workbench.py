"""Specs of the two benches, and the factory that a build worker makes its own with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.artifacts import ContentStore, file_stores
from strategies.space import Space

from .config import StudyConfig, parse_config
from .errors import ConfigError, TaskChanged
from .evaluation import Workbench
from .expressions import parse_constraint
from .jobs import BenchSpec
from .looks import Looks, limiting
from .parts import make_runtime, make_steps, make_task
from .sizes import parse_bytes
from .stopping import make_rule

if TYPE_CHECKING:
    from .prepare import Prepared
    from .task import LoadedTask


def build_spec(prepared: Prepared, files: Path) -> BenchSpec:
    """How a worker process makes the bench of a prepared study.

    Args:
        files: The folder of the artifacts and the cached stages.
    """
    return BenchSpec(
        "search.workbench:open_workbench",
        {
            "config": prepared.stored_config,
            "space": prepared.space.to_json(),
            "threads": prepared.facts["threads"],
            "fingerprint": prepared.loaded.fingerprint,
            "files": str(files),
        },
    )


def timing_spec(prepared: Prepared) -> BenchSpec:
    """How the timing process makes the timer of a prepared study."""
    from .measure import timing_feed

    runtime = prepared.config.runtime
    return BenchSpec(
        "search.timing:Timer",
        {
            "runtime": runtime.name,
            "folder": str(prepared.folder),
            "threads": runtime.threads,
            "batch_sizes": list(runtime.batch_sizes),
            "seconds": runtime.timing_seconds,
            "feed": timing_feed(prepared.loaded.inputs, max(runtime.batch_sizes)),
        },
    )


def make_workbench(prepared: Prepared, stores: tuple[ContentStore, ContentStore]) -> Workbench:
    """The bench of a prepared study for this process.

    Args:
        stores: Of artifacts and of cached stages.
    """
    artifacts, stages = stores
    return Workbench(
        prepared.loaded,
        prepared.space,
        prepared.pipeline,
        make_runtime(prepared.config, prepared.folder),
        seed=prepared.config.seed,
        threads=prepared.facts["threads"],
        session_threads=prepared.config.runtime.threads,
        artifacts=artifacts,
        stages=stages,
        looks=_looks(prepared.config, prepared.loaded),
        rule=make_rule(prepared.config.stop),
        device=prepared.config.device,
        amp=prepared.config.amp,
    )


def open_workbench(
    config: dict[str, Any],
    space: list[dict[str, Any]],
    threads: int,
    fingerprint: str,
    files: str,
) -> Workbench:
    """The bench of a study for a process that knows nothing of it yet.

    Args:
        config: As `Prepared.stored_config` gives it.
        space: The resolved space, JSON.
        threads: Of torch.
        fingerprint: Of the task that the study was begun with.
        files: The folder of the artifacts and the cached stages.

    Raises:
        TaskChanged: The task's files, options, weights or data are others by now.
        ConfigError: The task or a compressor cannot be loaded any more.
    """
    content = dict(config)
    folder = Path(content.pop("folder"))
    parsed, problems = parse_config(content)
    label = f"study {config['study']}"
    if parsed is None or problems:
        raise ConfigError(label, problems)
    loaded = make_task(parsed, folder, threads, problems)
    steps = make_steps(parsed, folder, problems)
    if problems or loaded is None:
        raise ConfigError(label, problems)
    if loaded.fingerprint != fingerprint:
        raise TaskChanged(
            f"the task {parsed.task!r} in {folder} changed while its study ran (its files,"
            " options, weights or data are not those of the start); restore it, and resume"
        )
    cap = parse_bytes(parsed.stage_cache)
    artifacts, stages = file_stores(Path(files), stage_bytes=cap)
    return Workbench(
        loaded,
        Space.from_json(space),
        [step for step in steps if step is not None],
        make_runtime(parsed, folder),
        seed=parsed.seed,
        threads=threads,
        session_threads=parsed.runtime.threads,
        artifacts=artifacts,
        stages=stages,
        looks=_looks(parsed, loaded),
        rule=make_rule(parsed.stop),
        device=parsed.device,
        amp=parsed.amp,
    )


def _looks(config: StudyConfig, loaded: LoadedTask) -> Looks | None:
    if not config.stage_evaluation:
        return None
    task = loaded.task
    constraints = map(parse_constraint, config.constraints)
    bearing = limiting(constraints, task.score_name, task.higher_is_better)
    return Looks(task, bearing, config.seed) if bearing else None
