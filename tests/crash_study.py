"""A small study that dies at one point of its life, named by the fault hooks, and is resumed.

Its trials end in every way, one loses a worker, one is interrupted; others enqueue, extend and
stop. What it comes to must not depend on where it died. All of it runs in forks of one process
that has everything loaded and no threads: a life costs some hundredths of a second.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from doubles import FormulaBench, control, new_study
from sqlalchemy import Engine, event, select, text

from search.dispatch import Dispatcher
from search.executor import Serial
from search.jobs import Built, Job, JobEnd
from search.observer import Observer
from search.replay import replay
from storage import StageRun, Store, Trial
from storage.artifacts import ContentStore
from storage.schema import requests
from strategies.base import Proposal

REPOSITORY = Path(__file__).resolve().parent.parent
BOOTSTRAP = f"""
import sys
sys.path[:0] = {[str(REPOSITORY), str(REPOSITORY / "tests")]!r}
from crash_study import main
main()
"""
STATEMENT = "statement"  # a point before every statement of the database, of reads, too
BUDGET, EXTENDED = 4, 9
REFUSED, FAILED, DIES, INTERRUPTED = 6, 4, 1, 7  # levels; the last is a number
ENQUEUED = [{"prune.level": level} for level in (8, REFUSED, 5, 2)]
# By number: what the strategy proposes. Levels 8 and 9 give the same bytes.
LEVELS = {1: DIES, 6: DIES, 7: 9, 8: FAILED, 9: FAILED}
ASKED: list[tuple[int, str, dict[str, Any]]] = [  # after which trial somebody asks for what
    (1, "enqueue", {"candidates": ENQUEUED}),
    (4, "extend", {"trials": EXTENDED}),
    (5, "stop", {}),
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one life is lived.

    Args:
        url: Of the store; of a server, which several places share.
    """

    folder: str
    url: str = ""
    name: str = "s"

    @property
    def store(self) -> str:
        return self.url or f"sqlite:///{self.folder}/a.db"

    @property
    def files(self) -> Path:
        return Path(self.folder) / "files"

    def once(self, what: str) -> bool:
        """Whether this is asked for the first time, by whatever process."""
        try:
            (Path(self.folder) / what).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


class Listed:
    """Proposes what stands in LEVELS, and remembers it in both memos."""

    def propose(self, view, number, rng):
        assert view.memo.get("proposed", []) == [n for n in LEVELS if n < number]
        candidate = {"prune.level": LEVELS[number], "quantize.scheme": "none"}
        proposed = [*view.memo.get("proposed", []), number]
        return Proposal(candidate, {"number": number}, {"proposed": proposed})


class Bench(FormulaBench):
    def build(self, candidate, *, progress):
        if candidate["prune.level"] == REFUSED:
            stage = StageRun("prune", "k", {}, 0.01, False)
            return Built((stage,), None, "refused", "prune: nothing is left")
        return super().build(candidate, progress=progress)


class Mortal(Serial):
    """Its worker dies over one candidate, once."""

    def __init__(self, bench: Bench, place: Place) -> None:
        super().__init__(bench)
        self._place = place

    def _run(self, job: Job) -> JobEnd:
        is_fatal = job.method == "build" and job.arguments[0]["prune.level"] == DIES
        if is_fatal and self._place.once("died"):
            return JobEnd(job, "lost", None, "worker died (signal 9)", "prune", (), 0.1)
        return super()._run(job)


class Life(Observer):
    """Asks what is to be asked, and interrupts one trial, once."""

    def __init__(self, store: Store, place: Place) -> None:
        self.store = store
        self.place = place

    def proposed(self, number: int, candidate: dict[str, object]) -> None:
        if number == INTERRUPTED and self.place.once("interrupted"):
            raise KeyboardInterrupt

    def ended(self, trial: Trial) -> None:
        self.ask()

    def ask(self) -> None:
        """Whatever is due and was not asked yet."""
        study = self.store.study(self.place.name)
        ended = {t.number for t in self.store.trials(study) if t.finished_at is not None}
        asked = [(kind, payload) for kind, payload, *_ in asked_for(self.store, self.place)]
        for number, kind, payload in ASKED:
            is_known = any(
                k == kind and all(p.get(key) == value for key, value in payload.items())
                for k, p in asked
            )
            if number in ended and not is_known:
                self.store.add_request(study, kind, payload)


def live(place: Place, fault: Callable[[str], None] | None = None) -> None:
    """Create the study or continue it, until it is finished."""
    tempfile.tempdir = place.folder  # where the study goes, what a crash left goes, too
    if fault is not None:
        event.listen(Engine, "before_cursor_execute", lambda *_: fault(STATEMENT))
    with closing(Store(place.store, files=place.files)) as store:
        store.faults = ContentStore.faults = fault
        if not store.has_study(place.name):
            strategy = {"name": f"{Path(__file__).resolve()}:Listed"}  # for `replay`
            new_study(store, place.name, trials=BUDGET, strategy=strategy)
        while (study := store.study(place.name)).state != "finished":
            observer = Life(store, place)
            observer.ask()
            with suppress(KeyboardInterrupt):
                control(
                    store,
                    study.name,
                    strategy=Listed(),
                    observer=observer,
                    dispatcher=_dispatcher(store, place),
                )


def _dispatcher(store: Store, place: Place) -> Dispatcher:
    bench = Bench(_fail, artifacts=store.artifacts)
    names: dict[str, Any] = {"score_name": "accuracy", "higher_is_better": True}
    return Dispatcher(Mortal(bench, place), Serial(bench), store.artifacts, **names)


def _fail(candidate: Any) -> None:
    if candidate["prune.level"] == FAILED:
        raise ValueError("no such layer")


def found(place: Place) -> dict[str, Any]:
    """What the study has come to, without what time and deaths may change."""
    with closing(Store(place.store, create=False, files=place.files)) as store:
        study = store.study(place.name)
        trials = [_without_time(trial) for trial in store.trials(study)]
        for trial in trials:
            if trial["artifact"]:
                store.artifacts.verified(trial["artifact"]["sha256"])
        return {
            "study": [study.state, study.cause, study.trials, study.owner, dict(study.memo)],
            "trials": trials,
            "requests": asked_for(store, place),
            "open requests": len(store.requests(study)),
            "replay": [str(d) for d in replay(place.name, store=place.store).differences],
            "intact": _integrity(store),
        }


def asked_for(store: Store, place: Place) -> list[Any]:
    """All requests that were made, handled or not: kind, payload, number."""
    study = store.study(place.name)
    table = requests.c
    query = (
        select(table.kind, table.payload, table.number)
        .where(table.study_id == study.id)
        .order_by(table.id)
    )
    return store._transactions.read(lambda c: [list(row) for row in c.execute(query)])


def _without_time(trial: Trial) -> dict[str, Any]:
    row = asdict(trial)
    for name in ("created_at", "finished_at", "seconds", "attempt", "deaths"):
        del row[name]
    for stage in row["stages"]:
        del stage["seconds"]
    return row


def _integrity(store: Store) -> list[Any]:
    if store._transactions.engine.dialect.name != "sqlite":
        return []
    checks = ("PRAGMA integrity_check", "PRAGMA foreign_key_check")
    read = store._transactions.read
    return [read(lambda c, q=q: [list(r) for r in c.execute(text(q))]) for q in checks]


# Forks


class Fuse:
    """Kills its process when a point is reached for the nth time.

    Args:
        path: Where to write at the end how often each point was reached.
    """

    def __init__(self, point: str = "", nth: int = 0) -> None:
        self.point = point
        self.nth = nth
        self.reached: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        self.reached[point] += 1
        if point == self.point and self.reached[point] == self.nth:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(action: Callable[[], Any]) -> tuple[int, Any]:
    """Run in a child: its exit code as of subprocess, and what was returned, through JSON."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as file:
                json.dump(action(), file)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, json.loads(answer) if code == 0 else None


def die(place: Place, fuses: Sequence[Fuse]) -> dict[str, Any]:
    """Live with one fuse after the other, then without; what became of it."""

    def with_fuse(fuse: Fuse) -> dict[str, int]:
        live(place, fuse)
        return dict(fuse.reached)

    codes, reached = [], None
    for fuse in fuses:
        code, reached = forked(lambda fuse=fuse: with_fuse(fuse))
        codes.append(code)
    code, result = forked(lambda: [live(place), found(place)])
    return {"codes": codes, "reached": reached, "code": code, "found": result and result[1]}


class Lives:
    """Lives lived in forks of one process, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOTSTRAP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
        )

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def die(self, place: Place, *fuses: tuple[str, int]) -> dict[str, Any]:
        """See the function `die`; a fuse is a point and how often it is reached before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        Path(place.folder).mkdir()
        self._process.stdin.write(json.dumps([asdict(place), fuses]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def main() -> None:
    """Answer each line, a place and fuses, with what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        live(Place(folder))  # so that every fork finds all modules loaded
    for line in sys.stdin:
        place, fuses = json.loads(line)
        found = die(Place(**place), [Fuse(*fuse) for fuse in fuses])
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
