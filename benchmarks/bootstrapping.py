"""How often bootstrap bounds of a drop miss a true drop that is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from search.paired import Score, drop_bounds

HUGE = 2_000_000  # samples whose drop is as good as the true one

Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


def mean(records: np.ndarray) -> float:
    return float(records.mean())


def pearson(records: np.ndarray) -> float:
    """Of columns 0 and 1; of ranks it is Spearman's, which takes ten times as long."""
    x, y = (records - records.sum(0) / len(records)).T
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


def f1(records: np.ndarray) -> float:
    """Of predictions and labels, columns 0 and 1."""
    return float(2 * (records[:, 0] @ records[:, 1]) / records.sum())


def perplexity(records: np.ndarray) -> float:
    """Of the mean loss of each sample; negative, so that higher is better."""
    return -float(np.exp(records.mean()))


def losses(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of two models: skewed, and much alike."""
    reference = rng.gamma(2.0, 0.5, size=n)
    return reference, reference * rng.lognormal(0.02, 0.2, size=n)


def correlated(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two models beside the truth."""
    truth, noise = rng.normal(size=n), rng.normal(size=n)
    reference = truth + 0.5 * noise
    records = reference + 0.2 * rng.normal(size=n)
    return np.column_stack([reference, truth]), np.column_stack([records, truth])


def classified(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two models beside labels, 3 in 10 positive; they differ on 1 in 10."""
    labels = rng.random(n) < 0.3
    reference = labels ^ (rng.random(n) < 0.1)
    records = reference ^ (rng.random(n) < 0.1)
    pairs = [np.column_stack([given, labels]).astype(float) for given in (reference, records)]
    return pairs[0], pairs[1]


SCORES: dict[str, tuple[Score, Draw]] = {
    "mean of losses": (lambda records: -mean(records), losses),
    "perplexity": (perplexity, losses),
    "correlation": (pearson, correlated),
    "F1": (f1, classified),
}


@cache
def true_drop(name: str) -> float:
    score, draw = SCORES[name]
    reference, records = draw(HUGE, np.random.default_rng(0))
    return float(score(reference)) - float(score(records))


def errors_of_bootstrap(name: str, n: int, draws: int, seed: int) -> tuple[float, float, float]:
    """How often the true drop lies below the lower bound, and above the upper one; and it."""
    score, draw = SCORES[name]
    rng, drop = np.random.default_rng(seed), true_drop(name)
    below = above = 0
    for position in range(draws):
        reference, records = draw(n, rng)
        bounds = drop_bounds(score, reference, records, higher_is_better=True, seed=position)
        low, high = bounds or (-math.inf, math.inf)
        below += drop < low
        above += drop > high
    return below / draws, above / draws, drop
