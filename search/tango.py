"""Score intervals of proportions: Wilson's of one, and Tango's of a paired difference."""

from __future__ import annotations

import math
from statistics import NormalDist

# Of the count of losses minus gains. Without it Tango's bounds are too short where few samples
# are discordant and the drop is not 0: by exact enumeration (benchmarks/verdicts.py) an upper
# bound at a positive drop then errs in up to 5.8 % instead of 5 %, a lower one in up to 7.7 %.
TOWARDS_ZERO, AWAY_FROM_ZERO = 0.25, 1.0
STEPS = 60  # of a bisection of an interval of length 2


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """A two-sided interval of a proportion (Wilson 1927, JASA 22:209-212, without correction)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def drop_interval(losses: int, gains: int, n: int, alpha: float) -> tuple[float, float]:
    """One-sided bounds, each of level 1 - alpha, of the drop in a proportion of n pairs.

    The drop is (losses - gains) / n. The bounds are where Tango's score statistic (1998,
    Statistics in Medicine 17:891-908) meets the normal quantile, with a continuity correction.
    They are apart even if no pair is discordant.

    Args:
        losses: Pairs that were right and are wrong now.
        gains: Pairs that were wrong and are right now.
    """
    # Whoever loses where the other gains has the opposite drop.
    return -upper_bound(gains, losses, n, alpha), upper_bound(losses, gains, n, alpha)


def upper_bound(losses: int, gains: int, n: int, alpha: float, *, corrected: bool = True) -> float:
    """The largest drop that a one-sided test of size alpha does not reject.

    Args:
        corrected: Whether the continuity correction is made; without it the bound is Tango's own.
    """
    z = NormalDist().inv_cdf(1 - alpha)
    low, high = (losses - gains) / n, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if score_statistic(losses, gains, n, middle, corrected=corrected) > -z:
            low = middle
        else:
            high = middle
    return high


def score_statistic(
    losses: int, gains: int, n: int, drop: float, *, corrected: bool = True
) -> float:
    """Tango's statistic of the hypothesis that the true drop is at least `drop`; very negative
    where that cannot be."""
    excess = losses - gains - n * drop
    if corrected:
        excess += TOWARDS_ZERO if drop >= 0 else AWAY_FROM_ZERO
    variance = n * (2 * gain_rate(losses, gains, n, drop) + drop * (1 - drop))
    if variance <= 0:  # a drop of 1 or -1, or of 0 without discordant pairs
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


def gain_rate(losses: int, gains: int, n: int, drop: float) -> float:
    """The rate of gains under which the counts are likeliest, if the true drop is `drop`."""
    b = -losses - gains + (2 * n - losses + gains) * drop
    root = b * b + 8 * n * gains * drop * (1 - drop)
    rate = (math.sqrt(max(0.0, root)) - b) / (4 * n)
    return min(max(rate, 0.0, -drop), (1 - drop) / 2)
