"""Killing a study at random moments, resuming it until it is done, and comparing it.

What must hold after each kill: what had ended is as it was, bit by bit, and is never built or
scored again; what was proposed is what the untouched study proposed. In the end both are equal.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from kill_bench import as_key, notes
from kill_study import ENDED, LOG, NAME, OUTPUT, Launcher, Session, Setup

from search.replay import replay
from storage import CorruptFiles, Trial
from storage.entries import MANIFEST, list_leftovers
from storage.garbage import collect
from storage.records import ENDED_STATES

DEADLINE_S = 300.0  # for one session; a study that hangs longer is a difference
POLL_S = 0.001
LONGEST_DELAY_S = 0.05  # between the moment that is waited for and the kill
STARTING = 0.2  # of the kills come while a session starts
ORPHAN_S = 10.0  # after which a worker must have ended with its controller
FIXED = ("id", "config", "space", "seed", "trials", "minutes", "facts", "created_at")
VICTIMS = ("controller", "controller", "controller", "everything", "worker")


@dataclass(frozen=True, slots=True)
class Blow:
    """A kill to come.

    Args:
        ended: How many trials must have ended; None: while the session starts, at the latest when
            it has ended a trial.
        delay_s: After that, or after the session began.
        victim: controller, everything (it and its workers, at once) or worker (one of them).
        collects: Whether garbage is collected afterwards, beside what is left of the session.
    """

    ended: int | None
    delay_s: float
    victim: str
    collects: bool


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
        kills: That hit.
        redone: What had ended and was built or scored again.
        stuck: Trials that never ended.
        differences: All of that, and whatever else differs from the untouched study.
    """

    kills: int = 0
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


def blows(kills: int, trials: int, start_s: float, rng: random.Random) -> list[Blow]:
    """So many kills, spread over the whole study: starts, trials, and the last moments."""
    moments = [rng.randint(1, trials - 1) for _ in range(kills - 1)] + [trials]
    found = []
    for place, ended in enumerate(sorted(moments)):
        is_start = place == 0 or (ended < trials and rng.random() < STARTING)
        longest = 1.2 * start_s if is_start else LONGEST_DELAY_S
        found.append(
            Blow(
                None if is_start else ended,
                rng.uniform(0.0, longest),
                rng.choice(VICTIMS),
                rng.random() < 0.25,
            )
        )
    return found


def attack(
    launcher: Launcher, setup: Setup, wanted: Untouched, kills: int, rng: random.Random
) -> Report:
    """Kill the study so many times, let it come to its end, and compare."""
    attacked = _Attacked(launcher, setup, wanted)
    for blow in blows(kills, setup.trials, wanted.start_s, rng):
        if not attacked.suffer(blow, rng):
            break
    attacked.come_to_an_end()
    return attacked.report


class _Attacked:
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

    def suffer(self, blow: Blow, rng: random.Random) -> bool:
        """Wait for the moment and kill; False if the study has come to its end before."""
        session = self.session or self.start()
        due = self.when(blow)
        while not due() and not session.wait(POLL_S):
            if time.monotonic() - self.began > DEADLINE_S:
                return False
        if session.wait(blow.delay_s if blow.ended is not None else 0.0):
            return False
        family = _family(session.pid)
        if blow.victim == "worker" and family:
            self.report.kills += 1
            _kill(rng.choice(family))
            if blow.collects:
                self.collect()
            return True
        victims: list[Callable[[], None]] = [session.kill]
        if blow.victim == "everything":
            victims += [_killer(process) for process in family]
            rng.shuffle(victims)
        for kill in victims:
            kill()
        session.wait(DEADLINE_S)
        if session.code != -signal.SIGKILL:  # it ended by itself in the same moment
            return False
        self.session = None
        self.report.kills += 1
        self.orphans += family
        self.look()
        if blow.collects:
            self.collect()
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
        while (alive := list(filter(_is_alive, self.orphans))) and time.monotonic() < deadline:
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
            if found.get(number) != trial:
                self.differ(f"trial {number} was {trial}, is {found.get(number)}")
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
            self.ended[number] = trial
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
            if trial.state not in ENDED_STATES:
                self.report.stuck += 1
                self.differ(f"trial {trial.number} is {trial.state} for ever")
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
    found = trial.state, trial.cause, trial.artifact, trial.measurements
    return *found, stages, reused


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def _killer(process: psutil.Process) -> Callable[[], None]:
    return lambda: _kill(process)


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
