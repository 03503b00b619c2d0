"""Searches that outlive the shell they were started from, and where they write."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from pathlib import Path

from storage import Store, StoreError
from storage.database import files_folder

from .errors import NasliteError

POLL_S = 0.2
STORE_VARIABLE = "_NASLITE_STORE"  # --store of a search in the background


def log_path(url: str, study: str) -> Path:
    """What a detached search prints."""
    return _log(files_folder(url), study)


def worker_log(files: Path, study: str) -> Path:
    """What the workers of a study print, and where they crash.

    Args:
        files: The folder of the store's files.
    """
    return files / "logs" / f"{study}.workers.log"


def logs_of(files: Path, study: str) -> list[Path]:
    """The logs of a study that are there."""
    return [path for path in (_log(files, study), worker_log(files, study)) if path.exists()]


def unused_logs(files: Path, studies: Collection[str]) -> list[Path]:
    """The logs that belong to none of these studies.

    `a.workers.log` is of the study `a`, or of one that is called `a.workers`.
    """
    found = sorted((files / "logs").glob("*.log"))
    return [path for path in found if not _owners(path) & set(studies)]


class StillRunning(KeyboardInterrupt):
    """Ctrl-C while we waited for a search that goes on.

    Args:
        process: Its process.
    """

    def __init__(self, process: int) -> None:
        super().__init__()
        self.process = process


def start(
    arguments: Sequence[str],
    *,
    url: str,
    study: str,
    begun: Callable[[int, Path], None] = lambda process, log: None,
) -> int | None:
    """Run `naslite` with these arguments in a process group of its own.

    Returns once its controller owns the study; what it prints is appended to its log. The store's
    URL, which may hold a password, is handed over in the environment.

    Args:
        begun: Called with the process and its log as soon as there are any.

    Returns:
        Its process; None if it has ended well already.

    Raises:
        NasliteError: It ended with an error, whose lines these are.
        StillRunning: Ctrl-C while it begins.
    """
    path = log_path(url, study)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = path.open("ab")
    except OSError as error:
        raise NasliteError(f"cannot write the log {path}: {error.strerror}") from None
    with log:
        began = log.tell()
        program = f"import sys; sys.path[:] = {sys.path!r}; from search.cli import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, STORE_VARIABLE: url},
        )
    begun(process.pid, path)
    try:
        while process.poll() is None:
            if _is_owned_by(process.pid, url, study):
                process.returncode = 0  # it goes on without us
                return process.pid
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        process.returncode = 0
        raise StillRunning(process.pid) from None
    if process.returncode == 0:
        return None
    with path.open("rb") as stream:
        stream.seek(began)
        lines = stream.read().decode("utf-8", "replace").splitlines()
    said = [line.removeprefix("naslite: ") for line in lines if line.startswith("naslite: ")]
    code = process.returncode
    ended = f"died of signal {-code}" if code < 0 else f"ended with code {code}"
    raise NasliteError("\n".join(said) or f"the search {ended}; see {path}")


def _is_owned_by(pid: int, url: str, study: str) -> bool:
    """Whether a process runs the study, as far as the store can be asked now."""
    try:
        with closing(Store(url, create=False)) as store:
            found = store.study(study)
            return store.is_live(found) and found.owner.split("/")[1] == str(pid)
    except StoreError:  # not made yet, not upgraded, locked...: the process itself will say so
        return False


def _log(files: Path, study: str) -> Path:
    return files / "logs" / f"{study}.log"


def _owners(log: Path) -> set[str]:
    """The names of the studies that a log may be of."""
    name = log.name.removesuffix(".log")
    return {name, name.removesuffix(".workers")}
