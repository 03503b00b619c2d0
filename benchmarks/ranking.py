"""Who is best: on one problem, and over all problems of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .summary import Mark, Result, quantile

RANKED_AT = (0.95, 0.98)


def standings(
    results: Sequence[Result], budget: int, share: float
) -> dict[str, tuple[float, ...]]:
    """For each strategy of one problem what it is ranked by; smaller is better.

    The median of the evaluations to the share. Where that is not reached, after all others, the
    median share at the end.
    """
    found = {}
    for strategy in dict.fromkeys(result.strategy for result in results):
        runs = [result.run for result in results if result.strategy == strategy]
        median = quantile([Mark.of(run, share, budget) for run in runs], 0.5)
        if median.is_reached:
            found[strategy] = (median.evaluations, 0.0)
        else:
            found[strategy] = (math.inf, -round(float(np.median([r.final for r in runs])), 9))
    return found


def best_first(results: Sequence[Result], budget: int) -> list[str]:
    """The strategies of one problem by their standing at 95 %, ties by that at 98 %."""
    first, second = (standings(results, budget, share) for share in RANKED_AT)
    return sorted(first, key=lambda strategy: (first[strategy], second[strategy]))


def ranks(results: Sequence[Result], budget: int, share: float) -> dict[str, float]:
    """1 for the best strategy of one problem; equal ones share the mean of their ranks."""
    by = standings(results, budget, share)
    return {
        strategy: 1 + sum(o < own for o in by.values()) + (list(by.values()).count(own) - 1) / 2
        for strategy, own in by.items()
    }


def overall(results: Sequence[Result], budget: int) -> list[list[str]]:
    """Header and rows: every strategy's mean rank over the problems, the best first.

    A strategy that has not run on all problems comes after those that have.
    """
    problems = list(dict.fromkeys(result.problem for result in results))
    collected: dict[str, list[list[float]]] = {}  # strategy -> problem -> rank at each share
    for problem in problems:
        own = [result for result in results if result.problem == problem]
        places = [ranks(own, budget, share) for share in RANKED_AT]
        for strategy in places[0]:
            collected.setdefault(strategy, []).append([place[strategy] for place in places])
    means = {strategy: np.mean(rows, axis=0) for strategy, rows in collected.items()}
    order = sorted(means, key=lambda s: (-len(collected[s]), means[s].mean(), means[s][0]))
    header = ["strategy", "mean rank", *(f"at {share:.0%}" for share in RANKED_AT), "problems"]
    rows = [header]
    for strategy in order:
        numbers = [means[strategy].mean(), *means[strategy]]
        ran = f"{len(collected[strategy])} of {len(problems)}"
        rows.append([strategy, *(f"{number:.2f}" for number in numbers), ran])
    return rows
