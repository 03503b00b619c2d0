"""One timing at a time on a machine, whatever studies run on it."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

log = logging.getLogger("naslite.search")


def default_path() -> Path:
    """NASLITE_TIMING_LOCK, else a file in the folder for temporary files."""
    given = os.environ.get("NASLITE_TIMING_LOCK")
    return Path(given) if given else Path(tempfile.gettempdir()) / "naslite-timing.lock"


class TimingLock:
    """A file lock that nobody waits for; the system gives it back when its process dies.

    Args:
        path: None = no lock. Processes that name the same file exclude each other.
    """

    def __init__(self, path: Path | None) -> None:
        from filelock import FileLock

        self._lock = None if path is None else FileLock(path, mode=0o666)

    def acquire(self) -> bool:
        """Take the lock if it is free.

        Where the file cannot be opened (it is another user's), timing goes on without it.
        """
        if self._lock is None:
            return True
        from filelock import Timeout

        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            log.warning(
                "cannot lock %s (%s): another study may be timed at the same moment;"
                " set NASLITE_TIMING_LOCK to a file that all can write",
                self._lock.lock_file,
                error.strerror,
            )
            self._lock = None
        return True

    def release(self) -> None:
        if self._lock is not None:
            self._lock.release()
