"""Files stored by content key: artifacts by their SHA-256, stage results by their stage key."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import CorruptFiles
from .records import Artifact, File

MANIFEST = "entry.json"
# Anything else that reading may raise (too many open files, a failing disk) is no corruption.
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class ContentStore:
    """Folders of immutable files, each under a hexadecimal key.

    An entry appears as a whole (temporary folder, fsync, rename) and is checked against the
    SHA-256s of its manifest when it is read. Many processes may write at once: the same key means
    the same content, so whoever comes second finds the entry there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, files: Iterable[Path], facts: Mapping[str, Any] = {}) -> Path:
        """Store copies of files under their names, with JSON facts; returns their folder."""
        target = self._folder(key)
        if target.exists() and self.get(key) is not None:  # a damaged one was dropped
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="new-", dir=self.root))
        try:
            entries = []
            for file in _by_name(files):
                copy = scratch / file.name
                shutil.copyfile(file, copy)
                _sync(copy)
                entries.append(describe_file(copy))
            manifest = {"files": [_file_json(f) for f in entries], "facts": dict(facts)}
            (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))
            _sync(scratch / MANIFEST)
            _sync(scratch)
            scratch.chmod(0o755)
            try:
                scratch.rename(target)
            except OSError:
                if not target.exists():  # another process may have stored the same content
                    raise
            _sync(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return target

    def get(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """The folder and the facts of an entry; None if there is none or it is corrupt.

        A corrupt entry is dropped, so that it can be made again.
        """
        try:
            return self.verified(key)
        except CorruptFiles:
            self.remove(key)
            return None

    def verified(self, key: str) -> tuple[Path, dict[str, Any]]:
        """Like `get`, but says what is wrong.

        Raises:
            CorruptFiles: The entry is missing, or a file of it differs from its SHA-256.
        """
        folder = self._folder(key)
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            for entry in manifest["files"]:
                if _file_json(describe_file(folder / entry["name"])) != entry:
                    raise CorruptFiles(f"{folder / entry['name']} differs from its SHA-256")
            facts = dict(manifest["facts"])
        except (*MISSING, ValueError, KeyError, TypeError) as error:
            raise CorruptFiles(f"no intact entry at {folder} ({type(error).__name__})") from None
        return folder, facts

    def remove(self, key: str) -> None:
        shutil.rmtree(self._folder(key), ignore_errors=True)

    def _folder(self, key: str) -> Path:
        return self.root / key[:2] / key


def file_stores(folder: Path) -> tuple[ContentStore, ContentStore]:
    """The artifacts and the cached stages in a store's folder."""
    return ContentStore(folder / "artifacts"), ContentStore(folder / "stages")


def describe_file(path: Path) -> File:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return File(path.name, path.stat().st_size, digest)


def describe_artifact(files: Iterable[Path], format: str) -> Artifact:
    """The artifact that these files are; its SHA-256 is that of their names, sizes and hashes."""
    entries = tuple(describe_file(file) for file in _by_name(files))
    text = json.dumps([_file_json(entry) for entry in entries], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Artifact(digest, format, sum(entry.size_bytes for entry in entries), entries)


def _by_name(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: file.name)


def _file_json(file: File) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
