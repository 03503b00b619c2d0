"""What a new question to a stored study costs in a process that begins for it."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

QUESTION = (
    "--where",
    "structured_pruning.knob0 < 0.9 and accuracy >= 20",
    "--objectives",
    "accuracy: max, macs: min, latency_ms: min",
    "--sort",
    "macs",
    "--limit",
    "10",
)
FRONT = ("--limit", "10")
ROUNDS = 5


class Stored(Protocol):
    """A study named `s` in a store."""

    url: str

    def fill(self, trials: int) -> None: ...


def asking(study: Stored, knobs: int, trials: int) -> list[list[str]]:
    """Seconds of `naslite best` as a shell has them, imports included, for a study's front and
    for other objectives and limits; and of a process that does the imports alone. Beside other
    work the seconds of the processor are what compares."""
    study.fill(trials)
    rows = []
    for what, arguments in (
        ("the front", ("best", "s", "--store", study.url, *FRONT)),
        ("other objectives and limits", ("best", "s", "--store", study.url, *QUESTION)),
        ("the imports alone", None),
    ):
        times, used = [], []
        for _ in range(ROUNDS):
            began, before = time.perf_counter(), _cpu_s()
            _run(arguments)
            times.append(time.perf_counter() - began)
            used.append(_cpu_s() - before)
        cells = [f"{statistics.median(found):.2f}" for found in (times, used)]
        rows.append([str(knobs), f"{trials:,}", what, *cells])
    return [["knobs", "trials", "`naslite best` in a process of its own", "s", "CPU s"], *rows]


def _cpu_s() -> float:
    """Seconds of the processor that ended children have used."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _run(arguments: tuple[str, ...] | None) -> None:
    imports = "from search.build import open_study; import search.cli.best, search.standing"
    work = "from search.cli import main; main()" if arguments else imports
    root = str(Path(__file__).resolve().parent.parent)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {work}"]
    subprocess.run([*command, *(arguments or ())], check=True, stdout=subprocess.DEVNULL)
