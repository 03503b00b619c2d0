"""What many runs say: evaluations to a share of the hypervolume, as a table and as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .race import Run

SHARES = (0.90, 0.95, 0.98, 0.99)


@dataclass(frozen=True, slots=True)
class Result:
    """One run and what it was a run of."""

    problem: str
    strategy: str
    seed: int
    run: Run


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that did not come to its end, and its cause in one line."""

    problem: str
    strategy: str
    seed: int
    cause: str

    def __str__(self) -> str:
        return f"{self.strategy} on {self.problem}, seed {self.seed}: {self.cause}"


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """When a run reached a share, or why it did not; the earlier the smaller.

    Args:
        kind: 0 = reached it, 1 = used its budget up, 2 = ended before as nothing was left.
        evaluations: Until then; not a whole number between two runs.
    """

    kind: int
    evaluations: float

    @classmethod
    def of(cls, run: Run, share: float, budget: int) -> Mark:
        reached = run.evaluations_to(share)
        if reached is not None:
            return cls(0, reached)
        return cls(1, budget) if run.evaluations >= budget else cls(2, run.evaluations)

    @property
    def is_reached(self) -> bool:
        return self.kind == 0

    def text(self, form: str = "g") -> str:
        """`84`, `> 600` or `ended at 80`."""
        return ("", "> ", "ended at ")[self.kind] + format(self.evaluations, form)


def quantile(marks: Iterable[Mark], share: float) -> Mark:
    """A quantile, interpolated linearly between runs that got there; else the later of both."""
    ordered = sorted(marks)
    position = share * (len(ordered) - 1)
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    if not high.is_reached:
        return high
    part = position - math.floor(position)
    return Mark(0, low.evaluations + (high.evaluations - low.evaluations) * part)


def marks_text(marks: Sequence[Mark]) -> str:
    """`84 (71 to 120)`: median and quartiles; the median alone where the lower one is missed."""
    low, median, high = (quantile(marks, share) for share in (0.25, 0.5, 0.75))
    if not low.is_reached:
        return median.text()
    return f"{median.text()} ({low.text('.0f')} to {high.text('.0f')})"


def table(
    results: Sequence[Result], failures: Sequence[Failure], budget: int, order: Sequence[str]
) -> list[list[str]]:
    """Header and rows of one problem; a column of failed runs where there are any.

    Args:
        order: The strategies, in the order of their rows.
    """
    header = ["strategy", *(f"{share:.0%}" for share in SHARES)]
    header += [f"at {budget}", "repeats", "refused", "ms", *["failed"] * bool(failures)]
    rows = [header]
    for strategy in order:
        runs = [result.run for result in results if result.strategy == strategy]
        row = [strategy, *(_cells(runs, budget) if runs else ["-"] * (len(SHARES) + 4))]
        if failures:
            failed = sum(failure.strategy == strategy for failure in failures)
            row.append(f"{failed} of {failed + len(runs)}" if failed else "")
        rows.append(row)
    return rows


def _cells(runs: Sequence[Run], budget: int) -> list[str]:
    evaluations = sum(run.evaluations for run in runs)
    return [
        *(marks_text([Mark.of(run, share, budget) for run in runs]) for share in SHARES),
        f"{np.median([run.final for run in runs]):.1%}",
        f"{sum(run.repeats for run in runs) / evaluations:.1%}",
        f"{sum(run.refused for run in runs) / evaluations:.1%}",
        f"{1000 * sum(run.seconds for run in runs) / evaluations:.2f}",
    ]


def write_csv(results: Sequence[Result], failures: Sequence[Failure], folder: Path) -> None:
    """`runs.csv`, one row per run, and `curves.csv`, one row per growth of the hypervolume.

    Of a failed run there is the error alone. Only `seconds` differs when a benchmark is run again.
    """
    columns = ["problem", "strategy", "seed"]
    with (folder / "runs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        reached = [f"to_{100 * share:g}" for share in SHARES]
        counts = ["final_share", "evaluations", "repeats", "refused", "seconds"]
        writer.writerow([*columns, *reached, *counts, "error"])
        for result in results:
            run = result.run
            to = [run.evaluations_to(share) for share in SHARES]
            rest = [run.final, run.evaluations, run.repeats, run.refused, round(run.seconds, 4)]
            writer.writerow([result.problem, result.strategy, result.seed, *to, *rest, ""])
        empty = [""] * (len(reached) + len(counts))
        for failure in failures:
            what = [failure.problem, failure.strategy, failure.seed]
            writer.writerow([*what, *empty, failure.cause])
    with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "evaluations", "share"])
        for result in results:
            for evaluations, share in result.run.steps:
                writer.writerow([result.problem, result.strategy, result.seed, evaluations, share])
