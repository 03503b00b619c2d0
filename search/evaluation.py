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

import numpy as np

from compressors.arrays import named_arrays
from compressors.base import Context, Recipe, Refused
from storage import Artifact, StageRun
from storage.artifacts import ContentStore, Holder, describe_artifact
from strategies.space import Candidate, Space

from . import measure
from .errors import one_line
from .jobs import Built, Progress, Scored
from .runtimes.base import Runtime
from .stages import EXPORT, Stage, Step, plan, root_key
from .task import LoadedTask

if TYPE_CHECKING:
    from torch import Tensor, nn

MEASURE = "measure"  # the stage of a trial that scoring belongs to
STATE_FILE = "state.safetensors"
PARITY = 1e-3  # largest difference between a model and its exported file, relative

log = logging.getLogger("naslite.search")


class Workbench:
    """All that building and scoring need, loaded once per process.

    Args:
        pipeline: The compressors in order.
        threads: Of torch.
        session_threads: Of the runtime.
        stages: Cached stage results.
        artifacts: The files of trials.
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
    ) -> None:
        import torch

        self.loaded = loaded
        self.space = space
        self.pipeline = tuple(pipeline)
        self.runtime = runtime
        self.session_threads = session_threads
        self.stages = stages
        self.artifacts = artifacts
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
        self, artifact: Artifact, *, progress: Progress = lambda stage, ended: None
    ) -> Scored:
        """The score of a stored artifact, and what its graph says of its work.

        Raises:
            CorruptFiles: The artifact's files are not what was stored.
            ValueError: Outputs, records or the score are not finite.
        """
        progress(MEASURE, ())
        with self.artifacts.holding() as held:
            folder, facts = held.verified(artifact.sha256)
            path = folder / str(facts["main"])
            session = self.runtime.load(path, threads=self.session_threads)
            score, samples = measure.score(session, self.loaded.task)
            found = self.runtime.inspect(path)
            return Scored(score, samples, float(found["parameters"]), float(found["macs"]))

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
        self._check_parity(model, path)
        return sorted(workdir.iterdir()), {"note": note}

    def _check_parity(self, model: nn.Module, path: Path) -> None:
        """Compare the exported file with the model it was made from, on evaluation inputs.

        Raises:
            Refused: They disagree, so the exporter has lost something.
            ValueError: The model's own outputs hold NaN.
        """
        import torch

        from compressors.inspect import forward, tensors_in

        session = self.runtime.load(path, threads=self.session_threads)
        with torch.no_grad():
            wanted = list(tensors_in(forward(model, self.loaded.inputs)))
        try:
            given = session(named_arrays(self.loaded.inputs, session.input_names))
        except Exception as error:
            raise Refused(f"the exported file does not run ({one_line(error)})") from error
        arrays = given if isinstance(given, tuple) else (given,)
        if len(arrays) != len(wanted):
            raise Refused(f"the exported file has {len(arrays)} outputs, the model {len(wanted)}")
        for tensor, array in zip(wanted, arrays, strict=True):
            expected = tensor.numpy()
            measure.check_outputs(expected)
            if array.shape != expected.shape:
                raise Refused(
                    f"the exported file gives shape {array.shape}, the model {expected.shape}"
                )
            if np.isnan(array).any():
                raise Refused("the exported file's outputs hold NaN, the model's do not")
            off = _difference(array, expected)
            if not off <= PARITY:
                raise Refused(
                    f"the exported file disagrees with the model by {off:.2g} of its largest"
                    f" output (at most {PARITY:g} is allowed): the exporter lost something"
                )

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


def _difference(array: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest finite output but at least to 1."""
    given, wanted = array.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(wanted[np.isfinite(wanted)])
    differing = given != wanted  # infinities that agree have no difference
    off = np.abs(given[differing] - wanted[differing])
    return float(off.max(initial=0.0)) / max(1.0, float(finite.max(initial=0.0)))
