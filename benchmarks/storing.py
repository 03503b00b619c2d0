"""What storing and reading a trial costs, ours and plain Optuna's by turns in one run."""

from __future__ import annotations

import gc
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console

from storage import Store

from .asking import asking
from .free_study import OurStudy, no_op, run_search
from .optuna_store import OptunaStudy
from .parallel import workers
from .terminal import CONTEXT_SETTINGS, markdown_table, show

IN_A_ROW = 4
Action = Callable[[], object]


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--knobs", multiple=True, type=int, default=(20, 200), help="Sizes of the space.")
@click.option("--trials", multiple=True, type=int, default=(1000, 5000), help="Stored before.")
@click.option("--rounds", default=15, type=click.IntRange(3), help="Times each, by turns.")
@click.option("--readers", default=10, type=click.IntRange(1), help="Pollers of `best`.")
@click.option("--seconds", default=20.0, help="Of each search beside the readers, and without.")
@click.option("--searches", default=1, help="Of one and of two workers, by turns; 0 for none.")
def main(
    knobs: tuple[int, ...],
    trials: tuple[int, ...],
    rounds: int,
    readers: int,
    seconds: float,
    searches: int,
) -> None:
    """Time propose + finish and opening a study against plain Optuna's RDB storage (both SQLite,
    WAL, synchronous=NORMAL), the controller without evaluations, readers beside it, and one
    worker against two."""
    console = Console(stderr=True)
    parts = []
    with tempfile.TemporaryDirectory(prefix="naslite-store-") as scratch:
        folder = Path(scratch)
        console.print("storing and opening ...")
        cases = [(k, n) for k in knobs for n in trials]
        parts.append(("a trial, and opening a study", _storing(folder, cases, rounds, console)))
        console.print("a question in a process of its own ...")
        largest = OurStudy(folder / "asked.db", max(knobs))
        parts.append(("a new question", asking(largest, max(knobs), max(trials))))
        console.print("the controller without evaluations ...")
        parts.append(("trials per second", _controller(folder, knobs)))
        console.print(f"{readers} readers ...")
        parts.append(("readers beside a search", _readers(folder, readers, seconds)))
        if searches:
            console.print("one worker and two ...")
            parts.append(("a search that trains", workers(folder, searches)))
    for title, rows in parts:
        show(rows, title)
    click.echo(f"`python {shlex.join(sys.argv)}`\n")
    for _, rows in parts:
        click.echo("\n".join(markdown_table(rows)) + "\n")


def _storing(
    folder: Path, cases: list[tuple[int, int]], rounds: int, console: Console
) -> list[list[str]]:
    rows = [["knobs", "trials", "what", "ours, ms", "Optuna, ms", "Optuna / ours"]]
    for knobs, trials in cases:
        console.print(f"  {knobs} knobs, {trials} trials")
        ours = OurStudy(folder / f"ours-{knobs}-{trials}.db", knobs)
        optuna = OptunaStudy(folder / f"optuna-{knobs}-{trials}.db", knobs)
        ours.fill(trials)
        optuna.fill(trials)
        for what, first, second, times, between in (
            (
                "propose + finish",
                ours.propose_and_finish,
                optuna.ask_and_tell,
                rounds,
                ours.prepare,
            ),
            ("open for `best`", ours.read, optuna.read, 3, lambda: None),
        ):
            ms, other = _by_turns(first, second, times, between)
            cells = [f"{ms:.2f}", f"{other:.0f}", f"{other / ms:.0f}"]
            rows.append([str(knobs), f"{trials:,}", what, *cells])
    return rows


def _by_turns(first: Action, second: Action, rounds: int, between: Action) -> tuple[float, float]:
    """Medians in ms of two functions that are called by turns, so often in a row that what the
    other one left in the processor's caches matters little; the first turn does not count.

    As in `timeit` no garbage is collected meanwhile. `between` is called after each `first`.
    """
    times: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + 1):
            for which, function in enumerate((first, second)):
                for _ in range(IN_A_ROW):
                    began = time.perf_counter()
                    function()
                    if turn:
                        times[which].append(1000 * (time.perf_counter() - began))
                    if function is first:
                        between()
    finally:
        gc.enable()
    return statistics.median(times[0]), statistics.median(times[1])


def _controller(folder: Path, sizes: tuple[int, ...]) -> list[list[str]]:
    rows = [["knobs", "trials", "trials per second", "ms per trial"]]
    for knobs in sizes:
        for trials in (300, 1000):
            study = OurStudy(folder / f"controller-{knobs}-{trials}.db", knobs)
            study.store.set_budget(study.study, study.owner, trials, None)
            bench = no_op(study)
            began = time.perf_counter()
            run_search(study, bench)
            seconds = time.perf_counter() - began
            rate = f"{trials / seconds:.0f}"
            rows.append([str(knobs), str(trials), rate, f"{1000 * seconds / trials:.2f}"])
    return rows


def _readers(folder: Path, readers: int, seconds: float) -> list[list[str]]:
    """The rate of a search alone, beside processes that read it, and beside as many that never
    look at it but compute for as long, by turns."""
    rates: dict[str, list[float]] = {"alone": [], "read": [], "compute": []}
    errors, cpu_s = 0, 0.0
    for turn in range(3):
        for what, found in rates.items():
            study = OurStudy(folder / f"readers-{turn}-{what}.db", 20)
            code = READER if what == "read" else f"SECONDS = {cpu_s}\n{COMPUTER}"
            others = [_other(code, study.url) for _ in range(readers if what != "alone" else 0)]
            for process in others:
                assert process.stdout is not None
                process.stdout.readline()  # it has begun
            found.append(_rate(study, seconds))
            ends = [_ended(process) for process in others]
            if what == "read":
                cpu_s = statistics.mean(cpu for cpu, _ in ends)
                errors += sum(failed for _, failed in ends)
    alone, beside, computed = (statistics.median(values) for values in rates.values())
    header = ["beside it", "trials per second", "share of the rate alone", "with an error"]
    return [
        header,
        ["nothing", f"{alone:.0f}", "1.00", ""],
        [f"{readers} readers", f"{beside:.0f}", f"{beside / alone:.2f}", str(errors)],
        [
            f"{readers} others that compute {1000 * cpu_s:.0f} ms a second, as readers do",
            *(f"{computed:.0f}", f"{computed / alone:.2f}", ""),
        ],
    ]


READER = """
import sys, time
from search.results import StudyResults
from storage import Store
turn, began = 0, time.process_time()
while True:
    store = Store(sys.argv[1], create=False)
    StudyResults(store, "s").best() if turn % 2 else store.studies()
    store.close()
    turn += 1
    print((time.process_time() - began) / turn, flush=True)
    time.sleep(1)
"""
COMPUTER = """
import time
while True:
    end = time.process_time() + SECONDS
    while time.process_time() < end:
        pass
    print(SECONDS, flush=True)
    time.sleep(1)
"""


def _other(code: str, url: str) -> subprocess.Popen[str]:
    """A process that goes on until it is ended."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str]) -> tuple[float, bool]:
    """End it: the last number that it printed, and whether it had an error."""
    process.terminate()
    out, err = process.communicate()
    return float((out.split() or ["0"])[-1]), bool(err.strip())


def _rate(study: OurStudy, seconds: float) -> float:
    """Trials per second of a search that is stopped after so many seconds."""
    bench = no_op(study)
    began = time.perf_counter()
    timer = threading.Timer(seconds, lambda: Store(study.url).add_request(study.study, "stop"))
    timer.start()
    run_search(study, bench)
    return (len(study.store.trials(study.study, stages=False)) - 1) / (time.perf_counter() - began)
