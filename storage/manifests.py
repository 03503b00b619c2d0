"""Manifests: which files an artifact or an entry is made of, by name, size and SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .entries import MANIFEST, MISSING
from .errors import CorruptFiles
from .records import Artifact, File


def describe_file(path: Path) -> File:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size_bytes = os.fstat(stream.fileno()).st_size
    return File(path.name, size_bytes, digest)


def describe_artifact(files: Iterable[Path], format: str) -> Artifact:
    """The artifact that these files are; its SHA-256 is that of their names, sizes and hashes."""
    entries = tuple(describe_file(file) for file in by_name(files))
    digest = _digest([_file_json(entry) for entry in entries])
    return Artifact(digest, format, sum(entry.size_bytes for entry in entries), entries)


def write_manifest(folder: Path, files: Iterable[Path], facts: Mapping[str, Any]) -> None:
    """Describe the files of an entry, and keep JSON facts beside them."""
    content = {"files": [_file_json(describe_file(f)) for f in files], "facts": dict(facts)}
    stored = json.loads(json.dumps(content))  # what will be read: keys are strings, tuples lists
    manifest = {**stored, "sha256": _digest(stored)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of an entry, after every byte of it was checked.

    Raises:
        CorruptFiles: It is missing, or something in it is not what was stored.
        OSError: It cannot be read; that does not make it corrupt.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        _check_manifest(folder, manifest)
        for entry in manifest["files"]:
            _check_file(folder / entry["name"], entry)
        facts = dict(manifest["facts"])
    except (*MISSING, ValueError, KeyError, TypeError) as error:
        raise no_entry(folder, error) from None
    strange = set(os.listdir(folder)) - {MANIFEST, *(entry["name"] for entry in manifest["files"])}
    if strange:
        raise CorruptFiles(f"{folder / min(strange)} is not in its manifest")
    return facts


def no_entry(folder: Path, error: Exception) -> CorruptFiles:
    return CorruptFiles(f"no intact entry at {folder} ({type(error).__name__})")


def by_name(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: file.name)


def _check_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    content = {"files": manifest["files"], "facts": manifest["facts"]}
    # Entries of the first version had no digest, and nothing but these two keys.
    if manifest not in (content, {**content, "sha256": _digest(content)}):
        raise CorruptFiles(f"{folder / MANIFEST} differs from its SHA-256")


def _check_file(path: Path, entry: Mapping[str, Any]) -> None:
    try:
        found = _file_json(describe_file(path))
    except FileNotFoundError:
        raise CorruptFiles(f"{path} is missing") from None
    except (NotADirectoryError, IsADirectoryError):
        raise CorruptFiles(f"{path} is no file") from None
    if found["size_bytes"] != entry["size_bytes"]:
        sizes = f"{found['size_bytes']} bytes, not {entry['size_bytes']}"
        raise CorruptFiles(f"{path} has {sizes}")
    if found != entry:
        raise CorruptFiles(f"{path} differs from its SHA-256")


def _file_json(file: File) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
