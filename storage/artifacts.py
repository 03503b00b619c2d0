"""Files stored by content key: artifacts by their SHA-256, stage results by their stage key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from .entries import MANIFEST, entry_folder, list_entries
from .eviction import evict, removing
from .holding import Holder
from .manifests import describe_artifact, describe_file

__all__ = [
    "MANIFEST",
    "ContentStore",
    "Holder",
    "describe_artifact",
    "describe_file",
    "file_stores",
]

RESCAN_SHARE = 0.05  # of the cap: after so many bytes of our own, look what others have added

log = logging.getLogger("naslite.storage")


class ContentStore:
    """Folders of immutable files, each under a hexadecimal key.

    An entry appears as a whole (temporary folder, fsync, rename) and is checked against the
    SHA-256s of its manifest when it is read. Many processes may write at once: the same key means
    the same content, so whoever comes second finds the entry there.

    What is in use is held (`holding`), and not removed by any process. With `max_bytes` the
    least recently used entries go when all take more, the one just put excepted.

    Args:
        max_bytes: None keeps everything.
    """

    # For tests of crashes: called with the name of each point that is reached. `put/begin`,
    # `put/copied` (all files are there), `put/synced` (and on the disk), `put/renamed` (the entry
    # is there), `put/end`, `remove/renamed` (an entry is put aside, and not deleted yet).
    faults: ClassVar[Callable[[str], None] | None] = None

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        if max_bytes is not None and max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, got {max_bytes}")
        self.root = root
        self.max_bytes = max_bytes
        self._known_bytes: int | None = None  # of all entries, when they were last looked at
        self._added_bytes = 0  # by us, since then

    def put(self, key: str, files: Iterable[Path], facts: Mapping[str, Any] = {}) -> Path:
        """Store copies of files under their names, with JSON facts; returns their folder.

        Raises:
            OSError: The disk is full, the folder cannot be written...; nothing is left behind.
        """
        with Holder(self) as holder:
            return holder.put(key, files, facts)

    def get(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """The folder and the facts of an entry; None if there is none or it is corrupt.

        A corrupt entry is logged and dropped, so that it can be made again.

        Raises:
            OSError: It cannot be read; that does not make it corrupt.
        """
        with Holder(self) as holder:
            return holder.get(key)

    def verified(self, key: str) -> tuple[Path, dict[str, Any]]:
        """Like `get`, but says what is wrong.

        Raises:
            CorruptFiles: The entry is missing, or a file of it differs from its SHA-256.
            OSError: It cannot be read; that does not make it corrupt.
        """
        with Holder(self) as holder:
            return holder.verified(key)

    @contextmanager
    def holding(self) -> Iterator[Holder]:
        """What is put or got through the holder stays where it is until the block ends.

        No process evicts it or collects it as garbage. If this process dies, the system lets go.
        """
        with Holder(self) as holder:
            yield holder
        if self._known_bytes is not None:
            self.make_room(0)

    def exists(self, key: str) -> bool:
        """Whether there is an entry; its files are not read."""
        return (entry_folder(self.root, key) / MANIFEST).is_file()

    def remove(self, key: str, *, unused_since: float | None = None) -> bool:
        """Remove an entry that nobody holds; says whether it is gone.

        Args:
            unused_since: Leave it if it was made or read after this moment (Unix seconds).
        """
        if not self.root.exists():
            return True
        try:
            with removing(self.root, self.reach) as removal:
                assert removal is not None
                return removal.take(key, unused_since=unused_since)
        except OSError:
            return not self.exists(key)

    def total(self) -> tuple[int, int]:
        """How many entries there are, and their bytes."""
        found = list_entries(self.root)
        return len(found), sum(entry.size_bytes for entry in found)

    def make_room(self, added_bytes: int) -> None:
        """Keep to `max_bytes` after so many bytes were added.

        The disk is looked at once they, or 5 % of the cap, may have filled it.
        """
        if self.max_bytes is None:
            return
        self._added_bytes += added_bytes
        if self._known_bytes is not None:
            expected = self._known_bytes + self._added_bytes
            if expected <= self.max_bytes and (self._added_bytes <= self.max_bytes * RESCAN_SHARE):
                return
        self._added_bytes = 0
        try:
            self._known_bytes = evict(self.root, self.max_bytes, self.reach)
        except OSError as error:  # the next put tries again
            self._known_bytes = None
            log.warning("cannot keep %s to its size: %s", self.root, error)

    @staticmethod
    def reach(point: str) -> None:
        """Tell `faults` that a point is reached."""
        if ContentStore.faults is not None:
            ContentStore.faults(point)


def file_stores(
    folder: Path, *, stage_bytes: int | None = None
) -> tuple[ContentStore, ContentStore]:
    """The artifacts and the cached stages in a store's folder.

    Args:
        stage_bytes: The most that cached stages may take; artifacts have no limit.
    """
    return ContentStore(folder / "artifacts"), ContentStore(folder / "stages", stage_bytes)
