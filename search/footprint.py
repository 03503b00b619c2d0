"""What a file weighs in a process of its own: the time of loading it, and memory at its peak."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np

from . import runtimes
from .registry import load
from .runtimes.base import renamed

BOOTSTRAP = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from search.footprint import main; main()"
)
TIMEOUT_S = 120.0

log = logging.getLogger("naslite.search")


def footprint(
    runtime: str, folder: str, path: Path, threads: int, feed: Mapping[str, np.ndarray]
) -> tuple[float, int] | None:
    """Milliseconds of loading a file, and the bytes by which that and one call raise the peak of
    the resident memory of a fresh process; None, and a word in the log, if it fails.

    The process belongs to our group: whoever kills that kills it too.

    Args:
        runtime: Its name, or `file.py:Class` in `folder`.
        feed: Of the largest batch.
    """
    search_path = json.dumps([os.path.abspath(entry) for entry in sys.path])
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", BOOTSTRAP, search_path],
            input=pickle.dumps((runtime, folder, path, threads, dict(feed))),
            capture_output=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        # A runtime may print, too; the last line is ours.
        load_ms, peak_bytes = json.loads(done.stdout.splitlines()[-1])
        return float(load_ms), int(peak_bytes)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else str(error)
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError, MemoryError) as error:
        reason = str(error)
    log.warning("%s: memory and load time are not measured: %s", path.name, reason)
    return None


def main() -> None:
    """Measure what stdin asks for; one line of JSON on stdout."""
    runtime, folder, path, threads, feed = pickle.load(sys.stdin.buffer)
    found = load("runtime", "runtimes", runtime, runtimes.BUILTIN, Path(folder))()
    for module in getattr(found, "modules", ()):  # the library itself is not the file's
        import_module(module)
    before = _peak_bytes(reset=True)
    began = time.perf_counter()
    session = found.load(path, threads=threads)
    seconds = time.perf_counter() - began
    session(renamed(feed, session.input_names))
    print(f"\n{json.dumps([seconds * 1e3, max(0, _peak_bytes() - before)])}", flush=True)
    os._exit(0)  # what the runtime does at exit is not ours to wait for


def _peak_bytes(*, reset: bool = False) -> int:
    """Resident memory of this process at its peak, since it was reset where that can be done.

    Linux's ru_maxrss would begin with the peak of the process that started us (getrusage(2)).
    """
    try:
        if reset:
            with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # proc(5): the peak becomes what is resident now
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if "VmHWM" in line) * 1024
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
