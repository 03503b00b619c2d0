"""What a handful of rounds says of the ratio of two times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

# Of a two-sided interval, on either side: less than the 2.5 % of the level that is promised, for
# whoever stops when an interval is narrow chooses those that are too narrow.
TAIL = 0.02
# Of a log ratio: by how much timings of one file at two moments may differ beyond what their
# rounds show; see docs/measuring.md for how it was found.
MOMENT = 0.004
FEWEST = 6  # the median of fewer values has no interval of that level


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval from interpolated order statistics (Hettmansperger and
    Sheather, Confidence intervals based on interpolated order statistics, 1986).

    It asks for no distribution, only for independent values; they are rounds here, each of
    several blocks, for blocks within one share a layout of memory and what the machine is doing.

    Args:
        values: At least `FEWEST`.
    """
    ordered, n = sorted(values), len(values)
    if n < FEWEST:
        raise ValueError(f"an interval of a median needs {FEWEST} values or more, got {n}")
    rank, inner = _ends(n)
    low = (1 - inner) * ordered[rank] + inner * ordered[rank + 1]
    high = (1 - inner) * ordered[-1 - rank] + inner * ordered[-2 - rank]
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return median, min(low, median), max(high, median)  # for rounding


def widened(ratio: float, low: float, high: float, excess: float) -> tuple[float, float]:
    """The ends of a ratio's interval, with an error of the log ratio added in quadrature."""
    if not excess:
        return low, high
    below, above = math.log(ratio / low), math.log(high / ratio)
    return ratio * math.exp(-math.hypot(below, excess)), ratio * math.exp(
        math.hypot(above, excess)
    )


def unexplained(low: float, high: float) -> float:
    """How far the interval of a control lies off 1, as a log ratio; 0 if it contains 1.

    So much of a difference between two copies of one file is neither chance nor the file.
    """
    return max(0.0, math.log(low), -math.log(high))


def noise_floor(low: float, high: float) -> float:
    """The greatest difference from 1 that a control's interval allows for."""
    return max(1 - low, high - 1)


@cache
def _ends(n: int) -> tuple[int, float]:
    """The greatest number of values that may lie outside on either side, and how far an end goes
    from the next value towards the one after that (their interpolation formula)."""
    tails = [sum(math.comb(n, i) for i in range(rank + 1)) / 2**n for rank in range(n // 2)]
    rank = max(rank for rank, tail in enumerate(tails) if tail <= TAIL)
    k = rank + 1  # of the source
    share = (TAIL - tails[rank]) / (tails[k] - tails[rank])
    return rank, (n - k) * share / (k + (n - 2 * k) * share)
