"""A study as a store keeps it, whose trials cost nothing: for benchmarks and tests of reading."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.controller import Controller
from search.dispatch import Dispatcher
from search.executor import Serial
from search.goals import Goals
from search.interrupts import Interrupts
from search.jobs import Built, Progress, Scored, Timing
from search.observer import Observer
from search.results import StudyResults
from storage import Artifact, Measurement, NewStudy, Outcome, StageRun, Store, Study
from storage.artifacts import describe_artifact
from storage.lease import new_owner
from strategies.random_search import RandomSearch
from strategies.space import Candidate, Float, Space, candidate_key

STAGES = ("structured_pruning", "distillation", "export", "onnx_quantization")
METRICS = ("accuracy", "accuracy_drop", "size_bytes", "latency_ms", "latency_ratio", "macs")
CONFIG: dict[str, Any] = {
    "objectives": {"accuracy": "maximize", "size_bytes": "minimize"},
    "constraints": ["accuracy_drop <= 0.3"],
    "runtime": {"name": "onnxruntime", "threads": 1, "batch_sizes": [1]},
    "strategy": {"name": "random"},
    "folder": ".",
    "task": "none.py:None",
}
FACTS = {"score_name": "accuracy", "higher_is_better": True, "threads": 1, "versions": {}}


class OurStudy:
    """A study of knobs in [0, 1] in an SQLite file, with the stages and metrics of a real one."""

    def __init__(self, path: Path, knobs: int) -> None:
        names = [f"{STAGES[i % 4]}.knob{i}" for i in range(knobs)]
        self.space = Space([Float(name=n, low=0, high=1, neutral=0, direction=1) for n in names])
        self.url = f"sqlite:///{path}"
        self.store = Store(self.url)
        self.owner = new_owner()
        new = NewStudy("s", CONFIG, self.space.to_json(), "f" * 64, 0, 10**6, None, FACTS)
        self.study: Study = self.store.create_study(new, self.owner)
        self._number = 0
        self._artifact = _artifact(self.store)
        self._next = self._prepared()

    def fill(self, trials: int) -> None:
        while self._number < trials:
            self.propose_and_finish()
            self.prepare()

    def propose_and_finish(self) -> None:
        """Store the prepared trial."""
        number, (candidate, outcome) = self._number, self._next
        self.store.propose(
            self.study, self.owner, number, candidate, candidate_key(candidate), memo={"n": number}
        )
        self.store.finish(self.study, self.owner, number, outcome)

    def prepare(self) -> None:
        """What a strategy and a bench would have made of the next trial."""
        self._number += 1
        self._next = self._prepared()

    def _prepared(self) -> tuple[Candidate, Outcome]:
        candidate = {knob.name: (self._number % 97) / 97 for knob in self.space}
        return candidate, self._outcome(self._number, candidate)

    def read(self) -> StudyResults:
        """The front, as one who opens the study gets it."""
        results = StudyResults(Store(self.url, create=False), "s")
        results.best()
        return results

    def _outcome(self, number: int, candidate: Mapping[str, Any]) -> Outcome:
        stages = []
        for name in STAGES:
            own = {k: v for k, v in candidate.items() if k.startswith(name)}
            stages.append(StageRun(name, "a" * 64, own, 0.5, False))
        values = [float(number % 89) / (1 + i) for i in range(len(METRICS))]
        measured = [Measurement(m, v, "", v, v, 9) for m, v in zip(METRICS, values, strict=True)]
        return Outcome("complete", "", tuple(stages), self._artifact, tuple(measured), 0.5)


class NoOp:
    """A bench that has every file already: what is left is the controller's own work.

    Args:
        front: Files that no other dominates, each of one trial.
        others: Files of all other trials.
    """

    def __init__(self, front: list[Artifact], others: list[Artifact]) -> None:
        self._front = front
        self._others = others
        self._turn = 0

    def build(self, candidate: Candidate, *, progress: Progress) -> Built:
        turn, self._turn = self._turn, self._turn + 1
        others = self._others
        artifact = self._front[turn] if turn < len(self._front) else others[turn % len(others)]
        stages = tuple(StageRun(name, "a" * 64, {}, 0.0, False) for name in STAGES)
        return Built(stages, artifact)

    def score(self, artifact: Artifact, *, progress: Progress) -> Scored:
        is_other = artifact in self._others
        return Scored(0.8 if is_other else 0.9 + artifact.size_bytes / 1e6, 100, 10.0, 20.0)

    def time(
        self, path: Path, baseline: Path | None, seed: int, *, progress: Progress
    ) -> tuple[Timing, ...]:
        return (Timing(1, 1.0, 1.0, 0.9, 1.1, 15),)


def no_op(study: OurStudy) -> NoOp:
    front = [_artifact(study.store, size=1000 + 10 * i) for i in range(20)]
    return NoOp(front, [_artifact(study.store, i) for i in range(8)])


def run_search(study: OurStudy, bench: NoOp) -> None:
    Controller(
        study.store,
        study.store.study("s"),
        study.owner,
        space=study.space,
        strategy=RandomSearch(),
        goals=Goals.of_config(CONFIG),
        dispatcher=Dispatcher(
            Serial(bench),
            Serial(bench),
            study.store.artifacts,
            score_name="accuracy",
            higher_is_better=True,
        ),
        observer=Observer(),
        interrupts=Interrupts(),
    ).run()


def _artifact(store: Store, content: int = 0, size: int = 2000) -> Artifact:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        path.write_bytes(bytes([content]) * size)
        artifact = describe_artifact([path], "onnx")
        store.artifacts.put(artifact.sha256, [path], {"main": path.name})
    return artifact
