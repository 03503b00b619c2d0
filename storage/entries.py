"""What lies in the folder of a content store."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "entry.json"
NEW = "new-"  # a folder that becomes an entry when it is complete
OLD = "old-"  # an entry that is being deleted

# Anything else that looking at files may raise (too many open files, a failing disk) does not
# say that one is missing.
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it lies on the disk, intact or not.

    Args:
        used_at: When it was made, or read last (Unix seconds).
    """

    key: str
    size_bytes: int
    used_at: float


def entry_folder(root: Path, key: str) -> Path:
    return root / key[:2] / key


def list_entries(root: Path) -> list[Entry]:
    """All entries; files and folders that are none are left out."""
    return [
        Entry(folder.name, size_of(folder), used_at(folder))
        for prefix in _subfolders(root)
        if re.fullmatch("[0-9a-f]{2}", prefix.name)
        for folder in _subfolders(prefix)
        if re.fullmatch(f"{prefix.name}[0-9a-f]+", folder.name)
    ]


def list_leftovers(root: Path) -> list[Path]:
    """The folders of puts and removals that are under way, or whose process was killed."""
    return [folder for folder in _subfolders(root) if folder.name.startswith((NEW, OLD))]


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder; those that vanish meanwhile count or not."""
    total = 0
    with suppress(*MISSING), os.scandir(folder) as files:
        for file in files:
            with suppress(*MISSING):
                total += file.stat(follow_symlinks=False).st_size
    return total


def used_at(folder: Path) -> float:
    """When an entry was made or read last (Unix seconds); 0 if it is gone."""
    for path in (folder / MANIFEST, folder):
        with suppress(*MISSING):
            return path.stat().st_mtime
    return 0.0


def changed_at(folder: Path) -> float:
    """When something in a folder was written last (Unix seconds); 0 if it is gone."""
    moments = [0.0]
    with suppress(*MISSING):
        moments.append(folder.stat().st_mtime)
    with suppress(*MISSING), os.scandir(folder) as files:
        for file in files:
            with suppress(*MISSING):
                moments.append(file.stat(follow_symlinks=False).st_mtime)
    return max(moments)


def _subfolders(folder: Path) -> list[Path]:
    with suppress(*MISSING), os.scandir(folder) as found:
        return sorted(Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False))
    return []
