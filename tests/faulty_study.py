"""Studies that run as a user runs them, in a folder where faults can be armed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from search import open_study
from search.results import Row

TESTS = Path(__file__).parent
FILES = (
    "toy_task",
    "faulty_acts",
    "faulty_task",
    "faulty_compressors",
    "faulty_runtime",
    "damaging_run",
)
PROGRAM = [sys.executable, "-c", "from search.cli import main; main()"]
DEADLINE_S = 600.0

TIMEOUT_S = 15  # of a trial that needs about 4 on a machine that is not busy
MEMORY_MB = 1000  # of a worker, which needs about 450
SCRATCH_MB = 16  # of which a trial needs 0.1
STAGES = "naslite.db.files/stages"
ARTIFACTS = "naslite.db.files/artifacts"

# Its mounts are seen by nobody else, and gone with its last process.
NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A study that has ended.

    Args:
        left: Processes of its folder that are still there.
    """

    folder: Path
    code: int
    out: str
    err: str
    left: tuple[str, ...]

    def rows(self) -> list[Row]:
        results = open_study("toy", store=f"sqlite:///{self.folder / 'naslite.db'}")
        try:
            return results.rows()
        finally:
            results.store.close()

    def state(self) -> str:
        results = open_study("toy", store=f"sqlite:///{self.folder / 'naslite.db'}")
        results.store.close()
        return results.state

    def row(self, candidate: Mapping[str, Any]) -> Row:
        """The trial that a partial candidate was enqueued as."""
        position = json.loads((self.folder / "toy.yaml").read_text())["enqueue"].index(candidate)
        return self.rows()[1 + position]

    def worker_log(self) -> str:
        return (self.folder / "naslite.db.files/logs/toy.workers.log").read_text()


def config(candidates: Sequence[Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    """The config of a study that evaluates these candidates and no other."""
    compressors = "faulty_compressors.py:"
    return {
        "study": "toy",
        "task": "faulty_task.py:FaultyToy",
        "objectives": {"accuracy": "maximize", "size_bytes": "minimize"},
        "pipeline": [
            {f"{compressors}structured_pruning": {"ratio": [0.0, 0.25, 0.5], "round_to": 2}},
            {f"{compressors}distillation": {"epochs": [0, 1, 2], "lr": 0.01}},
            f"{compressors}marked_model",
            {f"{compressors}onnx_quantization": {"calibrator": "minmax"}},
            f"{compressors}marked_file",
        ],
        "runtime": {"name": "faulty_runtime.py:FaultyRuntime"},
        "strategy": "random",
        "budget": {"trials": len(candidates)},
        "enqueue": list(candidates),
        "limits": {"timeout": TIMEOUT_S, "memory": f"{MEMORY_MB} MB"},
        "threads": 1,
        **changes,
    }


def search(
    folder: Path,
    candidates: Sequence[Mapping[str, Any]],
    *,
    armed: bool = True,
    mounts: Sequence[str] = (),
    program: Sequence[str] = (*PROGRAM, "run", "toy.yaml"),
    **changes: Any,
) -> Ended:
    """Run a study of these candidates in a new folder, with little room for scratch files.

    Args:
        mounts: Shell commands that prepare its disk; see `can_mount`.
        changes: Of the config.
    """
    write(folder, config(candidates, **changes), armed=armed)
    (folder / "scratch").mkdir()
    done = subprocess.run(
        [*_with_little_scratch(mounts), *program],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder / "scratch"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return Ended(folder, done.returncode, done.stdout, done.stderr, left_in(folder))


def write(folder: Path, content: Mapping[str, Any], *, armed: bool) -> None:
    """Write a config and all that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(TESTS / "assets" / f"{name}.py", folder)
    if armed:
        (folder / "armed").touch()
    (folder / "toy.yaml").write_text(json.dumps(content))


def left_in(folder: Path, within_s: float = 10.0) -> tuple[str, ...]:
    """The processes that work in a folder and do not end within some seconds."""
    end = time.monotonic() + within_s
    while found := _processes_in(folder):
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return found


@cache
def can_mount() -> bool:
    """Whether this user may mount file systems in a namespace of his own."""
    try:
        done = subprocess.run([*NAMESPACE, "mount -t tmpfs tmpfs /mnt"], capture_output=True)
    except OSError:  # there is no `unshare` here
        return False
    return done.returncode == 0


def table(rows: Iterable[Row]) -> dict[str, tuple[Any, ...]]:
    """What must be equal between two studies, by candidate: state, values, bytes."""
    return {
        json.dumps(row.trial.candidate, sort_keys=True): (
            row.trial.state,
            row.metrics.get("accuracy"),
            row.metrics.get("size_bytes"),
            row.trial.artifact.sha256 if row.trial.artifact else None,
        )
        for row in rows
    }


def _with_little_scratch(mounts: Sequence[str]) -> list[str]:
    """A command that runs another one with a small disk, or as if it had one."""
    if can_mount():
        room = f'mount -t tmpfs -o size={SCRATCH_MB}m tmpfs "$TMPDIR"'
        return [*NAMESPACE, " && ".join([room, *mounts, 'exec "$@"']), "sh"]
    assert not mounts
    return ["sh", "-c", f'ulimit -f {SCRATCH_MB * 1000} && exec "$@"', "sh"]


def _processes_in(folder: Path) -> tuple[str, ...]:
    found = []
    for process in psutil.process_iter(["cwd", "status", "cmdline"]):
        facts = process.info
        if facts["cwd"] == str(folder.resolve()) and facts["status"] != psutil.STATUS_ZOMBIE:
            found.append(f"{process.pid} {' '.join(facts['cmdline'] or [])[:60]}")
    return tuple(found)
