"""A workbench without a study: candidates are built and scored as a search does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.config import parse_config
from search.errors import ConfigError
from search.evaluation import Workbench
from search.prepare import prepare
from search.workbench import make_workbench
from storage.artifacts import file_stores


def open_workbench(
    task: str,
    folder: Path,
    pipeline: Sequence[Mapping[str, Any]],
    files: Path,
    task_options: Mapping[str, Any] | None = None,
) -> Workbench:
    """The bench of a pipeline.

    Args:
        task: `file.py:Class`, the file in `folder`.
        pipeline: As in a config.
        files: A folder for cached stages and artifacts.

    Raises:
        ConfigError: Something is wrong with the task or the pipeline; says what.
    """
    name = "benchmark"
    config, problems = parse_config(
        {
            "study": name,
            "task": task,
            "task_options": dict(task_options or {}),
            "pipeline": [dict(entry) for entry in pipeline],
            "threads": 1,
        }
    )
    if config is None:
        raise ConfigError(name, problems)
    return make_workbench(prepare(config, folder, problems, name), file_stores(files))
