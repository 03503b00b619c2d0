"""Where the workers of a study keep temporary files: what a killed one leaves goes with it."""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .held_file import HeldFile

HELD = "held-by-a-search"  # locked for as long as the folder is in use


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for the workers of one study, removed in the end.

    A controller that is killed leaves it; the next one on the machine removes it, for nobody holds
    it any more. Those of other machines that share the folder for temporary files are let be:
    their locks need not be seen here.
    """
    prefix = f"naslite-workers-{_host()}-"
    _remove_those_left(Path(tempfile.gettempdir()), prefix)
    folder, held = _new(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        held.release()


def _new(prefix: str) -> tuple[Path, HeldFile]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        held = HeldFile(folder / HELD)
        try:
            if held.acquire():
                return folder, held
        except FileNotFoundError:  # taken for a dead process's before we held it
            continue
        except OSError:  # locks are not to be had here: then nobody removes it either
            return folder, held


def _remove_those_left(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        held = HeldFile(folder / HELD)
        with suppress(OSError):
            if held.path.exists() and held.acquire():
                shutil.rmtree(folder, ignore_errors=True)
        held.release()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())
