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

import strategies
from search.errors import NasliteError
from search.registry import known_names

from .catalogue import SYNTHETIC, known_problems, load_problem
from .contestants import PEER, Contestant
from .peers import PEERS, POPULATION
from .plot import draw
from .pool import Failed, Task, run_all
from .problem import Problem
from .ranking import overall
from .report import markdown, problem_table
from .summary import Failure, Result, write_csv
from .terminal import CONTEXT_SETTINGS, main_of, show

DEFAULTS = (  # all of ours but Gaussian processes, which take hours for what others do in minutes
    "random",
    "{name: greedy, step: once}",
    "{name: greedy, step: best}",
    "genetic",
    "tpe",
    f"{{name: optuna, sampler: nsgaii, population_size: {POPULATION}}}",
)
WITHOUT_DATA = tuple(name for name, (layers, _) in SYNTHETIC.items() if layers == 20)
WITH_DATA = ("macro-flops",)
QUICK_SEEDS, QUICK_BUDGET = 2, 60
FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--problem",
    "problems",
    multiple=True,
    help="See --list, or a FILE.yaml; default: macro-flops, without --data 20 synthetic layers.",
)
@click.option(
    "--strategy",
    "contestants",
    multiple=True,
    help="NAME, FILE.py:Class, peer:NAME, or '{name: greedy, step: once}'; default: ours but gp.",
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
    chosen = _contestants(contestants or DEFAULTS)
    cache = out / "cache"
    loaded: dict[str, tuple[str, Problem]] = {}  # name in the report -> as it was given
    for name in dict.fromkeys(problems or (WITH_DATA if data else WITHOUT_DATA)):
        problem = load_problem(name, data, cache)
        if problem.name in loaded:
            raise NasliteError(f"--problem {name!r}: {problem.name!r} is given twice")
        loaded[problem.name] = (name, problem)
    tasks = []
    for given, problem in loaded.values():
        for contestant in chosen:
            reasons = contestant.problems(problem, lag)
            if reasons:
                click.echo(f"{contestant.label} leaves {problem.name} out: {reasons[0]}", err=True)
                continue
            tasks += [Task(given, contestant, s, budget, lag, data, cache) for s in range(seeds)]
    if not tasks:
        raise NasliteError("no strategy can search any of the problems")
    results, failures = _run(tasks, {given: name for name, (given, _) in loaded.items()}, jobs)
    read = {name: problem for name, (_, problem) in loaded.items()}
    _report(read, results, failures, budget, out, no_plot)
    if failures:
        sys.exit(1)


def _contestants(texts: Sequence[str]) -> list[Contestant]:
    chosen = [Contestant.parse(text) for text in texts]
    labels = [contestant.label for contestant in chosen]
    for label in labels:
        if labels.count(label) > 1:
            raise NasliteError(f"--strategy {label!r} is given twice; add `label:` to one")
    return chosen


def _run(
    tasks: Sequence[Task], names: Mapping[str, str], jobs: int
) -> tuple[list[Result], list[Failure]]:
    """In the order of the tasks, whichever ends first; failures are printed at once."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
    )
    results: dict[int, Result] = {}
    failures: dict[int, Failure] = {}
    # The seeds first: a picture of all pairs early, and the long ones do not come last.
    order = sorted(range(len(tasks)), key=lambda position: tasks[position].seed)
    with progress:
        bar = progress.add_task("runs", total=len(tasks))
        for place, run in run_all([tasks[position] for position in order], jobs):
            task = tasks[order[place]]
            what = names[task.problem], task.contestant.label, task.seed
            if isinstance(run, Failed):
                failure = failures[order[place]] = Failure(*what, run.cause)
                progress.console.print(
                    f"error: {failure}", markup=False, highlight=False, soft_wrap=True
                )
            else:
                results[order[place]] = Result(*what, run)
            progress.advance(bar)
    return [results[i] for i in sorted(results)], [failures[i] for i in sorted(failures)]


def _report(
    problems: Mapping[str, Problem],
    results: Sequence[Result],
    failures: Sequence[Failure],
    budget: int,
    out: Path,
    no_plot: bool,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_csv(results, failures, out)
    said = "python benchmarks/strategies.py " + shlex.join(sys.argv[1:])
    report = markdown(problems, results, failures, budget, said.strip())
    (out / "report.md").write_text(report, encoding="utf-8")
    for name, problem in problems.items():
        rows = problem_table(name, results, failures, budget)
        if len(rows) > 1:
            show(rows, f"{name}, budget {budget}, the best first")
        own = [result for result in results if result.problem == name]
        if own and not no_plot:
            draw(problem.title, own, budget, out / f"{name}.png")
    ranked = overall(results, budget)
    if len(ranked) > 2:
        count = len({result.problem for result in results})
        show(ranked, f"mean ranks over {count} problem{'s' * (count != 1)}, the best first")
    click.echo(f"written: {out}/report.md, runs.csv, curves.csv" + ", *.png" * (not no_plot))


def _list() -> None:
    click.echo("problems:   " + " ".join(known_problems()))
    click.echo("strategies: " + " ".join(known_names("strategies", strategies.BUILTIN)))
    click.echo("peers:      " + " ".join(PEER + name for name in PEERS))


def main() -> None:
    main_of(command)
