"""Pins: locks on files by which processes keep what lies beside them from being removed.

A pin is a shared flock. It ends with its descriptor, so also when its process dies, however it
does. Over NFS it holds for all hosts; where a file system has no flock, recent use protects.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

UNPROVEN_S = 3600.0  # without flock, what was used this long ago is taken to be free

_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def pin(path: Path) -> int:
    """A descriptor that holds the file until it is closed; waits while the file is being removed.

    Raises:
        FileNotFoundError: There is none, or none any more.
    """
    while True:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _flock(descriptor, fcntl.LOCK_SH)
            if is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was replaced before we held it


def pin_new(path: Path) -> int:
    """Make an empty file and hold it, as `pin` does.

    Raises:
        FileNotFoundError: Its folder is gone, or was removed before the file was held.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _flock(descriptor, fcntl.LOCK_SH)
        if not is_at(descriptor, path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def claim(path: Path) -> int | None:
    """A descriptor that keeps others from pinning the file; None if it is pinned.

    Raises:
        FileNotFoundError
    """
    descriptor = os.open(path, os.O_RDWR)  # NFS locks exclusively only what can be written
    try:
        has_flock = _flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if has_flock or time.time() - os.fstat(descriptor).st_mtime > UNPROVEN_S:
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_at(descriptor: int, path: Path) -> bool:
    """Whether this open file is the one at the path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _flock(descriptor: int, operation: int) -> bool:
    """Lock; False if the file system cannot."""
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        raise
    return True
