"""What many runs say: evaluations to a share of the hypervolume, as CSV and Markdown."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .problem import Problem
from .race import Run

SHARES = (0.90, 0.95, 0.98, 0.99)


@dataclass(frozen=True, slots=True)
class Result:
    """One run and what it was a run of."""

    problem: str
    strategy: str
    seed: int
    run: Run


def quantile(counts: Iterable[int | None], share: float) -> float:
    """A quantile, interpolated linearly; None (not reached) counts as infinite."""
    ordered = sorted(math.inf if count is None else float(count) for count in counts)
    position = share * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    if low == high:  # also where both are infinite
        return low
    return low + (high - low) * (position - math.floor(position))


def evaluations_text(counts: Sequence[int | None], budget: int) -> str:
    """`84 (71-120)`: median and quartiles; `> 600` where a run of that rank did not get there."""
    low, median, high = (quantile(counts, share) for share in (0.25, 0.5, 0.75))
    if math.isinf(low):
        return f"> {budget}"
    shown = [f"> {budget}" if math.isinf(value) else f"{value:.0f}" for value in (low, high)]
    middle = f"> {budget}" if math.isinf(median) else f"{median:g}"
    return f"{middle} ({'-'.join(shown)})"


def table(results: Sequence[Result], budget: int) -> list[list[str]]:
    """Header and rows, one per strategy, in the order of the results."""
    header = ["strategy", *(f"{share:.0%}" for share in SHARES)]
    header += [f"at {budget}", "repeats", "refused", "ms"]
    rows = [header]
    for strategy in dict.fromkeys(result.strategy for result in results):
        runs = [result.run for result in results if result.strategy == strategy]
        evaluations = sum(run.evaluations for run in runs)
        rows.append(
            [
                strategy,
                *(
                    evaluations_text([run.evaluations_to(share) for run in runs], budget)
                    for share in SHARES
                ),
                f"{np.median([run.final for run in runs]):.1%}",
                f"{sum(run.repeats for run in runs) / evaluations:.1%}",
                f"{sum(run.refused for run in runs) / evaluations:.1%}",
                f"{1000 * sum(run.seconds for run in runs) / evaluations:.2f}",
            ]
        )
    return rows


def markdown(
    problems: Mapping[str, Problem], results: Sequence[Result], budget: int, command: str
) -> str:
    """The whole report."""
    seeds = len({result.seed for result in results})
    lines = [
        "# Strategies compared",
        "",
        f"    {command}",
        "",
        f"Evaluations until 90 / 95 / 98 / 99 % of the true hypervolume: median and quartiles of"
        f" {seeds} seeds; `> {budget}`: a run of that rank did not get there within the budget of"
        f" {budget}. The baseline is the first evaluation of everybody. `at {budget}`: median"
        " share then. `repeats`: proposals equal to an earlier one of the run; they count as"
        " evaluations. `ms`: mean time per proposal. With noise a strategy sees single"
        " measurements, and the hypervolume is that of the true means of what it evaluated.",
    ]
    for name, problem in problems.items():
        own = [result for result in results if result.problem == name]
        if not own:
            continue
        facts = "; ".join(f"{key}: {text}" for key, text in problem.facts.items())
        corner = ", ".join(
            f"{objective} {abs(value):.6g}"
            for objective, value in zip(problem.objectives, problem.reference, strict=True)
        )
        lines += ["", f"## {name}", "", f"{problem.title}. {facts}; reference: {corner}.", ""]
        rows = table(own, budget)
        lines += [_markdown_row(rows[0]), _markdown_row(["---"] * len(rows[0]))]
        lines += [_markdown_row(row) for row in rows[1:]]
    return "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_csv(results: Sequence[Result], folder: Path) -> None:
    """`runs.csv`, one row per run, and `curves.csv`, one row per growth of the hypervolume.

    Only `seconds` differs when a benchmark is run again.
    """
    columns = ["problem", "strategy", "seed"]
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        reached = [f"to_{100 * share:g}" for share in SHARES]
        counts = ["final_share", "evaluations", "repeats", "refused", "seconds"]
        writer.writerow([*columns, *reached, *counts])
        for result in results:
            run = result.run
            to = [run.evaluations_to(share) for share in SHARES]
            rest = [run.final, run.evaluations, run.repeats, run.refused, round(run.seconds, 4)]
            writer.writerow([result.problem, result.strategy, result.seed, *to, *rest])
    with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "evaluations", "share"])
        for result in results:
            for evaluations, share in result.run.steps:
                writer.writerow([result.problem, result.strategy, result.seed, evaluations, share])
