"""The processes of a study: its build workers and its timer, behind one dispatcher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import Outcome
from storage.artifacts import file_stores
from strategies.space import Space

from .detach import worker_log
from .dispatch import Dispatcher
from .environment import memory_bytes
from .executor import Executor, Serial
from .interrupts import Interrupts
from .scratch import scratch_folder
from .sizes import parse_bytes
from .timing_lock import TimingLock, default_path
from .trial_run import TrialEnd

if TYPE_CHECKING:
    from .prepare import Prepared

TICK_S = 0.2
LOG_BYTES = 10_000_000  # of a log; one that is longer begins a session with a tenth, its end
MEMORY_SHARE = 0.9  # of the machine's, for all processes, unless limits.memory says otherwise


@contextmanager
def study_dispatcher(prepared: Prepared, files: Path) -> Iterator[Dispatcher]:
    """Runs trials in supervised processes; they end with the block.

    Args:
        files: The folder of the study's artifacts and cached stages.
    """
    from .workbench import build_spec, timing_spec
    from .workers import ProcessPool

    config = prepared.config
    log = begun_log(worker_log(files, config.study))
    given = config.limits.memory
    memory = parse_bytes(given) if given else memory_share(config.workers)
    lock = TimingLock(default_path(), config.study)
    with scratch_folder() as scratch:
        options: dict[str, Any] = {"memory_bytes": memory, "log": log, "scratch": scratch}
        builders = ProcessPool(build_spec(prepared, files), config.workers, **options)
        timer = ProcessPool(timing_spec(prepared), 1, **options)
        dispatcher = _dispatcher(prepared, builders, timer, files, lock)
        try:
            yield dispatcher
        finally:
            dispatcher.close()


@contextmanager
def local_dispatcher(prepared: Prepared, files: Path) -> Iterator[Dispatcher]:
    """Runs trials in this process, which is enough for one."""
    from .timing import Timer
    from .workbench import make_workbench, timing_spec

    bench = Serial(make_workbench(prepared, file_stores(files)))
    timer = Serial(Timer(**timing_spec(prepared).arguments))
    lock = TimingLock(default_path(), prepared.config.study)
    dispatcher = _dispatcher(prepared, bench, timer, files, lock)
    try:
        yield dispatcher
    finally:
        dispatcher.close()


def baseline_outcome(
    dispatcher: Dispatcher, space: Space, interrupts: Interrupts, attempts: int = 1
) -> Outcome:
    """Build and measure the uncompressed model.

    Args:
        attempts: How often it is begun if a worker dies.

    Raises:
        KeyboardInterrupt: A signal came.
        NasliteError: A worker cannot load the task.
    """
    for _ in range(attempts):
        dispatcher.start(0, space.baseline(), None)
        ended: list[TrialEnd] = []
        while not ended:
            interrupts.check()
            ended = dispatcher.wait(TICK_S)
        if not ended[0].died:
            break
    return ended[0].outcome


def memory_share(workers: int) -> int:
    """Bytes for each of so many build workers, and for the timer."""
    return int(MEMORY_SHARE * memory_bytes() / (workers + 1))


def begun_log(log: Path) -> Path | None:
    """The log at the beginning of a session, made if need be; None where it cannot be written."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
        if log.stat().st_size > LOG_BYTES:
            log.write_bytes(log.read_bytes()[-LOG_BYTES // 10 :])
    except OSError:  # a read-only folder must not end the search: nobody reads what workers print
        return None
    return log


def _dispatcher(
    prepared: Prepared, builders: Executor, timer: Executor, files: Path, lock: TimingLock
) -> Dispatcher:
    config = prepared.config
    return Dispatcher(
        builders,
        timer,
        file_stores(files)[0],
        score_name=prepared.facts["score_name"],
        higher_is_better=prepared.facts["higher_is_better"],
        timeout_s=config.limits.timeout,
        exclusive=config.exclusive_latency,
        lock=lock,
        needed=prepared.goals.names,
    )
