"""Killing a study at random moments, resuming it until it is done, and comparing it.

What must hold after each kill: what had ended is as it was, bit by bit, and is never built or
scored again; what was proposed is what the untouched study proposed. In the end both are equal.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from doubles import as_searched
from kill_bench import as_key, notes
from kill_blows import Blow, blows, family, is_alive, is_buried, kill, kill_alive
from kill_study import ENDED, LOG, NAME, OUTPUT, Launcher, Session, Setup

from search.replay import replay
from storage import CorruptFiles, Trial
from storage.entries import MANIFEST, list_leftovers
from storage.garbage import collect
from storage.records import ENDED_STATES

DEADLINE_S = 300.0  # for one session; a study that hangs longer is a difference
POLL_S = 0.001
ORPHAN_S = 10.0  # after which a worker must have ended with its controller
FIXED = ("id", "config", "space", "seed", "trials", "minutes", "facts", "created_at")


@dataclass(frozen=True, slots=True)
class Untouched:
    """What the study comes to if nobody kills it.

    Args:
        start_s: How long it took until the first trial had ended.
    """

    trials: list[Trial]
    memo: dict[str, Any]
    start_s: float


@dataclass(slots=True)
class Report:
    """What an attack found.

    Args:
        kills: That ended a session: of the controller alone, or with its workers.
        worker_kills: That hit a worker which ran, while the controller lived on.
        redone: What had ended and was built or scored again.
        stuck: Trials that never ended.
        differences: All of that, and whatever else differs from the untouched study.
    """

    kills: int = 0
    worker_kills: int = 0
    redone: int = 0
    stuck: int = 0
    differences: list[str] = field(default_factory=list)


def untouched(launcher: Launcher, setup: Setup) -> Untouched:
    """Run the study without a kill."""
    began = time.monotonic()
    session = launcher.start(setup)
    start_s = 0.0
    while not session.wait(POLL_S):
        assert time.monotonic() - began < DEADLINE_S, f"no end of {setup}"
        if not start_s and setup.path(ENDED).exists():
            start_s = time.monotonic() - began
    study, trials = setup.stored()
    assert session.code == 0, setup.path(OUTPUT).read_text()
    assert study is not None
    assert study.state == "finished"
    return Untouched(trials, dict(study.memo), start_s)


def attack(
    launcher: Launcher, setup: Setup, wanted: Untouched, kills: int, rng: random.Random
) -> Report:
    """Kill the study so many times, let it come to its end, and compare."""
    attacked = Attacked(launcher, setup, wanted)
    for blow in blows(kills, setup.trials, wanted.start_s, rng):
        if not attacked.suffer(blow, rng):
            break
    attacked.come_to_an_end()
    return attacked.report


class Attacked:
    """A study beside an untouched one, from session to session.

    `session` is the one that runs, or None; what it has ended with is looked at by `look`.
    """

    def __init__(self, launcher: Launcher, setup: Setup, wanted: Untouched) -> None:
        self.report = Report()
        self.launcher = launcher
        self.setup = setup
        self.wanted = wanted
        self.session: Session | None = None
        self.began = 0.0
        self.before = 0, 0  # trials that had ended, and marks of it, when the session began
        self.ended: dict[int, Trial] = {}  # as they were found first
        self.done: set[tuple[str, str]] = set()  # what must not be noted again
        self.read = 0
        self.fixed: dict[str, Any] = {}
        self.orphans: list[psutil.Process] = []
        self.struck: set[int] = set()  # one of these trials has lost a worker

    def suffer(self, blow: Blow, rng: random.Random) -> bool:
        """Wait for the moment and kill; False if the study has come to its end before."""
        session = self.session or self.start()
        due = self.when(blow)
        while not due() and not session.wait(POLL_S):
            if time.monotonic() - self.began > DEADLINE_S:
                return False
        if session.wait(blow.delay_s if blow.ended is not None else 0.0):
            return False
        if blow.victim == "worker":
            self.kill_a_worker(session, rng)
        elif not self.kill_the_session(session, blow.victim, rng):
            return False
        if blow.collects:
            self.collect()
        return True

    def kill_a_worker(self, session: Session, rng: random.Random) -> None:
        """Kill one, unless it could be the second for a trial that bears only one."""
        bears_one = self.setup.attempts is None
        if bears_one and self.struck & self.unfinished():
            return
        while not (workers := family(session.pid)):
            if session.wait(POLL_S):
                return
        worker = rng.choice(workers)
        if not kill_alive(worker):
            return
        self.report.worker_kills += 1
        if bears_one:
            # Once its death was seen, it is given no other trial: one of these has lost it.
            assert is_buried(worker), f"{worker} is not missed"
            self.struck = self.unfinished()

    def unfinished(self) -> set[int]:
        """The trials that may be running now, or may have been begun again."""
        trials = self.setup.stored()[1]
        return {trial.number for trial in trials if trial.finished_at is None} or (
            set() if trials else {0}
        )

    def kill_the_session(self, session: Session, victim: str, rng: random.Random) -> bool:
        """Whether it did not end by itself in the same moment."""
        workers = family(session.pid)
        victims: list[Callable[[], None]] = [session.kill]
        if victim == "everything":
            victims += [partial(kill, worker) for worker in workers]
            if self.setup.attempts is not None:  # else the controller goes first, and sees none
                rng.shuffle(victims)
        for strike in victims:
            strike()
        session.wait(DEADLINE_S)
        if session.code != -signal.SIGKILL:
            return False
        self.session = None
        self.report.kills += 1
        self.orphans += workers
        self.look()
        return True

    def start(self) -> Session:
        self.before = len(self.ended), _size(self.setup.path(ENDED))
        self.began = time.monotonic()
        self.session = self.launcher.start(self.setup)
        return self.session

    def when(self, blow: Blow) -> Callable[[], bool]:
        path, (ended, marks) = self.setup.path(ENDED), self.before
        if blow.ended is None:
            moment = self.began + blow.delay_s
            return lambda: time.monotonic() >= moment or _size(path) > marks
        wanted = marks + blow.ended - ended
        return lambda: _size(path) >= wanted

    def come_to_an_end(self) -> None:
        session = self.session or self.start()
        if not session.wait(DEADLINE_S):
            self.differ("the study hangs")
            session.kill()
            session.wait(DEADLINE_S)
        elif session.code != 0:
            last = self.setup.path(OUTPUT).read_text().strip().splitlines()[-1]
            self.differ(f"a session ended with code {session.code}: {last}")
        self.look()
        self.compare()
        deadline = time.monotonic() + ORPHAN_S
        while (alive := list(filter(is_alive, self.orphans))) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for process in alive:
            self.differ(f"worker {process.pid} outlived its controller")
        self.collect()
        for files in (self.setup.files / "artifacts", self.setup.files / "stages"):
            for left in list_leftovers(files):
                if (left / MANIFEST).exists():  # else it is taken for one that is being made
                    self.differ(f"{left} is left over")

    def look(self) -> None:
        """Check what is stored now against what was, and against the untouched study."""
        study, trials = self.setup.stored()
        lines, self.read = notes(self.setup.path(LOG), self.read)
        for kind, what in lines:
            if (kind, what) in self.done:
                self.report.redone += 1
                self.differ(f"{kind} again, though it had ended: {what}")
        found = {trial.number: trial for trial in trials}
        for number, trial in self.ended.items():
            now = found.get(number)
            if now is None or as_searched(now) != trial:
                self.differ(f"trial {number} was {trial}, is {now}")
        for trial in trials:
            number = trial.number
            if number >= len(self.wanted.trials):
                self.differ(f"trial {number} is one too many")
                continue
            wanted = self.wanted.trials[number]
            if _proposed(trial) != _proposed(wanted):
                self.differ(f"trial {number} proposed {_proposed(trial)}, not {_proposed(wanted)}")
            if trial.finished_at is None or number in self.ended:
                continue
            self.ended[number] = as_searched(trial)
            if _outcome(trial, self.is_parallel) != _outcome(wanted, self.is_parallel):
                self.differ(f"trial {number} ended as {trial}, not as {wanted}")
            if trial.state in ("complete", "refused"):
                self.done.add(("build", as_key(trial.candidate)))
            if trial.state == "complete" and trial.artifact:
                self.done.add(("score", trial.artifact.sha256))
        if study is not None:
            fixed = {name: getattr(study, name) for name in FIXED}
            self.fixed = self.fixed or fixed
            if fixed != self.fixed:
                self.differ(f"the study was {self.fixed}, is {fixed}")

    def compare(self) -> None:
        """What must hold of a study that has come to its end."""
        study, trials = self.setup.stored()
        if study is None:
            self.differ("there is no study")
            return
        wanted = {"state": "finished", "owner": "", "memo": self.wanted.memo}
        for name, value in {**wanted, "trials": self.setup.trials}.items():
            if getattr(study, name) != value:
                self.differ(f"the study's {name} is {getattr(study, name)!r}, not {value!r}")
        if len(trials) != len(self.wanted.trials):
            self.differ(f"{len(trials)} trials, not {len(self.wanted.trials)}")
        for trial in trials:
            again = trial.attempt - 1 - trial.deaths
            if again > self.report.kills:
                self.differ(f"trial {trial.number} was begun again {again} times without a death")
            if trial.state not in ENDED_STATES:
                self.report.stuck += 1
                self.differ(f"trial {trial.number} is {trial.state} for ever")
        if _timed_again(trials) != _timed_again(self.wanted.trials):
            self.differ(f"timed again after the search: {_timed_again(trials)}")
        deaths = sum(trial.deaths for trial in trials)
        if self.setup.attempts is None and deaths > self.report.worker_kills:
            self.differ(f"{deaths} deaths of {self.report.worker_kills} killed workers")
        for difference in replay(NAME, store=self.setup.store).differences:
            self.differ(f"replay: {difference}")

    def collect(self) -> None:
        """Collect garbage, and see that nothing that is needed is gone, and nothing else left."""
        study, trials = self.setup.stored()
        if study is None:
            return
        with closing(self.setup.opened()) as store:
            collect(store, margin_s=0.0)
            for trial in trials:
                if trial.artifact is not None:
                    try:
                        store.artifacts.verified(trial.artifact.sha256)
                    except CorruptFiles as error:
                        self.differ(f"trial {trial.number}: {error}")

    @property
    def is_parallel(self) -> bool:
        return self.setup.workers > 1

    def differ(self, what: str) -> None:
        self.report.differences.append(what)


def _proposed(trial: Trial) -> tuple[Any, ...]:
    return dict(trial.candidate), trial.memo, trial.origin


def _outcome(trial: Trial, is_parallel: bool) -> tuple[Any, ...]:
    """How a trial ended, without what time decides: seconds, and what a cache held."""
    stages = [(stage.name, stage.key, stage.options) for stage in trial.stages]
    # Of two trials that run at once and give the same bytes, either may be measured first.
    reused = None if is_parallel else trial.reused_from
    measured = as_searched(trial).measurements
    found = trial.state, trial.cause, trial.artifact, measured
    return *found, stages, reused


def _timed_again(trials: Iterable[Trial]) -> list[int]:
    return [trial.number for trial in trials if "audit_latency_ratio" in trial.metrics]


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
