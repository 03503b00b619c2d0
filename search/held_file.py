"""A file that one process holds; the system gives it back when that process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

READ_BYTES = 1000


class HeldFile:
    """An exclusive flock that nobody waits for, on a file that tells who has it.

    Whoever names the same file excludes each other, also within one process. The file stays when
    it is let go: removing it would let two hold what they think is one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether we hold it."""
        return self._descriptor is not None

    def acquire(self, says: str = "") -> bool:
        """Hold the file if nobody else does, and write into it what others shall read.

        Raises:
            OSError: It cannot be opened, made, or locked on this file system.
        """
        if self._descriptor is not None:
            return True
        descriptor = _opened(self.path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        except BaseException:
            os.close(descriptor)
            raise
        if not is_ours:  # somebody holds it, or it was removed meanwhile
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        self._write(says)
        return True

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def read(self) -> str:
        """What its holder, or the last one that died, has written; "" if nothing can be read."""
        try:
            with self.path.open("rb") as file:
                return file.read(READ_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def _write(self, says: str) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(OSError):  # a full disk: it is held all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, says.encode(), 0)


def _opened(path: Path) -> int:
    """A descriptor of the file, made for all users of the machine if there is none."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)  # Linux lets nobody *make* what is another user's in /tmp
    descriptor = os.open(path, flags | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o666)  # whatever our umask is
    return descriptor
