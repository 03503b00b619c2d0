"""Every test runs with its own caches and without the user's environment."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported: on tiny tensors a second thread only costs time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ASSETS = Path(__file__).parent / "assets"
REPOSITORY = Path(__file__).parent.parent


# Files that take minutes: they begin first, so that no process is left with one in the end.
LONGEST = [
    f"test_{name}.py"
    for name in (
        "reliability_faults",
        "strategies_optuna",
        "reliability_kills",
        "demo",
        "search_cli",
        "search_background",
        "benchmarks_coverage",
        "reliability_workers",
        "search_stop_studies",
        "search_continuing",
        "reliability_store",
    )
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: position for position, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ["NASLITE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["NASLITE_FILES"] = str(tmp_path_factory.mktemp("files"))  # of stores in memory
    os.environ["NASLITE_TIMING_LOCK"] = str(tmp_path_factory.mktemp("lock") / "timing.lock")
    os.environ.pop("NASLITE_STORE", None)
    yield
    os.environ.clear()
    os.environ.update(kept)


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a task puts its folder on the path; the next test starts without it."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(autouse=True)
def _own_log_level() -> Iterator[None]:
    """The command line lets notices through; the next test starts without them."""
    logger = logging.getLogger("naslite")
    kept = logger.level
    yield
    logger.setLevel(kept)


@pytest.fixture(autouse=True)
def _own_module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a task reads its folder's modules anew; a test in that folder stays as it was."""
    monkeypatch.setitem(sys.modules, request.module.__name__, request.module)


class Workspace:
    """A folder with the toy task, where configs are written and stores are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = f"sqlite:///{folder / 'naslite.db'}"
        shutil.copy(ASSETS / "toy_task.py", folder / "toy_task.py")

    def config(self, name: str = "toy.yaml", **changes: Any) -> Path:
        """A config of the toy task; `changes` replace or (None) remove top-level keys."""
        content: dict[str, Any] = {
            "study": "toy",
            "task": "toy_task.py:Toy",
            "objectives": {"accuracy": "maximize", "size_bytes": "minimize"},
            "constraints": ["accuracy_drop <= 0.5"],
            "pipeline": [
                {"structured_pruning": {"ratio": [0.0, 0.5], "round_to": 2}},
                {"distillation": {"epochs": [0, 1], "lr": 0.01}},
                {"onnx_quantization": {"scheme": ["none", "static"]}},
            ],
            "runtime": {"timing_seconds": 0.2},
            "budget": {"trials": 6},
            "threads": 1,
            **changes,
        }
        path = self.folder / name
        kept = {key: value for key, value in content.items() if value is not None}
        path.write_text(json.dumps(kept))  # JSON is YAML
        return path


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path)


@pytest.fixture
def naslite(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; returns exit code, output and error lines."""
    from search.cli import main

    def _run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return _run


def one_line(result: tuple[int, str, str]) -> str:
    """The single line of an error of the user."""
    code, out, err = result
    assert code == 2
    assert err.startswith("naslite: ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    return err


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose study `toy` has ended; for tests that only read."""
    from search import run

    workspace = Workspace(tmp_path_factory.mktemp("finished"))
    run(workspace.config(), store=workspace.store)
    return workspace


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported file of the toy task's model, which no test changes."""
    from assets.toy_task import toy_task

    from search.runtimes.onnx_runtime import OnnxRuntime

    path = tmp_path_factory.mktemp("toy") / "model.onnx"
    OnnxRuntime().export(toy_task().model(), toy_task().eval_batches()[0][0], path)
    return path
