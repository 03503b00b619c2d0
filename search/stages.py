"""The stages of a trial: which compressors run with which options, and their cache keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressors.base import ArtifactCompressor, ModelCompressor, TrainingCompressor
from strategies.space import Candidate, Space

from .environment import cpu_facts, library_versions
from .registry import source_digest
from .runtimes.base import Runtime

EXPORT = "export"
EPOCHS = "epochs"  # the option of a training that `TrainingCompressor.continues` is about
SCORED = 1  # raised when models are scored on other samples after an epoch
CACHE_FORMAT = 1  # raised when entries of the stage cache change their form or the training loop


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the pipeline: a compressor under its name in the config."""

    name: str
    compressor: ModelCompressor | ArtifactCompressor

    @property
    def changes_model(self) -> bool:
        return isinstance(self.compressor, ModelCompressor)


@dataclass(frozen=True, slots=True)
class Stage:
    """One compressor applied with its options, or the export (`step` None).

    Args:
        key: SHA-256 over everything that determines the result; equal keys, equal bytes.
        family: Of a training that can be continued: the key without its number of epochs. Of
            other stages, the key.
        shorter: Epochs and keys of the trainings that it can go on from, the longest first.
    """

    name: str
    step: Step | None
    options: Mapping[str, Any]
    key: str
    family: str
    shorter: tuple[tuple[int, str], ...] = ()

    @property
    def changes_model(self) -> bool:
        return self.step is not None and self.step.changes_model

    @property
    def compressor(self) -> Any:
        """The compressor of a stage that is not the export."""
        assert self.step is not None
        return self.step.compressor

    @property
    def seed(self) -> int:
        """The stage's own seed: the same stage gives the same bytes in any trial, any order."""
        return int(self.family[:15], 16)

    @property
    def epochs(self) -> int:
        """How many epochs a training has; 0 for other stages."""
        if self.step is None or not isinstance(self.step.compressor, TrainingCompressor):
            return 0
        return self.step.compressor.epochs(self.options)

    def score_key(self, epoch: int) -> str:
        """Of what the model scores after an epoch."""
        return _key(self.family, "score", SCORED, epoch)


def plan(
    candidate: Candidate, space: Space, pipeline: Iterable[Step], runtime: Runtime, root_key: str
) -> list[Stage]:
    """The stages of a candidate in order; compressors at their neutral values are left out."""
    steps = [s for s in pipeline if not space.is_neutral(candidate, f"{s.name}.")]
    stages: list[Stage] = []
    key = root_key
    for step in (s for s in steps if s.changes_model):
        stages.append(_stage(key, step, candidate))
        key = stages[-1].key
    versions = library_versions(runtime.libraries)
    kind = type(runtime)
    key = _key(key, EXPORT, kind.__name__, source_digest(kind), runtime.version, {}, versions)
    stages.append(Stage(EXPORT, None, {}, key, key))
    for step in (s for s in steps if not s.changes_model):
        stages.append(_stage(key, step, candidate))
        key = stages[-1].key
    return stages


def root_key(
    weights: str,
    task_fingerprint: str,
    seed: int,
    threads: int,
    cpu_capability: str,
    gpu: Sequence[str] = (),
) -> str:
    """The key of the uncompressed model.

    Training on a CPU is bit-reproducible for one number of threads and one instruction set.

    Args:
        gpu: What determines a training on one; empty where the CPU trains.
    """
    torch = library_versions(["torch"])
    isa = cpu_facts()["isa"]
    return _key(
        *(CACHE_FORMAT, weights, task_fingerprint, seed, threads, cpu_capability, isa, torch),
        *gpu,
    )


def _stage(parent: str, step: Step, candidate: Candidate) -> Stage:
    prefix = f"{step.name}."
    options = {k.removeprefix(prefix): v for k, v in candidate.items() if k.startswith(prefix)}
    compressor = step.compressor
    versions = library_versions(compressor.libraries)
    kind = type(compressor)
    source = source_digest(kind)
    # The module of a user's file is named after its place, on which no result may depend.
    module = "" if source else kind.__module__.rpartition(".")[2]
    name = f"{module}.{kind.__qualname__}/{source}"
    # Knobs that a compressor got later, where they are at what was done before there were any.
    added = getattr(compressor, "added", {})

    def key(options: Mapping[str, Any]) -> str:
        counted = {k: v for k, v in options.items() if k not in added or v != added[k]}
        return _key(parent, step.name, name, compressor.version, counted, versions)

    own = key(options)
    if not (isinstance(compressor, TrainingCompressor) and compressor.continues(options)):
        return Stage(step.name, step, options, own, own)
    family = key({k: v for k, v in options.items() if k != EPOCHS})
    fewer = range(compressor.epochs(options) - 1, 0, -1)
    shorter = tuple((epochs, key({**options, EPOCHS: epochs})) for epochs in fewer)
    return Stage(step.name, step, options, own, family, shorter)


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
