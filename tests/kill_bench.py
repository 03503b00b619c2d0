"""The bench of the kill study: real files and stages at no cost, in worker processes.

What a file is worth is read off its bytes, so a wrong file gives a wrong score. What is built and
scored is logged: one line each, appended at once, so that it outlives the process.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.jobs import Built, Progress, Scored, Timing

if TYPE_CHECKING:
    from storage import Artifact, StageRun
    from storage.artifacts import ContentStore

STAGES = ("prune", "distil", "quantize")
STAGE_BYTES = 20_000  # of the stage cache: a few entries, so that it evicts
STAGE_FILE = "stage.json"
LONGEST_S = 0.02

Candidate = Mapping[str, Any]


class Bench:
    """Builds and scores by a formula.

    Of the candidates some are refused, some fail by raising, by answering so or by a score that
    is no number, and some give the same bytes as others.

    Args:
        files: The folder of the artifacts and the cached stages.
        log: Where builds and scores are noted.
    """

    def __init__(self, files: str, log: str) -> None:
        from storage.artifacts import file_stores  # not for the clock, which starts without it

        self.artifacts, self.stages = file_stores(Path(files), stage_bytes=STAGE_BYTES)
        self.log = Path(log)

    def build(self, candidate: Candidate, *, progress: Progress) -> Built:
        from storage import StageRun

        note(self.log, "build", as_key(candidate))
        pause = _pauses(as_key(candidate))
        runs: list[StageRun] = []
        model: dict[str, Any] = {}
        with _scratch(self.log.parent) as scratch, self.stages.holding() as stages:
            for stage in STAGES:
                progress(stage, tuple(runs))
                threading.Event().wait(next(pause))
                cause = _refusal(stage, candidate)
                if cause:
                    return Built(tuple(runs), None, "refused", f"{stage}: {cause}")
                model[stage] = options = _options(stage, candidate)
                key = hashlib.sha256(json.dumps(model).encode()).hexdigest()
                cached = stages.get(key)
                if cached is None:
                    path = scratch / STAGE_FILE
                    path.write_text(json.dumps(model).ljust(2000))
                    stages.put(key, [path], {"stage": stage})
                else:
                    model = json.loads((cached[0] / STAGE_FILE).read_text())
                runs.append(StageRun(stage, key, options, 0.0, cached is not None))
            if candidate["distil.epochs"] == 3 and candidate["prune.level"] == 4:
                return Built(tuple(runs), None, "failed", "quantize: ValueError: no such layer")
            return Built(tuple(runs), self._stored(model, scratch))

    def score(self, artifact: Artifact, *, progress: Progress) -> Scored:
        note(self.log, "score", artifact.sha256)
        progress("measure", ())
        model = _model(self.artifacts, artifact.sha256)
        level, epochs = model["prune"]["level"], model["distil"]["epochs"]
        drop = 0.01 * level**2 / (1 + epochs) + (0.03 if model["quantize"] else 0.0)
        drop += {"l1": 0.004, "l2": 0.0, "random": 0.02}[model["prune"]["importance"]]
        score = math.nan if (level, epochs) == (6, 0) else 1.0 - drop
        return Scored(score, 100, 1000.0 - 100 * level, 2000.0 - 150 * level)

    def _stored(self, model: Mapping[str, Any], scratch: Path) -> Artifact:
        """Two files: what the model is, and the bytes that it takes."""
        from storage.artifacts import describe_artifact

        size = (900 - 100 * model["prune"]["level"]) * (4 if not model["quantize"] else 1)
        paths = [scratch / "model.json", scratch / "model.data"]
        paths[0].write_text(json.dumps(model, sort_keys=True))
        paths[1].write_bytes(hashlib.sha256(paths[0].read_bytes()).digest() * (size // 32))
        artifact = describe_artifact(paths, "json")
        self.artifacts.put(artifact.sha256, paths, {"main": paths[0].name})
        return artifact


class Clock:
    """Times nothing: the latency of every file is that of the baseline."""

    def time(
        self, path: Path, baseline: Path | None, seed: int, *, progress: Progress
    ) -> tuple[Timing, ...]:
        progress("measure", ())
        for file in filter(None, (path, baseline)):
            json.loads(file.read_text())
        return (Timing(1, 1.0, 1.0, 1.0, 1.0, 15),)


def as_key(candidate: Candidate) -> str:
    return json.dumps(dict(candidate), sort_keys=True)


def note(log: Path, *words: str) -> None:
    """Append a line of JSON in one write."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, (json.dumps(words) + "\n").encode())
    finally:
        os.close(descriptor)


def notes(log: Path, since: int = 0) -> tuple[list[list[str]], int]:
    """The lines from a position on, and the position after them."""
    if not log.exists():
        return [], since
    with log.open("rb") as file:
        file.seek(since)
        content = file.read()
    return [json.loads(line) for line in content.splitlines()], since + len(content)


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder that goes with the study's if its process is killed."""
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _pauses(key: str) -> Iterator[float]:
    """How long each stage of a candidate takes: mostly a few milliseconds, at times many."""
    for byte in hashlib.sha256(key.encode()).digest():
        yield LONGEST_S * (byte / 255) ** 4


def _refusal(stage: str, candidate: Candidate) -> str:
    """Why a stage cannot do a candidate; most it can.

    Raises:
        ValueError: It goes wrong.
    """
    if stage == "prune" and candidate["prune.level"] == 7:
        return "nothing is left of layer 3"
    is_random = candidate.get("prune.importance") == "random"
    if stage == "distil" and is_random and candidate["distil.epochs"] == 2:
        raise ValueError("the loss is not finite")
    return ""


def _options(stage: str, candidate: Candidate) -> dict[str, Any]:
    """What a stage makes of the knobs; knobs without an effect give the same bytes."""
    if stage == "prune":
        level = candidate["prune.level"]
        return {"level": level, "importance": candidate.get("prune.importance", "l2")}
    if stage == "distil":
        return {"epochs": candidate["distil.epochs"]}
    if candidate["quantize.scheme"] == "none":
        return {}
    # The calibrator changes nothing, nor does `per_channel` where the scheme is dynamic.
    static = candidate["quantize.scheme"] == "static"
    return {"static": static, "per_channel": static and candidate["quantize.per_channel"]}


def _model(artifacts: ContentStore, sha256: str) -> dict[str, Any]:
    folder, facts = artifacts.verified(sha256)
    model: dict[str, Any] = json.loads((folder / facts["main"]).read_text())
    data = (folder / "model.data").read_bytes()
    assert data[:32] == hashlib.sha256((folder / facts["main"]).read_bytes()).digest()
    return model
