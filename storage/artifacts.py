"""Files stored by content key: artifacts by their SHA-256, stage results by their stage key."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from .entries import MANIFEST, MISSING, NEW, entry_folder, list_entries, size_of
from .errors import CorruptFiles
from .eviction import evict, removing
from .manifests import (
    by_name,
    describe_artifact,
    describe_file,
    no_entry,
    read_facts,
    write_manifest,
)
from .pins import pin, pin_new

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
        self._known_bytes = evict(self.root, self.max_bytes, self.reach)
        self._added_bytes = 0

    @staticmethod
    def reach(point: str) -> None:
        """Tell `faults` that a point is reached."""
        if ContentStore.faults is not None:
            ContentStore.faults(point)


class Holder:
    """Puts and gets entries of a store, and holds them; see `ContentStore.holding`."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store
        self._pins: dict[str, int] = {}

    def __enter__(self) -> Holder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for key in list(self._pins):
            self._let_go(key)

    def get(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """See `ContentStore.get`."""
        try:
            return self.verified(key)
        except CorruptFiles as error:
            if self._is_corrupt(key, error):
                with suppress(OSError):  # a folder that cannot be written; the next put says so
                    self._drop(key)
            return None

    def verified(self, key: str) -> tuple[Path, dict[str, Any]]:
        """See `ContentStore.verified`."""
        folder = entry_folder(self._store.root, key)
        try:
            descriptor = pin(folder / MANIFEST)
        except MISSING as error:
            raise no_entry(folder, error) from None
        self._hold(key, descriptor)
        try:
            facts = read_facts(folder)
        except BaseException:
            self._let_go(key)
            raise
        with suppress(OSError):  # another user's, or read-only
            os.utime(descriptor)
        return folder, facts

    def put(self, key: str, files: Iterable[Path], facts: Mapping[str, Any] = {}) -> Path:
        """See `ContentStore.put`."""
        store = self._store
        store.reach("put/begin")
        try:
            return self.verified(key)[0]
        except CorruptFiles as error:
            self._is_corrupt(key, error)
        target = entry_folder(store.root, key)
        _make_folder(target.parent)
        scratch, descriptor = _held_scratch(store.root)
        try:
            copies = _copies(files, scratch)
            store.reach("put/copied")
            write_manifest(scratch, copies, facts)
            for path in (*copies, scratch / MANIFEST, scratch):
                _sync(path)
            scratch.chmod(0o755)
            store.reach("put/synced")
            if self._publish(scratch, key):
                self._hold(key, os.dup(descriptor))
                store.reach("put/renamed")
                _sync(target.parent)
        finally:
            os.close(descriptor)
            shutil.rmtree(scratch, ignore_errors=True)
        if store.max_bytes is not None:
            store.make_room(size_of(target))
        store.reach("put/end")
        return target

    def _publish(self, scratch: Path, key: str) -> bool:
        """Make the folder the entry; False if another process has stored the same, held now."""
        target = entry_folder(self._store.root, key)
        while True:
            try:
                scratch.rename(target)
                return True
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise
            with suppress(CorruptFiles):
                self.verified(key)
                return False
            self._drop(key, even_if_held=True)  # who holds it keeps the path, intact soon

    def _is_corrupt(self, key: str, error: CorruptFiles) -> bool:
        """Whether an entry that could not be verified is there at all; then it is logged."""
        is_there = os.path.lexists(entry_folder(self._store.root, key))
        if is_there:
            log.warning("entry %s is corrupt and will be made again: %s", key[:12], error)
        return is_there

    def _drop(self, key: str, *, even_if_held: bool = False) -> None:
        """Remove a corrupt entry, unless another process has replaced it meanwhile.

        Raises:
            OSError
        """
        store = self._store
        with removing(store.root, store.reach) as removal:
            assert removal is not None
            try:
                read_facts(entry_folder(store.root, key))
            except CorruptFiles:
                removal.take(key, even_if_held=even_if_held)

    def _hold(self, key: str, descriptor: int) -> None:
        self._let_go(key)
        self._pins[key] = descriptor

    def _let_go(self, key: str) -> None:
        descriptor = self._pins.pop(key, None)
        if descriptor is not None:
            os.close(descriptor)


def file_stores(
    folder: Path, *, stage_bytes: int | None = None
) -> tuple[ContentStore, ContentStore]:
    """The artifacts and the cached stages in a store's folder.

    Args:
        stage_bytes: The most that cached stages may take; artifacts have no limit.
    """
    return ContentStore(folder / "artifacts"), ContentStore(folder / "stages", stage_bytes)


def _held_scratch(root: Path) -> tuple[Path, int]:
    """A new folder for an entry, and the descriptor that holds it."""
    while True:
        scratch = Path(tempfile.mkdtemp(prefix=NEW, dir=root))
        try:
            return scratch, pin_new(scratch / MANIFEST)
        except FileNotFoundError:  # before we held it, it was taken for a dead process's
            continue
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _copies(files: Iterable[Path], folder: Path) -> list[Path]:
    return [Path(shutil.copyfile(file, folder / file.name)) for file in by_name(files)]


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, each on the disk before anything is put in it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
