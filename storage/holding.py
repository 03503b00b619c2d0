"""Entries that a process holds: nobody takes them away while they are read and worked on."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .entries import MANIFEST, MISSING, NEW, entry_folder, size_of
from .errors import CorruptFiles
from .eviction import removing
from .manifests import by_name, no_entry, read_facts, write_manifest
from .pins import pin, pin_new

if TYPE_CHECKING:
    from .artifacts import ContentStore

log = logging.getLogger("naslite.storage")


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
        """Make the folder the entry; False if another process has stored the same, held now.

        Raises:
            OSError: A corrupt entry is in its place, and cannot be taken away.
        """
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
