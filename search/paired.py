"""How sure a score is, and the drop from another one on the same samples."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .tango import drop_interval, wilson

ALPHA = 0.05  # of a one-sided bound
LEVEL = 0.95  # of a two-sided interval

RESAMPLES = 1000
LEAST_RESAMPLES = 200  # of a slow score: the 5 % quantile is then the tenth value
SLOW_S = 0.02  # which one call of a slow score takes
BLOCK = 4_000_000  # drawn at a time: 32 MB
UNDEFINED = 0.01  # share of resamples that may have no score, such as F1 without a positive
LEAST_DIFFERING = 10  # samples on which a bootstrap of a drop can rest

Score = Callable[[np.ndarray], float]


def score_interval(score: Score, records: np.ndarray, seed: int) -> tuple[float, float] | None:
    """A two-sided 95 % interval of the score of all records.

    Wilson's for the mean of zeros and ones; else the percentile bootstrap over samples (Efron and
    Tibshirani 1993, An Introduction to the Bootstrap, section 13.3). None where too many
    resamples have no score.
    """
    is_mean = _is_mean(score, records, seed)
    if is_mean and _is_binary(records):
        return wilson(float(records.sum()), len(records), LEVEL)
    draws = _resampled(score, (records,), is_mean, seed)
    return _quantiles(draws, (1 - LEVEL) / 2, float(score(records)))


def drop_bounds(
    score: Score,
    reference: np.ndarray,
    records: np.ndarray,
    *,
    higher_is_better: bool,
    seed: int,
    alpha: float = ALPHA,
) -> tuple[float, float] | None:
    """One-sided bounds below and above, each of level 1 - alpha, of the drop of a score.

    Tango's for the mean of zeros and ones; else the paired percentile bootstrap: the same samples
    are drawn of both, and the drop of their scores is taken, so a score of the whole set
    (Spearman, F1, perplexity) is as good as a mean.

    Args:
        reference: The records that the score is compared with, of the same samples.

    Returns:
        None where nothing is known: the records are not of the same samples, so few differ that a
        bootstrap knows nothing, or too many resamples have no score.
    """
    if reference.shape != records.shape:
        return None
    is_mean = _is_mean(score, records, seed) and _is_mean(score, reference, seed)
    sign = 1.0 if higher_is_better else -1.0
    if is_mean and _is_binary(records) and _is_binary(reference):
        worse = sign * (reference.astype(float) - records.astype(float))
        losses, gains = int((worse > 0).sum()), int((worse < 0).sum())
        return drop_interval(losses, gains, len(records), alpha)
    if (reference != records).reshape(len(records), -1).any(axis=1).sum() < LEAST_DIFFERING:
        return None
    draws = sign * _resampled(score, (reference, records), is_mean, seed)
    return _quantiles(draws, alpha, sign * (float(score(reference)) - float(score(records))))


def _is_mean(score: Score, records: np.ndarray, seed: int) -> bool:
    """Whether a score is the mean of one number per sample, on all records and on resamples."""
    if records.ndim != 1 or records.dtype.kind not in "biuf":
        return False
    rng = np.random.default_rng(seed)
    size = len(records)
    picks = [np.arange(size), *(rng.integers(size, size=size) for _ in range(3))]
    with _quiet():
        return all(
            np.isclose(_defined(score, records[pick]), records[pick].mean(), rtol=1e-6, atol=1e-12)
            for pick in picks
        )


def _is_binary(records: np.ndarray) -> bool:
    return bool(np.isin(records, (0, 1)).all())


def _resampled(
    score: Score, arrays: tuple[np.ndarray, ...], is_mean: bool, seed: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The score of bootstrap samples, or the first's minus the second's; NaN where undefined."""
    rng, size = np.random.default_rng(seed), len(arrays[0])
    if is_mean:
        first, *others = (array.astype(float) for array in arrays)
        values = first - others[0] if others else first
        rows = max(1, BLOCK // size)
        counts = [min(rows, RESAMPLES - at) for at in range(0, RESAMPLES, rows)]
        return np.concatenate(
            [values[rng.integers(size, size=(count, size))].mean(axis=1) for count in counts]
        )
    began = time.perf_counter()
    with _quiet():
        _defined(score, arrays[0])
    is_slow = time.perf_counter() - began > SLOW_S
    times = LEAST_RESAMPLES if is_slow else RESAMPLES  # the first ones are the same
    drawn = np.empty(times)
    with _quiet():
        for position in range(times):
            pick = rng.integers(size, size=size)
            scores = [_defined(score, array[pick]) for array in arrays]
            drawn[position] = scores[0] - scores[1] if len(scores) > 1 else scores[0]
    return drawn


@contextmanager
def _quiet() -> Iterator[None]:
    """Resamples without a score are counted, not warned of."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _defined(score: Score, records: np.ndarray) -> float:
    """A score; NaN where it has none, whatever a task does about that."""
    try:
        found = float(score(records))
    except Exception:
        return float("nan")
    return found if np.isfinite(found) else float("nan")


def _quantiles(draws: np.ndarray, alpha: float, value: float) -> tuple[float, float] | None:
    """The ends of what was drawn, and the value itself between them."""
    defined = draws[np.isfinite(draws)]
    if len(defined) < (1 - UNDEFINED) * len(draws):
        return None
    low, high = np.quantile(defined, (alpha, 1 - alpha))
    return min(float(low), value), max(float(high), value)
