"""Whether the stored files of trials are still those that were measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from storage import Artifact, File
from storage.entries import entry_folder

from .results import Row, StudyResults

MOST_BYTES = 200_000_000  # of all files together, which are read; beyond, sizes must do


def damage(
    results: StudyResults, rows: Iterable[Row], *, most_bytes: int = MOST_BYTES
) -> dict[int, str]:
    """What is wrong with the files of these rows, by number; empty where all is as measured.

    Files must be there in their sizes; the first ones, as far as `most_bytes` reach, are compared
    with their SHA-256 as well. `export` and `verify` always compare them.
    """
    known: dict[str, str] = {}
    for row in rows:
        artifact = row.trial.artifact
        if artifact is not None and artifact.sha256 not in known:
            reads = artifact.size_bytes <= most_bytes
            most_bytes -= artifact.size_bytes if reads else 0
            folder = entry_folder(results.store.artifacts.root, artifact.sha256)
            known[artifact.sha256] = next(_differences(folder, artifact, reads=reads), "")
    return {
        row.number: known[row.trial.artifact.sha256]
        for row in rows
        if row.trial.artifact is not None and known[row.trial.artifact.sha256]
    }


def _differences(folder: Path, artifact: Artifact, *, reads: bool) -> Iterator[str]:
    for file in artifact.files:
        try:
            found = _difference(folder / file.name, file, reads=reads)
        except FileNotFoundError:
            found = "is missing"
        except OSError as error:
            found = f"cannot be read ({error.strerror})"
        if found:
            yield f"{file.name} {found}"


def _difference(path: Path, file: File, *, reads: bool) -> str:
    size = path.stat().st_size
    if size != file.size_bytes:
        return f"has {size} bytes, not the {file.size_bytes} that were measured"
    if not reads:
        return ""
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return "" if digest == file.sha256 else "is not the file that was measured (SHA-256)"
