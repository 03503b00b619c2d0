"""The command line of the benchmark: many runs on all cores, then the report."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import strategies
from search.errors import NasliteError
from search.registry import known_names

from .catalogue import known_problems, load_problem
from .contestants import PEER, Contestant
from .peers import PEERS
from .plot import draw
from .pool import Task, run_all
from .problem import Problem
from .summary import Result, markdown, table, write_csv

QUICK_SEEDS, QUICK_BUDGET = 2, 60
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 99,
        "show_default": True,
    }
)
@click.option("--problem", "problems", multiple=True, help="See --list, or a FILE.yaml.")
@click.option(
    "--strategy",
    "contestants",
    multiple=True,
    help="NAME, FILE.py:Class, peer:NAME, or '{name: greedy, step: once}'.",
)
@click.option("--seeds", default=20, type=click.IntRange(1), help="Runs of each pair.")
@click.option("--budget", default=600, type=click.IntRange(2), help="Evaluations of a run.")
@click.option("--lag", default=1, type=click.IntRange(1), help="As of a study with workers.")
@click.option("--data", type=FOLDER, envvar="NASLITE_BENCH_DATA", help="Folder of the tables.")
@click.option("--out", type=FOLDER, default=Path("build/benchmark"), help="Folder of the results.")
@click.option("--jobs", default=os.cpu_count(), type=click.IntRange(1), help="Processes.")
@click.option("--quick", is_flag=True, help="A smoke run: few seeds, a small budget.")
@click.option("--list", "listing", is_flag=True, help="List problems, strategies and peers.")
@click.option("--no-plot", is_flag=True, help="Leave the pictures out.")
def command(
    problems: tuple[str, ...],
    contestants: tuple[str, ...],
    seeds: int,
    budget: int,
    lag: int,
    data: Path | None,
    out: Path,
    jobs: int,
    quick: bool,
    listing: bool,
    no_plot: bool,
) -> None:
    """Rank strategies by the evaluations they need on problems with a known answer."""
    if listing:
        _list()
        return
    if quick:
        seeds, budget = QUICK_SEEDS, QUICK_BUDGET
    chosen = _contestants(contestants or ("random",))
    cache = out / "cache"
    loaded: dict[str, tuple[str, Problem]] = {}  # name in the report -> as it was given
    for name in dict.fromkeys(problems or ("macro-flops",)):
        problem = load_problem(name, data, cache)
        if problem.name in loaded:
            raise NasliteError(f"--problem {name!r}: {problem.name!r} is given twice")
        loaded[problem.name] = (name, problem)
    tasks = []
    for given, problem in loaded.values():
        for contestant in chosen:
            reasons = contestant.problems(problem)
            if reasons:
                click.echo(f"{contestant.label} leaves {problem.name} out: {reasons[0]}", err=True)
                continue
            tasks += [Task(given, contestant, s, budget, lag, data, cache) for s in range(seeds)]
    names = {given: name for name, (given, _) in loaded.items()}
    results = _results(tasks, names, jobs)
    if not results:
        raise NasliteError("no strategy can search any of the problems")
    _report(
        {name: problem for name, (_, problem) in loaded.items()}, results, budget, out, no_plot
    )


def _contestants(texts: Sequence[str]) -> list[Contestant]:
    chosen = [Contestant.parse(text) for text in texts]
    labels = [contestant.label for contestant in chosen]
    for label in labels:
        if labels.count(label) > 1:
            raise NasliteError(f"--strategy {label!r} is given twice; add `label:` to one")
    return chosen


def _results(tasks: Sequence[Task], names: Mapping[str, str], jobs: int) -> list[Result]:
    """In the order of the tasks, whichever ends first."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )
    runs = {}
    # The seeds first: a picture of all pairs early, and the long ones do not come last.
    order = sorted(range(len(tasks)), key=lambda position: tasks[position].seed)
    with progress:
        bar = progress.add_task("runs", total=len(tasks))
        for place, run in run_all([tasks[position] for position in order], jobs):
            runs[order[place]] = run
            progress.advance(bar)
    return [
        Result(names[task.problem], task.contestant.label, task.seed, runs[position])
        for position, task in enumerate(tasks)
    ]


def _report(
    problems: Mapping[str, Problem],
    results: Sequence[Result],
    budget: int,
    out: Path,
    no_plot: bool,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_csv(results, out)
    said = "python benchmarks/strategies.py " + shlex.join(sys.argv[1:])
    (out / "report.md").write_text(markdown(problems, results, budget, said), encoding="utf-8")
    console = Console(width=None if sys.stdout.isatty() else 140)
    for name, problem in problems.items():
        own = [result for result in results if result.problem == name]
        if not own:
            continue
        header, *rows = table(own, budget)
        shown = Table(*header, title=f"{name}, budget {budget}", title_justify="left")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)
        if not no_plot:
            draw(problem.title, own, budget, out / f"{name}.png")
    click.echo(f"written: {out}/report.md, runs.csv, curves.csv" + ", *.png" * (not no_plot))


def _list() -> None:
    click.echo("problems:   " + " ".join(known_problems()))
    click.echo("strategies: " + " ".join(known_names("strategies", strategies.BUILTIN)))
    click.echo("peers:      " + " ".join(PEER + name for name in PEERS))


def main() -> None:
    """Errors of the user are one line and exit code 2."""
    try:
        command()
    except NasliteError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
