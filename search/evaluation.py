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
from typing import Any

from compressors.base import Earlier, Refused
from compressors.training import seeded
from storage import Artifact, StageRun
from storage.artifacts import ContentStore, Holder, describe_artifact
from strategies.space import Candidate, Space

from .epochs import Epochs, EpochScore, GivenUp
from .errors import one_line
from .jobs import Built, Progress, Scored, unheard
from .looks import Looks
from .making import Maker
from .runtimes.base import Runtime
from .sample_records import unpacked
from .scoring import bootstrap_seed, scored_on, zstd_bytes
from .stages import Stage, Step, plan, root_key
from .stopping import Metric, Rule, Training
from .task import LoadedTask

MEASURE = "measure"  # the stage of a trial that scoring belongs to

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
        rule: When a training is given up; None for never.
        device: Where models are trained, `cpu` or `cuda`, and in which numbers (`amp`).
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
        rule: Rule | None = None,
        device: str = "cpu",
        amp: str = "none",
    ) -> None:
        import torch

        from compressors.devices import gpu_facts

        self.loaded = loaded
        self.space = space
        self.pipeline = tuple(pipeline)
        self.runtime = runtime
        self.session_threads = session_threads
        self.stages = stages
        self.artifacts = artifacts
        self.looks = looks
        capability = torch.backends.cpu.get_cpu_capability()
        self._maker = Maker(loaded, pipeline, runtime, session_threads, device, amp)
        self._root = root_key(
            *(loaded.weights, loaded.fingerprint, seed, threads, capability),
            gpu=gpu_facts(device, amp),
        )
        task = loaded.task
        self._rule = rule
        self._metric = Metric(task.score_name, task.higher_is_better)
        self._epoch_score = EpochScore(task, seed, device)
        self._has_warned = False
        torch.set_num_threads(threads)

    def stage_keys(self, candidate: Candidate) -> list[str]:
        """The cache keys of a candidate's stages in order; equal keys, equal bytes."""
        return [stage.key for stage in self._plan(candidate)]

    def build(
        self,
        candidate: Candidate,
        peers: Sequence[Training] = (),
        *,
        progress: Progress = unheard,
    ) -> Built:
        """Run the stages that are not cached, and store the resulting artifact.

        Args:
            peers: The trainings by which a rule may judge those of this candidate.
        """
        stages = self._plan(candidate)
        with (
            self.stages.holding() as held,
            tempfile.TemporaryDirectory(prefix="naslite-", ignore_cleanup_errors=True) as scratch,
        ):
            epochs = Epochs(
                *(self._rule, self._metric, self._epoch_score, peers, held, self._warn),
                progress,
            )
            most, hopeless = epochs.review(stages)
            if hopeless:
                runs = [_cached_run(stage, epochs) for stage in stages[: most + 1]]
                return Built(tuple(runs), None, "stopped", hopeless)
            first, folder, facts = self._deepest_cached(stages[:most], held)
            runs = [_cached_run(stage, epochs) for stage in stages[:first]]
            if first:
                runs[-1] = replace(runs[-1], note=facts.get("note", ""))
            for stage in stages[first:]:
                progress(stage.name, tuple(runs))
                began = time.perf_counter()
                try:
                    folder, facts = self._run(
                        stage, folder, facts, held, Path(scratch), epochs, tuple(runs)
                    )
                except Exception as error:
                    runs.append(_stage_run(stage, began, "", epochs))
                    if isinstance(error, GivenUp):
                        return Built(tuple(runs), None, "stopped", str(error))
                    state = "refused" if isinstance(error, Refused) else "failed"
                    return Built(tuple(runs), None, state, f"{stage.name}: {one_line(error)}")
                runs.append(_stage_run(stage, began, facts.get("note", ""), epochs))
            assert folder is not None
            if first == len(stages):
                progress(stages[-1].name, tuple(runs[:-1]))
            return self._stored(runs, [folder / name for name in facts["files"]])

    def score(
        self,
        artifact: Artifact,
        reference: bytes | None = None,
        *,
        progress: Progress = unheard,
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
        progress: Progress = unheard,
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
            entry = self._cached(stages[position - 1].key, held)
            if entry is not None:
                return position, entry[0], entry[1]
        return 0, None, {"recipes": []}

    def _earlier(self, stage: Stage, held: Holder, epochs: Epochs) -> Earlier | None:
        """The longest cached training that a stage can go on from."""
        for count, key in stage.shorter:
            if epochs.may_skip(stage, count) and self.stages.exists(key):
                entry = self._cached(key, held)
                if entry is not None:
                    return self._maker.earlier(count, *entry)
        return None

    def _cached(self, key: str, held: Holder) -> tuple[Path, dict[str, Any]] | None:
        try:
            return held.get(key)
        except OSError as error:
            self._warn(error)
            return None

    def _run(
        self,
        stage: Stage,
        folder: Path | None,
        facts: dict[str, Any],
        held: Holder,
        scratch: Path,
        epochs: Epochs,
        ended: Sequence[StageRun],
    ) -> tuple[Path, dict[str, Any]]:
        """Run one stage on the result of the one before; its own lies in the cache if it can."""
        workdir = Path(tempfile.mkdtemp(dir=scratch))
        earlier = self._earlier(stage, held, epochs)
        listener = epochs.listener(stage, ended)
        produced, facts = self._maker.made(stage, folder, facts, workdir, listener, earlier)
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

    def _warn(self, error: OSError) -> None:
        """Say once that the stage cache cannot be used: every trial would say so."""
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "the stage cache %s cannot be used (%s); stages are computed anew in every trial",
                self.stages.root,
                one_line(error),
            )


def _cached_run(stage: Stage, epochs: Epochs) -> StageRun:
    return _described(stage, epochs, 0.0, True)


def _stage_run(stage: Stage, began: float, note: str, epochs: Epochs) -> StageRun:
    return _described(stage, epochs, time.perf_counter() - began, False, note)


def _described(
    stage: Stage, epochs: Epochs, seconds: float, is_cached: bool, note: str = ""
) -> StageRun:
    options, scores = dict(stage.options), epochs.scores(stage)
    return StageRun(stage.name, stage.key, options, seconds, is_cached, note, stage.epochs, scores)
