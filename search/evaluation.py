"""The bench of a build worker: makes the file of a candidate, and scores it.

Nothing here touches the database, and nothing is timed. What `build` and `score` take and return
is plain data.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressors.base import Context, Recipe, Refused
from compressors.training import seeded
from storage import Artifact, StageRun
from storage.artifacts import ContentStore, Holder, describe_artifact
from strategies.space import Candidate, Space

from .errors import one_line
from .jobs import Built, Progress, Scored
from .looks import Looks
from .parity import check_parity
from .runtimes.base import Runtime
from .sample_records import unpacked
from .scoring import bootstrap_seed, scored_on, zstd_bytes
from .stages import EXPORT, Stage, Step, plan, root_key
from .task import LoadedTask

if TYPE_CHECKING:
    from torch import Tensor, nn

MEASURE = "measure"  # the stage of a trial that scoring belongs to
STATE_FILE = "state.safetensors"

log = logging.getLogger("naslite.search")


class Workbench:
    """All that building and scoring need, loaded once per process.

    Args:
        pipeline: The compressors in order.
        threads: Of torch.
        session_threads: Of the runtime.
        stages: Cached stage results.
        artifacts: The files of trials.
        looks: At few samples of a candidate before all are scored.
    """

    def __init__(
        self,
        loaded: LoadedTask,
        space: Space,
        pipeline: Sequence[Step],
        runtime: Runtime,
        *,
        seed: int,
        threads: int,
        session_threads: int,
        stages: ContentStore,
        artifacts: ContentStore,
        looks: Looks | None = None,
    ) -> None:
        import torch

        self.loaded = loaded
        self.space = space
        self.pipeline = tuple(pipeline)
        self.runtime = runtime
        self.session_threads = session_threads
        self.stages = stages
        self.artifacts = artifacts
        self.looks = looks
        capability = torch.backends.cpu.get_cpu_capability()
        self._root = root_key(loaded.weights, loaded.fingerprint, seed, threads, capability)
        self._has_warned = False
        torch.set_num_threads(threads)

    def stage_keys(self, candidate: Candidate) -> list[str]:
        """The cache keys of a candidate's stages in order; equal keys, equal bytes."""
        return [stage.key for stage in self._plan(candidate)]

    def build(
        self, candidate: Candidate, *, progress: Progress = lambda stage, ended: None
    ) -> Built:
        """Run the stages that are not cached, and store the resulting artifact."""
        stages = self._plan(candidate)
        with (
            self.stages.holding() as held,
            tempfile.TemporaryDirectory(prefix="naslite-", ignore_cleanup_errors=True) as scratch,
        ):
            first, folder, facts = self._deepest_cached(stages, held)
            runs = [StageRun(s.name, s.key, dict(s.options), 0.0, True) for s in stages[:first]]
            if first:
                runs[-1] = replace(runs[-1], note=facts.get("note", ""))
            for stage in stages[first:]:
                progress(stage.name, tuple(runs))
                began = time.perf_counter()
                try:
                    folder, facts = self._run(stage, folder, facts, held, Path(scratch))
                except Exception as error:
                    runs.append(_stage_run(stage, began, ""))
                    state = "refused" if isinstance(error, Refused) else "failed"
                    return Built(tuple(runs), None, state, f"{stage.name}: {one_line(error)}")
                runs.append(_stage_run(stage, began, facts.get("note", "")))
            assert folder is not None
            if first == len(stages):
                progress(stages[-1].name, tuple(runs[:-1]))
            return self._stored(runs, [folder / name for name in facts["files"]])

    def score(
        self,
        artifact: Artifact,
        reference: bytes | None = None,
        *,
        progress: Progress = lambda stage, ended: None,
    ) -> Scored:
        """The score of a stored artifact, and what its files say of its work.

        Args:
            reference: The baseline's records, packed; without them the drop has no bounds.

        Raises:
            CorruptFiles: The artifact's files are not what was stored.
            ValueError: Outputs, records or the score are not finite.
        """
        progress(MEASURE, ())
        with self.artifacts.holding() as held:
            folder, path = self._verified(held, artifact)
            session = self.runtime.load(path, threads=self.session_threads)
            task, seed = self.loaded.task, bootstrap_seed(artifact.sha256)
            found = None
            if self.looks is not None and reference is not None:
                found = self.looks.given_up(session, unpacked(reference), seed)
            if found is None:
                found = scored_on(session, task, task.eval_batches, reference, seed)
            graph = self.runtime.inspect(path)
            return replace(
                found,
                parameters=float(graph["parameters"]),
                macs=float(graph["macs"]),
                size_zstd_bytes=zstd_bytes([folder / file.name for file in artifact.files]),
            )

    def audit(
        self,
        artifact: Artifact,
        reference: bytes | None = None,
        *,
        progress: Progress = lambda stage, ended: None,
    ) -> Scored | None:
        """The score of a stored artifact on the audit split; None if the task has none.

        Args:
            reference: The baseline's records of that split, packed.

        Raises:
            CorruptFiles, ValueError: See `score`.
        """
        progress(MEASURE, ())
        task, seed = self.loaded.task, bootstrap_seed(artifact.sha256)
        with seeded(0):
            batches = task.audit_batches()
        if batches is None:
            return None
        with self.artifacts.holding() as held:
            _, path = self._verified(held, artifact)
            session = self.runtime.load(path, threads=self.session_threads)
            return scored_on(session, task, lambda: batches, reference, seed)

    def _verified(self, held: Holder, artifact: Artifact) -> tuple[Path, Path]:
        """The folder of an artifact's intact files, and the file that is loaded."""
        folder, facts = held.verified(artifact.sha256)
        return folder, folder / str(facts["main"])

    def _plan(self, candidate: Candidate) -> list[Stage]:
        return plan(candidate, self.space, self.pipeline, self.runtime, self._root)

    def _deepest_cached(
        self, stages: Sequence[Stage], held: Holder
    ) -> tuple[int, Path | None, dict[str, Any]]:
        """How many leading stages need not run, and the cached result of the last of them."""
        for position in range(len(stages), 0, -1):
            try:
                entry = held.get(stages[position - 1].key)
            except OSError as error:
                self._warn(error)
                continue
            if entry is not None:
                return position, entry[0], entry[1]
        return 0, None, {"recipes": []}

    def _run(
        self,
        stage: Stage,
        folder: Path | None,
        facts: dict[str, Any],
        held: Holder,
        scratch: Path,
    ) -> tuple[Path, dict[str, Any]]:
        """Run one stage on the result of the one before; its own lies in the cache if it can."""
        workdir = Path(tempfile.mkdtemp(dir=scratch))
        if stage.changes_model:
            produced, facts = self._compress_model(stage, folder, facts, workdir)
        elif stage.name == EXPORT:
            produced, facts = self._export(folder, facts, workdir)
        else:
            assert folder is not None
            produced, facts = self._compress_artifact(stage, folder, workdir)
        facts = {**facts, "files": [path.name for path in produced]}
        try:
            cached = held.put(stage.key, produced, facts)
        except OSError as error:
            self._warn(error)
            return workdir, facts
        shutil.rmtree(workdir, ignore_errors=True)
        return cached, facts

    def _stored(self, runs: Sequence[StageRun], files: Sequence[Path]) -> Built:
        """Make an artifact of what the last stage gave."""
        try:
            artifact = describe_artifact(files, self.runtime.format)
            self.artifacts.put(artifact.sha256, files, {"main": self.runtime.main_file})
        except OSError as error:
            cause = f"{runs[-1].name}: storing the files: {one_line(error)}"
            return Built(tuple(runs), None, "failed", cause)
        return Built(tuple(runs), artifact)

    def _compress_model(
        self, stage: Stage, folder: Path | None, facts: dict[str, Any], workdir: Path
    ) -> tuple[list[Path], dict[str, Any]]:
        from safetensors.torch import save_model

        model = self._restored(folder, facts["recipes"])
        context = self._context(stage, workdir)
        compressed, recipe = stage.compressor.apply(model, stage.options, context)
        _check_weights(compressed, self.loaded.model)
        path = workdir / STATE_FILE
        save_model(compressed, str(path))
        return [path], {"recipes": [*facts["recipes"], [stage.name, recipe]]}

    def _export(
        self, folder: Path | None, facts: dict[str, Any], workdir: Path
    ) -> tuple[list[Path], dict[str, Any]]:
        model = self._restored(folder, facts["recipes"])
        path = workdir / self.runtime.main_file
        note = str(self.runtime.export(model, self.loaded.inputs, path) or "")
        session = self.runtime.load(path, threads=self.session_threads)
        check_parity(model, session, self.loaded.inputs)
        return sorted(workdir.iterdir()), {"note": note}

    def _compress_artifact(
        self, stage: Stage, folder: Path, workdir: Path
    ) -> tuple[list[Path], dict[str, Any]]:
        source = folder / self.runtime.main_file
        stage.compressor.apply(source, stage.options, self._context(stage, workdir))
        if not (workdir / source.name).is_file():
            raise ValueError(f"it wrote no {source.name}")
        return sorted(workdir.iterdir()), {}

    def _restored(self, folder: Path | None, recipes: list[tuple[str, Recipe]]) -> nn.Module:
        """The model that the stages so far gave: structure by recipes, weights from the file."""
        from safetensors.torch import load_model

        model = self.loaded.fresh_model()
        if folder is None:
            return model
        compressors: dict[str, Any] = {step.name: step.compressor for step in self.pipeline}
        for name, recipe in recipes:
            model = compressors[name].replay(model, recipe)
        load_model(model, folder / STATE_FILE)
        return model.eval()

    def _context(self, stage: Stage, workdir: Path) -> Context:
        return Context(self.loaded.task, self.loaded.fresh_model, stage.seed, workdir)

    def _warn(self, error: OSError) -> None:
        """Say once that the stage cache cannot be used: every trial would say so."""
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "the stage cache %s cannot be used (%s); stages are computed anew in every trial",
                self.stages.root,
                one_line(error),
            )


def _stage_run(stage: Stage, began: float, note: str) -> StageRun:
    seconds = time.perf_counter() - began
    return StageRun(stage.name, stage.key, dict(stage.options), seconds, False, note)


def _check_weights(compressed: nn.Module, original: nn.Module) -> None:
    """Refuse what a training that diverged leaves behind.

    What is not finite in the uncompressed model, such as the minus infinity of an attention mask,
    may stay so.

    Raises:
        ValueError: A tensor holds NaN or infinite values.
    """
    before = original.state_dict()
    for name, tensor in compressed.state_dict().items():
        if not _is_finite(tensor) and (name not in before or _is_finite(before[name])):
            raise ValueError(f"the weights of {name!r} hold NaN or infinite values")


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())
