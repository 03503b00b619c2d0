"""Hypervolume against evaluations, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import NasliteError

from .race import Run
from .summary import Result

FLOOR = 1e-3  # what the best seldom pass: the axis ends here


def curve(run: Run, budget: int) -> np.ndarray[Any, Any]:
    """The share of the true hypervolume after 1, 2, ... `budget` evaluations."""
    shares = np.zeros(budget)
    for evaluations, share in run.steps:
        shares[evaluations - 1 :] = share
    return shares


def draw(title: str, results: Sequence[Result], budget: int, path: Path) -> None:
    """A PNG: median and quartiles of every strategy's share over the evaluations.

    Raises:
        NasliteError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise NasliteError("pictures need matplotlib: pip install 'naslite[bench]'") from None

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    evaluations = np.arange(1, budget + 1)
    for strategy in dict.fromkeys(result.strategy for result in results):
        runs = [result.run for result in results if result.strategy == strategy]
        missing = 1 - np.array([curve(run, budget) for run in runs])
        low, median, high = np.quantile(np.maximum(missing, FLOOR), [0.25, 0.5, 0.75], axis=0)
        (line,) = axes.step(evaluations, median, where="post", label=strategy)
        axes.fill_between(
            evaluations, low, high, step="post", alpha=0.15, color=line.get_color(), lw=0
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    shown = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
    axes.set_yticks(
        [1 - share for share in shown], [f"{share:.1%}" for share in shown], minor=False
    )
    axes.set_yticks([], minor=True)
    axes.set_xlim(1, budget)
    axes.set_xlabel("evaluations, the baseline included")
    axes.set_ylabel("share of the true hypervolume")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
