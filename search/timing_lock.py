"""One timing at a time on a machine, whatever studies run on it."""

from __future__ import annotations

import errno
import logging
import os
import socket
import tempfile
import time
from pathlib import Path

from .held_file import HeldFile

WARN_S = 30.0  # of waiting for one and the same holder

_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR)

log = logging.getLogger("naslite.search")


def default_path() -> Path:
    """NASLITE_TIMING_LOCK, else a file in /tmp: TMPDIR may be another one in each batch job."""
    given = os.environ.get("NASLITE_TIMING_LOCK")
    shared = Path("/tmp")
    folder = shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return Path(given) if given else folder / "naslite-timing.lock"


class TimingLock:
    """A lock that nobody waits for, taken in turns; the system frees it when its process dies.

    Who wants the lock must first hold a second file, the turnstile, and lets it go with the lock
    in its hands. So who has just given the lock back stands behind the one that waits for it.

    A process that is stopped (SIGSTOP, a debugger, a laptop's lid) in the middle of a timing keeps
    the lock: its timing is not over, and goes on with it. Nobody else is timed until then. Who
    waits for longer than 30 s logs once per holder whom to continue or to kill.

    Args:
        path: None = no lock. Processes that name the same file exclude each other; the turnstile
            lies beside it.
        study: What the file tells others of us, besides our process and host.
    """

    def __init__(self, path: Path | None, study: str = "") -> None:
        self._files = None if path is None else (HeldFile(path), HeldFile(_turnstile(path)))
        self._study = study
        self._waits_for: str | None = None
        self._waits_since = 0.0
        self._warned_of: str | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free and our turn.

        Where the files cannot be opened (they are another user's), timing goes on without them.
        """
        if self._files is None:
            return True
        lock, turnstile = self._files
        says = f"study {self._study} (process {os.getpid()} on {socket.gethostname()})"
        try:
            is_ours = lock.is_held or (turnstile.acquire(says) and lock.acquire(says))
        except OSError as error:
            if error.errno in _PASSING:
                return False
            self._do_without(error)
            return True
        if is_ours:
            turnstile.release()
            self._waits_for = None
        else:
            self._wait_for(lock.read() or turnstile.read())
        return is_ours

    def release(self) -> None:
        """Give the lock back, or no longer wait for it."""
        for file in self._files or ():
            file.release()
        self._waits_for = None

    def _wait_for(self, holder: str) -> None:
        now = time.monotonic()
        if holder != self._waits_for:
            self._waits_for, self._waits_since = holder, now
        elif now - self._waits_since > WARN_S and holder != self._warned_of:
            self._warned_of = holder
            assert self._files is not None
            log.warning(
                "waited %d s to time a file, for %s, which holds %s; if it is stopped, continue it"
                " (kill -CONT) or end it",
                now - self._waits_since,
                holder or "an unknown process",
                self._files[0].path,
            )

    def _do_without(self, error: OSError) -> None:
        assert self._files is not None
        log.warning(
            "cannot lock %s (%s): another study may be timed at the same moment;"
            " set NASLITE_TIMING_LOCK to a file that all can write",
            self._files[0].path,
            error.strerror,
        )
        self.release()
        self._files = None


def _turnstile(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")
