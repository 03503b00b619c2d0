"""A study that is killed at random moments and resumed until it is done, beside one that is not.

Each session is what `naslite run` and `naslite resume` run: `search.build`, its controller,
dispatcher and worker processes, on real databases and files. Only the task is replaced: no model,
no torch, so that a session costs a fraction of a second.

The launcher is a process that has everything loaded and forks one session after the other.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

from search.config import StudyConfig
from search.environment import cpu_facts, library_versions
from search.errors import Problem
from search.goals import Goals
from search.jobs import BenchSpec
from search.observer import Observer
from search.prepare import Prepared
from search.strategy import make_strategy
from storage import NoStore, Store, Study, Trial
from strategies.space import Choice, Condition, Int, Space

REPOSITORY = Path(__file__).resolve().parent.parent
BOOTSTRAP = f"""
import sys
sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / "tests")]!r}
from kill_study import launch
launch()
"""
NAME = "killed"
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "greedy": {"name": "greedy", "step": "best"},
    "genetic": {"name": "genetic", "population": 10},
    "tpe": {"name": "tpe"},
    "optuna-nsgaii": {"name": "optuna", "sampler": "nsgaii", "population_size": 10},
    "optuna-qmc": {"name": "optuna", "sampler": "qmc"},
}
SPACE = Space(
    [
        Int(name="prune.level", low=0, high=7, neutral=0, direction=1),
        Choice(
            name="prune.importance",
            values=("l1", "l2", "random"),
            neutral="l2",
            active_when=Condition("prune.level", ">", 0),
        ),
        Int(name="distil.epochs", low=0, high=3, neutral=0),
        Choice(name="quantize.scheme", values=("none", "dynamic", "static"), neutral="none"),
        Choice(
            name="quantize.calibrator",
            values=("minmax", "entropy"),
            neutral="minmax",
            active_when=Condition("quantize.scheme", "==", "static"),
        ),
        Choice(name="quantize.per_channel", values=(False, True), neutral=False),
    ]
)
FACTS = {"score_name": "accuracy", "higher_is_better": True, "threads": 1}
FINGERPRINT = "f" * 64
ENDED = "ended.log"  # a byte for each trial that has ended, as far as its session came to say so
LOG = "bench.log"
OUTPUT = "sessions.log"
MANY = 1000  # attempts: a trial may lose one worker after the other


@dataclass(frozen=True, slots=True)
class Setup:
    """A study and where it lives.

    Args:
        folder: Of its files and logs, and of the database if `url` is "".
        strategy: A name of STRATEGIES, or `/path/of/file.py:Class`.
        attempts: limits.max_attempts; None: naslite's own, so that a trial bears one death.
    """

    folder: str
    strategy: str
    workers: int = 1
    trials: int = 60
    seed: int = 0
    url: str = ""
    attempts: int | None = MANY

    @property
    def store(self) -> str:
        return self.url or f"sqlite:///{self.folder}/naslite.db"

    @property
    def files(self) -> Path:
        return Path(self.folder) / ("files" if self.url else "naslite.db.files")

    def path(self, name: str) -> Path:
        return Path(self.folder) / name

    def config(self) -> dict[str, Any]:
        """As a user would write it."""
        return {
            "study": NAME,
            "task": "none.py:None",
            "task_options": {"log": str(self.path(LOG))},
            "seed": self.seed,
            "objectives": {"accuracy": "maximize", "size_bytes": "minimize"},
            "constraints": ["accuracy_drop <= 0.15"],
            "strategy": STRATEGIES.get(self.strategy, {"name": self.strategy}),
            "budget": {"trials": self.trials},
            "workers": self.workers,
            "lag": 1 if self.workers == 1 else 2 * self.workers,
            "limits": {} if self.attempts is None else {"max_attempts": self.attempts},
        }

    def opened(self) -> Store:
        return Store(self.store, create=False, files=self.files)

    def stored(self) -> tuple[Study | None, list[Trial]]:
        """The study and its trials; None while there is none."""
        try:
            store = self.opened()
        except NoStore:
            return None, []
        try:
            if not store.has_study(NAME):
                return None, []
            study = store.study(NAME)
            return study, store.trials(study)
        finally:
            store.close()


def run_session(setup: Setup) -> None:
    """Create the study or continue it, to its end."""
    from search.build import resume, run

    os.environ["NASLITE_FILES"] = str(setup.files)  # of stores that are no file
    os.environ["NASLITE_TIMING_LOCK"] = str(setup.path("timing.lock"))
    observer = _Marks(setup.path(ENDED))
    if setup.stored()[0] is None:
        run(setup.config(), store=setup.store, observer=observer)
    else:
        resume(NAME, store=setup.store, observer=observer)


class _Marks(Observer):
    def __init__(self, path: Path) -> None:
        self.path = path

    def ended(self, trial: Trial) -> None:
        with self.path.open("ab", buffering=0) as file:
            file.write(b".")


class Session:
    """A process that runs `run_session`."""

    def __init__(self, launcher: Launcher, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None  # as of subprocess: negative for signals
        self._launcher = launcher

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended within this time."""
        if self.code is None:
            answer = self._launcher.answer(timeout_s)
            if answer is not None:
                self.code = int(answer)
        return self.code is not None

    def kill(self) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Launcher:
    """Starts sessions, one at a time, as forks of a process that has all modules loaded.

    Args:
        busy_s: How long SQLite waits for a lock by itself; None: as long as it does.
        retry_s: How long a store tries again, likewise.
    """

    def __init__(self, *, busy_s: float | None = None, retry_s: float | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP, json.dumps([busy_s, retry_s])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._session: Session | None = None
        self._read = b""

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._session is not None:
            self._session.kill()
        self._process.communicate()

    def start(self, setup: Setup) -> Session:
        assert self._process.stdin is not None
        if self._session is not None and not self._session.wait(0.0):  # by a test that failed
            self._session.kill()
            self._session.wait(60.0)
        self._process.stdin.write((json.dumps(asdict(setup)) + "\n").encode())
        self._process.stdin.flush()
        answer = self.answer(60.0)
        assert answer is not None, "the launcher does not answer"
        self._session = Session(self, int(answer))
        return self._session

    def answer(self, timeout_s: float) -> str | None:
        """The launcher's next line, if it comes within this time."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._read:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                return None
            read = os.read(self._process.stdout.fileno(), 100)
            assert read, "the launcher is gone"
            self._read += read
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


def launch() -> None:
    """Fork a session for each line; answer with its process and then with its exit code."""
    _replace_the_task()
    _shorten(*json.loads(sys.argv[1]))
    for name in ("search.build", "search.controller", "search.workers"):
        importlib.import_module(name)
    for name in {strategy["name"] for strategy in STRATEGIES.values()}:
        make_strategy(name, {}, REPOSITORY, [])
    for line in sys.stdin:
        setup = Setup(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            _serve(setup)
        print(pid, flush=True)
        # Not reaped before it is told: nobody else may get its number while it is killed.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _serve(setup: Setup) -> NoReturn:
    os.setsid()
    log = os.open(setup.path(OUTPUT), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream, replaced in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(stream, replaced)
    code = 1
    try:
        run_session(setup)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _replace_the_task() -> None:
    """Let `search.build` resolve configs and make benches without a model."""
    import search.prepare

    search.prepare.prepare = _prepare
    search.prepare.prepare_stored = _prepare_stored
    workbench: Any = ModuleType("search.workbench")
    workbench.build_spec = _build_spec
    workbench.timing_spec = _timing_spec
    sys.modules[workbench.__name__] = workbench


def _shorten(busy_s: float | None, retry_s: float | None) -> None:
    import storage.database
    from storage.reading import StoreReader

    if busy_s is not None:
        storage.database.BUSY_TIMEOUT_S = busy_s
    if retry_s is not None:
        StoreReader.__init__.__kwdefaults__["retry_s"] = retry_s


def _prepare(config: StudyConfig, folder: Path, problems: list[Problem], label: str) -> Prepared:
    facts = {**FACTS, "versions": library_versions(), **cpu_facts()}
    return _prepared(config, folder, SPACE, facts, problems)


def _prepare_stored(study: Study, workers: int | None = None) -> Prepared:
    content = dict(study.config)
    folder = Path(content.pop("folder"))
    config, space = StudyConfig.model_validate(content), Space.from_json(study.space)
    return _prepared(config, folder, space, dict(study.facts), [])


def _prepared(
    config: StudyConfig,
    folder: Path,
    space: Space,
    facts: dict[str, Any],
    problems: list[Problem],
) -> Prepared:
    options = config.strategy.model_extra or {}
    strategy = make_strategy(config.strategy.name, options, folder, problems)
    assert strategy is not None, problems
    loaded: Any = SimpleNamespace(fingerprint=FINGERPRINT)
    goals = Goals.of_config(config.model_dump())
    return Prepared(config, folder, loaded, space, (), strategy, goals, facts)


def _build_spec(prepared: Prepared, files: Path) -> BenchSpec:
    arguments = {"files": str(files), "log": prepared.config.task_options["log"]}
    return BenchSpec("kill_bench:Bench", arguments)


def _timing_spec(prepared: Prepared) -> BenchSpec:
    return BenchSpec("kill_bench:Clock", {})
