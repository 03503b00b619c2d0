"""Pareto dominance with constraints, over plain arrays."""

from __future__ import annotations

import numpy as np


def non_dominated(values: np.ndarray) -> np.ndarray:
    """Which rows no other row dominates (a bool mask).

    Args:
        values: Shape (n, m), every column minimised, all finite. Equal rows do not dominate
            each other, so ties stay.
    """
    count = len(values)
    keep = np.ones(count, dtype=bool)
    for i in np.lexsort(values.T[::-1]):  # a row is dominated only by lexicographically smaller
        if not keep[i]:
            continue
        worse = np.all(values >= values[i], axis=1) & np.any(values > values[i], axis=1)
        keep &= ~worse
    return keep


def front(values: np.ndarray, violations: np.ndarray) -> np.ndarray:
    """The mask of the front under constraint domination (Deb et al. 2002, section VI).

    A feasible row dominates every infeasible one; of two infeasible rows the one with the smaller
    total violation dominates.

    Args:
        values: Shape (n, m), every column minimised.
        violations: Shape (n, k), 0 where a constraint is met; k may be 0.
    """
    total = violations.sum(axis=1) if violations.size else np.zeros(len(values))
    mask = np.zeros(len(values), dtype=bool)
    if len(values):
        best = total == total.min()
        mask[best] = non_dominated(values[best])
    return mask
