"""Building and measuring one candidate. Nothing here touches the database.

`build` makes the artifact and `measure` scores and times it: two jobs, so that builds can run in
parallel while timing runs alone. What they take and return is plain data.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressors.arrays import named_arrays, with_batch_size
from compressors.base import Context, Recipe, Refused
from storage import Artifact, Measurement, Outcome, StageRun
from storage.artifacts import ContentStore, describe_artifact
from strategies.space import Candidate, Space

from . import measure
from .errors import one_line
from .jobs import Built
from .metrics import Facts, measurements
from .runtimes.base import Runtime, Session
from .stages import EXPORT, Stage, Step, plan, root_key
from .task import LoadedTask

if TYPE_CHECKING:
    from torch import nn

STATE_FILE = "state.safetensors"
PARITY = 1e-3  # largest difference between a model and its exported file, relative


@dataclass(frozen=True, slots=True)
class Baseline:
    """What candidates are measured against."""

    artifact: Artifact
    score: float


class Workbench:
    """All that building and measuring need, loaded once per process.

    Args:
        pipeline: The compressors in order.
        threads: Of torch.
        session_threads: Of the runtime.
        batch_sizes: To time, in samples.
        stages: Cached stage results.
        artifacts: The files of trials.
        checkpoint: Called before a result is stored; raises if the work was interrupted.
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
        batch_sizes: Sequence[int],
        stages: ContentStore,
        artifacts: ContentStore,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> None:
        import torch

        self.loaded = loaded
        self.space = space
        self.pipeline = tuple(pipeline)
        self.runtime = runtime
        self.seed = seed
        self.session_threads = session_threads
        self.batch_sizes = tuple(batch_sizes)
        self.stages = stages
        self.artifacts = artifacts
        self.checkpoint = checkpoint
        capability = torch.backends.cpu.get_cpu_capability()
        self._root = root_key(loaded.weights, loaded.fingerprint, seed, threads, capability)
        self._baseline_session: tuple[str, Session] | None = None
        torch.set_num_threads(threads)

    def build(self, candidate: Candidate) -> Built:
        """Run the stages that are not cached, and store the resulting artifact."""
        stages = plan(candidate, self.space, self.pipeline, self.runtime, self._root)
        first, folder, facts = self._deepest_cached(stages)
        runs = [StageRun(s.name, s.key, dict(s.options), 0.0, True) for s in stages[:first]]
        if first:
            runs[-1] = _noted(runs[-1], facts.get("note", ""))
        for stage in stages[first:]:
            began = time.perf_counter()
            try:
                folder, facts = self._run(stage, folder, facts)
            except Exception as error:
                self.checkpoint()
                runs.append(_stage_run(stage, began, ""))
                state = "refused" if isinstance(error, Refused) else "failed"
                return Built(tuple(runs), None, state, f"{stage.name}: {one_line(error)}")
            runs.append(_stage_run(stage, began, facts.get("note", "")))
        assert folder is not None
        try:
            files = [folder / name for name in facts["files"]]
            artifact = describe_artifact(files, self.runtime.format)
            self.artifacts.put(artifact.sha256, files, {"main": self.runtime.main_file})
        except OSError as error:
            return Built(tuple(runs), None, "failed", f"storing the files: {one_line(error)}")
        return Built(tuple(runs), artifact)

    def measure(self, artifact: Artifact, baseline: Baseline | None) -> tuple[Measurement, ...]:
        """Every metric of a stored artifact; `baseline` None measures the baseline itself.

        Raises:
            CorruptFiles: The artifact's files are not what was stored.
            ValueError: A metric is not finite.
        """
        task = self.loaded.task
        path = self.main_path(artifact)
        session = self.runtime.load(path, threads=self.session_threads)
        score, samples = measure.score(session, task)
        feed = named_arrays(self.loaded.inputs, session.input_names)
        rng = np.random.default_rng(int(artifact.sha256[:15], 16))
        timings = []
        for size in self.batch_sizes:
            inputs = with_batch_size(feed, size)
            if baseline is None:
                timings.append(measure.time_baseline(session, inputs, size))
            else:
                other = self._session_of(baseline.artifact)
                timings.append(measure.time_against(session, other, inputs, size, rng))
        found = measurements(
            Facts(
                score_name=task.score_name,
                higher_is_better=task.higher_is_better,
                score=score,
                samples=samples,
                baseline_score=score if baseline is None else baseline.score,
                size_bytes=artifact.size_bytes,
                timings=tuple(timings),
                **self.runtime.inspect(path),
            )
        )
        wrong = [m for m in found if not np.isfinite(m.value)]
        if wrong:
            raise ValueError(f"{wrong[0].metric} is {wrong[0].value}")
        return found

    def main_path(self, artifact: Artifact) -> Path:
        """The file that the runtime loads."""
        folder, facts = self.artifacts.verified(artifact.sha256)
        return folder / str(facts["main"])

    def _deepest_cached(self, stages: Sequence[Stage]) -> tuple[int, Path | None, dict[str, Any]]:
        """How many leading stages need not run, and the cached result of the last of them."""
        for position in range(len(stages), 0, -1):
            entry = self.stages.get(stages[position - 1].key)
            if entry is not None:
                return position, entry[0], entry[1]
        return 0, None, {"recipes": []}

    def _run(
        self, stage: Stage, folder: Path | None, facts: dict[str, Any]
    ) -> tuple[Path, dict[str, Any]]:
        """Run one stage on the result of the one before, and cache its result."""
        with tempfile.TemporaryDirectory(prefix="naslite-") as scratch:
            workdir = Path(scratch)
            if stage.changes_model:
                produced, facts = self._compress_model(stage, folder, facts, workdir)
            elif stage.name == EXPORT:
                produced, facts = self._export(folder, facts, workdir)
            else:
                assert folder is not None
                produced, facts = self._compress_artifact(stage, folder, workdir)
            facts = {**facts, "files": [path.name for path in produced]}
            self.checkpoint()
            return self.stages.put(stage.key, produced, facts), facts

    def _compress_model(
        self, stage: Stage, folder: Path | None, facts: dict[str, Any], workdir: Path
    ) -> tuple[list[Path], dict[str, Any]]:
        from safetensors.torch import save_model

        model = self._restored(folder, facts["recipes"])
        context = self._context(stage, workdir)
        compressed, recipe = stage.compressor.apply(model, stage.options, context)
        path = workdir / STATE_FILE
        save_model(compressed, str(path))
        return [path], {"recipes": [*facts["recipes"], [stage.name, recipe]]}

    def _export(
        self, folder: Path | None, facts: dict[str, Any], workdir: Path
    ) -> tuple[list[Path], dict[str, Any]]:
        model = self._restored(folder, facts["recipes"])
        path = workdir / self.runtime.main_file
        note = self.runtime.export(model, self.loaded.inputs, path)
        self._check_parity(model, path)
        return sorted(workdir.iterdir()), {"note": note}

    def _check_parity(self, model: nn.Module, path: Path) -> None:
        """Compare the exported file with the model it was made from, on evaluation inputs.

        Raises:
            Refused: They disagree, so the exporter has lost something.
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
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            if array.shape != expected.shape:
                raise Refused(
                    f"the exported file gives shape {array.shape}, the model {expected.shape}"
                )
            off = float(np.abs(array - expected).max(initial=0.0)) / scale
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

    def _session_of(self, artifact: Artifact) -> Session:
        if self._baseline_session is None or self._baseline_session[0] != artifact.sha256:
            session = self.runtime.load(self.main_path(artifact), threads=self.session_threads)
            self._baseline_session = artifact.sha256, session
        return self._baseline_session[1]


def evaluate(
    bench: Workbench,
    candidate: Candidate,
    baseline: Baseline | None,
    measured_before: Callable[[str], tuple[int, tuple[Measurement, ...]] | None],
) -> Outcome:
    """Build and measure one candidate; whatever goes wrong is the outcome.

    Args:
        baseline: None if the candidate is the baseline.
        measured_before: For the SHA-256 of an artifact, the trial that measured it and what it
            measured; identical files are not measured twice.
    """
    began = time.perf_counter()
    built = bench.build(candidate)
    state, cause = built.state, built.cause
    reused: tuple[int | None, tuple[Measurement, ...]] | None = None
    measured: tuple[Measurement, ...] = ()
    if built.artifact is not None:
        reused = measured_before(built.artifact.sha256)
        try:
            measured = reused[1] if reused else bench.measure(built.artifact, baseline)
        except Exception as error:
            state, cause = "failed", f"measure: {one_line(error)}"
    return Outcome(
        state=state,
        cause=cause,
        stages=built.stages,
        artifact=built.artifact,
        measurements=measured,
        seconds=time.perf_counter() - began,
        reused_from=reused[0] if reused else None,
    )


def _stage_run(stage: Stage, began: float, note: str) -> StageRun:
    seconds = time.perf_counter() - began
    return StageRun(stage.name, stage.key, dict(stage.options), seconds, False, note)


def _noted(run: StageRun, note: str) -> StageRun:
    return replace(run, note=note)
