"""Small real stand-ins: a bench whose trials cost nothing, and a study that runs on it."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.controller import Controller
from search.dispatch import Dispatcher
from search.executor import Serial
from search.goals import Goals
from search.interrupts import Interrupts
from search.jobs import Built, Progress, Scored, Timing
from search.observer import Observer
from search.strategy import make_strategy
from storage import Artifact, NewStudy, StageRun, Store, Study, Trial
from storage.artifacts import ContentStore, describe_artifact
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
    """Builds, scores and times by a formula; `hooks` run with the candidate before each build.

    Its artifacts are real files, which hold what they were built from.

    Args:
        artifacts: Where they are stored; `control` fills it in.
    """

    def __init__(
        self, *hooks: Callable[[Candidate], None], artifacts: ContentStore | None = None
    ) -> None:
        self.hooks = hooks
        self.artifacts = artifacts
        self.built: list[Candidate] = []
        self.measured: list[str] = []

    def build(self, candidate: Candidate, *, progress: Progress) -> Built:
        assert self.artifacts is not None
        self.built.append(dict(candidate))
        stage = StageRun("prune", "k", {}, 0.01, False)
        progress("prune", ())
        try:
            for hook in self.hooks:
                hook(candidate)
        except ValueError as error:
            return Built((stage,), None, "failed", f"prune: {error}")
        # Levels 8 and 9 give the same bytes.
        level, scheme = min(8, int(candidate["prune.level"])), candidate["quantize.scheme"]
        size = (1000 - 100 * level) // (4 if scheme == "int8" else 1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_text(json.dumps([level, scheme]).ljust(size))
            artifact = describe_artifact([path], "onnx")
            self.artifacts.put(artifact.sha256, [path], {"main": path.name})
        return Built((stage,), artifact)

    def score(self, artifact: Artifact, *, progress: Progress) -> Scored:
        assert self.artifacts is not None
        self.measured.append(artifact.sha256)
        folder, facts = self.artifacts.verified(artifact.sha256)
        level, scheme = json.loads((folder / facts["main"]).read_text())
        return Scored(1.0 - 0.005 * level**2 - 0.02 * (scheme == "int8"), 100, 10.0, 20.0)

    def time(
        self, path: Path, baseline: Path | None, seed: int, *, progress: Progress
    ) -> tuple[Timing, ...]:
        assert path.exists()
        return (Timing(1, 1.0, 1.0, 0.9, 1.1, 15),)


def interrupted_bench(builds: int) -> FormulaBench:
    """A bench in whose build of this number Ctrl-C comes."""

    def interrupt(candidate: Candidate) -> None:
        if len(bench.built) == builds:
            os.kill(os.getpid(), signal.SIGINT)

    bench = FormulaBench(interrupt)
    return bench


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder that lies in memory where there is such a thing.

    A killed process loses no file, wherever it lies; only killing it again and again is faster.
    """
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="naslite-", dir=place, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


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
    dispatcher: Dispatcher | None = None,
    **options: Any,
) -> list[Trial]:
    """Claim a study and run it to its end; returns its trials.

    Args:
        strategy: Instead of the one that the study's config names.
        dispatcher: Instead of one that runs `bench` in this process.
        options: Of the controller.
    """
    study, owner = store.study(name), new_owner()
    store.claim(study, owner)
    interrupts = Interrupts()
    controller = Controller(
        store,
        store.study(name),
        owner,
        space=Space.from_json(study.space),
        strategy=strategy or configured(study),
        goals=Goals.of_config(study.config),
        dispatcher=dispatcher or serial(store, bench or FormulaBench()),
        observer=observer or Observer(),
        interrupts=interrupts,
        **{"poll_s": 0.0, **options},
    )
    with interrupts.caught():
        controller.run()
    return store.trials(store.study(name))


def serial(store: Store, bench: FormulaBench) -> Dispatcher:
    """A dispatcher that runs a bench in this process."""
    bench.artifacts = store.artifacts
    return Dispatcher(
        Serial(bench),
        Serial(bench),
        store.artifacts,
        score_name="accuracy",
        higher_is_better=True,
    )


def configured(study: Study) -> Strategy:
    """The strategy that a study's config names."""
    options, problems = dict(study.config["strategy"]), []
    folder = Path(study.config["folder"])
    strategy = make_strategy(options.pop("name"), options, folder, problems)
    assert strategy is not None, problems
    return strategy


def as_searched(trial: Trial) -> Trial:
    """A trial without what timing the front again adds when a search has ended."""
    measured = [m for m in trial.measurements if not m.metric.startswith("audit_latency_ratio")]
    return replace(trial, measurements=tuple(measured))


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
