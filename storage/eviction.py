"""Taking entries away: each as a whole, none that is held, one process at a time."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .entries import (
    MANIFEST,
    MISSING,
    OLD,
    Entry,
    changed_at,
    entry_folder,
    list_entries,
    list_leftovers,
    used_at,
)
from .pins import claim

LOCK = ".lock"
KEPT_SHARE = 0.9  # of the cap, after an eviction: so not every put evicts
# A process needs this long at most from making a folder to holding it.
UNHELD_S = 60.0

Reach = Callable[[str], None]


class Removal:
    """The right to take entries away; see `removing`.

    Args:
        rehearsed: Nothing is touched; the answers are the same.
    """

    def __init__(self, root: Path, reach: Reach, *, rehearsed: bool = False) -> None:
        self._root = root
        self._reach = reach
        self._rehearsed = rehearsed
        self._taken: list[Path] = []

    def take(
        self, key: str, *, unused_since: float | None = None, even_if_held: bool = False
    ) -> bool:
        """Take an entry away; says whether it is gone.

        Args:
            unused_since: Leave it if it was made or read after this moment (Unix seconds).
            even_if_held: Take it in any case.

        Raises:
            OSError: It cannot be taken away in any case: another user's, a mount point...
        """
        folder = entry_folder(self._root, key)
        if even_if_held:
            self._put_aside(folder)
            return True
        with _claimed(folder) as is_free:
            if not is_free or (unused_since is not None and used_at(folder) > unused_since):
                return False
            return self._rename(folder)

    def take_leftover(self, folder: Path, *, unchanged_since: float | None = None) -> bool:
        """Take away what a killed process left; says whether it is gone.

        Args:
            unchanged_since: Leave it if something in it was written after this moment.
        """
        if folder.name.startswith(OLD):  # who put it aside is gone, or deletes it too
            self._taken.append(folder)
            return True
        since = math.inf if unchanged_since is None else unchanged_since
        if not (folder / MANIFEST).exists():  # it may be a moment old, and not held yet
            since = min(since, time.time() - UNHELD_S)
        with _claimed(folder) as is_free:
            return is_free and changed_at(folder) <= since and self._rename(folder)

    def delete(self) -> None:
        """Delete what was taken away."""
        for folder in self._taken:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.unlink()  # where a file lay in the place of a folder
        self._taken.clear()

    def _rename(self, folder: Path) -> bool:
        """Put a folder aside; says whether it is gone."""
        try:
            self._put_aside(folder)
        except OSError:  # a folder that is another user's, or read-only
            return False
        return True

    def _put_aside(self, folder: Path) -> None:
        """Rename a folder, so that nobody sees a half of it."""
        if self._rehearsed:
            return
        aside = self._root / f"{OLD}{uuid.uuid4().hex}"
        try:
            folder.rename(aside)
        except MISSING:
            return
        self._taken.append(aside)
        self._reach("remove/renamed")


@contextmanager
def removing(
    root: Path, reach: Reach, *, wait: bool = True, delete: bool = True
) -> Iterator[Removal | None]:
    """The right to take entries away, which one process has at a time.

    Args:
        wait: False yields None if another process has it.
        delete: False leaves what was taken among the leftovers.

    Raises:
        OSError: The folder cannot be written.
    """
    removal = Removal(root, reach)
    descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield removal if _lock(descriptor, wait=wait) else None
    finally:
        os.close(descriptor)
        if delete:
            removal.delete()


def evict(root: Path, max_bytes: int, reach: Reach) -> int:
    """Remove the least recently used entries if all take more than `max_bytes`.

    Then 90 % of it are kept. An entry that is larger than `max_bytes` goes first, and no other
    has to go for its sake. What is held, or was used since it was looked at, stays.

    Returns:
        The bytes of the entries that are left.
    """
    found = sorted(list_entries(root), key=lambda entry: (entry.used_at, entry.key))
    if _total(found) <= max_bytes:
        return _total(found)
    gone: set[Entry] = set()
    with suppress(OSError), removing(root, reach, wait=False) as removal:
        if removal is not None:  # else another process is at it
            for folder in list_leftovers(root):
                removal.take_leftover(folder, unchanged_since=time.time() - UNHELD_S)
            too_large = [entry for entry in found if entry.size_bytes > max_bytes]
            gone |= _taken(removal, too_large, 0)
            fitting = [entry for entry in found if entry.size_bytes <= max_bytes]
            if _total(fitting) > max_bytes:
                gone |= _taken(removal, fitting, int(max_bytes * KEPT_SHARE))
    return _total(entry for entry in found if entry not in gone)


def _taken(removal: Removal, entries: list[Entry], goal: int) -> set[Entry]:
    """Take entries away, one after the other, until at most `goal` bytes of them are left."""
    left = _total(entries)
    gone: set[Entry] = set()
    for entry in entries:
        if left <= goal:
            break
        if removal.take(entry.key, unused_since=entry.used_at):
            gone.add(entry)
            left -= entry.size_bytes
    return gone


def _total(entries: Iterable[Entry]) -> int:
    return sum(entry.size_bytes for entry in entries)


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether nobody holds a folder; then nobody can until the block ends."""
    try:
        descriptor = claim(folder / MANIFEST)
    except MISSING:
        yield True  # nobody holds what has no manifest
        return
    except OSError:  # another user's: it could not be removed either
        yield False
        return
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without flock: `claim` is careful there
    return True
