"""Small studies, trials and artifacts for tests of stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from .artifacts import describe_artifact
from .lease import new_owner
from .records import Artifact, Measurement, NewStudy, Outcome, StageRun, Study, Trial
from .store import Store

CANDIDATE = {"pruning.ratio": 0.5, "distillation.epochs": 2, "scheme": "static", "folded": True}
COMPLETE = Outcome(
    "complete",
    stages=(
        StageRun("structured_pruning", "a" * 64, {"ratio": 0.5, "scope": "global"}, 1.25, False),
        StageRun("onnx_quantization", "b" * 64, {}, 0.0, True, "weights only: \u00bd the gain"),
    ),
    measurements=(
        Measurement("latency_ms", 1.5, "ms", 1.4, 1.6, 200, noisy=True),
        Measurement("accuracy", 0.1 + 0.2, low=None, high=0.31),
        Measurement("size_bytes", 3e9, "B"),
    ),
    seconds=2.5,
)


def new_study(name: str) -> NewStudy:
    return NewStudy(
        name=name,
        config={"objectives": {"accuracy": "maximize"}, "pipeline": [{"p": {"ratio": [0, 0.5]}}]},
        space=[{"kind": "choice", "name": "scheme", "values": ["none", 1, 1.5, True]}],
        task_fingerprint="f" * 64,
        seed=2**63 - 1,
        trials=60,
        minutes=12.5,
        facts={"threads": 2, "cpu": "caf\u00e9 \U0001f916", "versions": {"numpy": "2.0"}},
    )


def propose(store: Store, study: Study, owner: str, number: int) -> None:
    store.propose(study, owner, number, CANDIDATE, "c" * 64)


def stored_artifact(store: Store, folder: Path, content: bytes = b"weights") -> Artifact:
    """An artifact of two files, put in the store's folder."""
    files = [folder / "model.onnx", folder / "model.onnx.data"]
    for file in files:
        file.write_bytes(content + file.suffix.encode())
    artifact = describe_artifact(files, "onnx")
    store.artifacts.put(artifact.sha256, files)
    return artifact


def dead_owner() -> str:
    """A token of a process of this machine that has certainly ended."""
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    host, _, token = new_owner().split("/")
    return f"{host}/{ended.pid}/{token}"


def everything(store: Store) -> list[Any]:
    """All that a store says about its studies."""
    return [
        (
            s,
            store.trials(s.study),
            store.requests(s.study),
            store.extensions(s.study),
            store.known(s.study),
        )
        for s in store.studies()
    ]


def outcome_of(trial: Trial) -> Outcome:
    return Outcome(
        trial.state,
        trial.cause,
        trial.stages,
        trial.artifact,
        trial.measurements,
        trial.seconds,
        trial.reused_from,
        trial.reused_study,
    )
