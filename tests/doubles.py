"""Small real stand-ins: a bench whose trials cost nothing, and a study that runs on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from search.controller import Controller
from search.evaluation import Baseline, Built
from search.goals import Goals
from search.interrupts import Interrupts
from search.observer import Observer
from search.strategy import make_strategy
from storage import Artifact, File, Measurement, NewStudy, StageRun, Store, Study, Trial
from storage.lease import new_owner
from strategies.base import Strategy
from strategies.space import Candidate, Choice, Int, Space

SPACE = Space(
    [
        Int(name="prune.level", low=0, high=9, neutral=0, direction=1),
        Choice(name="quantize.scheme", values=("none", "int8"), neutral="none"),
    ]
)
CONFIG: dict[str, Any] = {
    "objectives": {"accuracy": "maximize", "size_bytes": "minimize"},
    "constraints": ["accuracy_drop <= 0.3"],
    "runtime": {"name": "onnxruntime", "threads": 1, "batch_sizes": [1]},
    "folder": ".",
    "task": "none.py:None",
    "strategy": {"name": "random"},
}
FACTS = {"score_name": "accuracy", "higher_is_better": True, "threads": 1, "versions": {}}


class FormulaBench:
    """Builds and measures by a formula; `hooks` run with the candidate before each build."""

    def __init__(self, *hooks: Callable[[Candidate], None]) -> None:
        self.hooks = hooks
        self.built: list[Candidate] = []
        self.measured: list[str] = []
        self._files: dict[str, Candidate] = {}

    def build(self, candidate: Candidate) -> Built:
        self.built.append(dict(candidate))
        stage = StageRun("prune", "k", {}, 0.01, False)
        try:
            for hook in self.hooks:
                hook(candidate)
        except ValueError as error:
            return Built((stage,), None, "failed", f"prune: {error}")
        # Levels 8 and 9 give the same bytes.
        level = min(8, int(candidate["prune.level"]))
        scheme = candidate["quantize.scheme"]
        sha256 = hashlib.sha256(f"{level}/{scheme}".encode()).hexdigest()
        size = (1000 - 100 * level) // (4 if scheme == "int8" else 1)
        self._files[sha256] = candidate
        files = (File("model.onnx", size, sha256),)
        return Built((stage,), Artifact(sha256, "onnx", size, files))

    def measure(self, artifact: Artifact, baseline: Baseline | None) -> tuple[Measurement, ...]:
        self.measured.append(artifact.sha256)
        candidate = self._files[artifact.sha256]
        level, int8 = int(candidate["prune.level"]), candidate["quantize.scheme"] == "int8"
        accuracy = 1.0 - 0.005 * level**2 - 0.02 * int8
        zero = accuracy if baseline is None else baseline.score
        return (
            Measurement("accuracy", accuracy, n=100),
            Measurement("accuracy_drop", zero - accuracy, n=100),
            Measurement("size_bytes", float(artifact.size_bytes), "B"),
            Measurement("latency_ms", 1.0, "ms"),
            Measurement("latency_ratio", 1.0, "", 0.9, 1.1, 15),
            Measurement("parameters", 10.0),
            Measurement("macs", 20.0),
        )


def new_study(
    store: Store, name: str = "s", *, trials: int = 6, seed: int = 0, **config: Any
) -> Study:
    """A study of SPACE that nobody owns; `config` replaces keys of CONFIG."""
    owner = new_owner()
    content = {**CONFIG, **config}
    study = store.create_study(
        NewStudy(name, content, SPACE.to_json(), "f" * 64, seed, trials, None, FACTS), owner
    )
    store.release(study, owner, "interrupted")
    return store.study(name)


def control(
    store: Store,
    name: str = "s",
    *,
    bench: FormulaBench | None = None,
    strategy: Strategy | None = None,
    observer: Observer | None = None,
) -> list[Trial]:
    """Claim a study and run it to its end; returns its trials.

    Args:
        strategy: Instead of the one that the study's config names.
    """
    study, owner = store.study(name), new_owner()
    store.claim(study, owner)
    interrupts = Interrupts()
    controller = Controller(
        store,
        store.study(name),
        owner,
        space=SPACE,
        strategy=strategy or configured(study),
        goals=Goals.of_config(CONFIG),
        bench=bench or FormulaBench(),  # type: ignore[arg-type]
        observer=observer or Observer(),
        interrupts=interrupts,
    )
    with interrupts.caught():
        controller.run()
    return store.trials(store.study(name))


def configured(study: Study) -> Strategy:
    """The strategy that a study's config names."""
    options, problems = dict(study.config["strategy"]), []
    folder = Path(study.config["folder"])
    strategy = make_strategy(options.pop("name"), options, folder, problems)
    assert strategy is not None, problems
    return strategy


def table(trials: Iterable[Trial]) -> list[tuple[Any, ...]]:
    """What must be equal between two studies: number, candidate, state, values, bytes."""
    return [
        (
            t.number,
            dict(t.candidate),
            t.state,
            t.metrics.get("accuracy"),
            t.metrics.get("size_bytes"),
            t.artifact.sha256 if t.artifact else None,
        )
        for t in trials
    ]
