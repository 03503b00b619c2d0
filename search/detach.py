"""Searches that outlive the shell they were started from, and where they write."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from storage import NoStore, Store, StoreError, UnknownStudy
from storage.database import files_folder

from .errors import NasliteError

POLL_S = 0.2


def log_path(url: str, study: str) -> Path:
    """What a detached search prints."""
    return files_folder(url) / "logs" / f"{study}.log"


def worker_log(files: Path, study: str) -> Path:
    """What the workers of a study print, and where they crash.

    Args:
        files: The folder of the store's files.
    """
    return files / "logs" / f"{study}.workers.log"


def start(arguments: Sequence[str], *, url: str, study: str) -> int | None:
    """Run `naslite` with these arguments in a process group of its own.

    Returns once its controller owns the study; what it prints is appended to its log.

    Returns:
        Its process; None if it has ended well already.

    Raises:
        NasliteError: It ended with an error, whose lines these are.
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
        )
    while process.poll() is None:
        if _is_owned_by(process.pid, url, study):
            process.returncode = 0  # it goes on without us
            return process.pid
        time.sleep(POLL_S)
    if process.returncode == 0:
        return None
    with path.open("rb") as stream:
        stream.seek(began)
        lines = stream.read().decode("utf-8", "replace").splitlines()
    said = [line.removeprefix("naslite: ") for line in lines if line.startswith("naslite: ")]
    raise NasliteError("\n".join(said) or f"it ended with code {process.returncode}; see {path}")


def _is_owned_by(pid: int, url: str, study: str) -> bool:
    try:
        store = Store(url, create=False)
    except NoStore:
        return False
    try:
        found = store.study(study)
        return store.is_live(found) and found.owner.split("/")[1] == str(pid)
    except (UnknownStudy, StoreError):
        return False
    finally:
        store.close()
