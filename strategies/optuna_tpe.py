"""Optuna's TPE, made to prefer what is not visible yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from optuna.samplers import TPESampler

from .optuna_space import Number


def _nothing(numbers: Mapping[str, Number]) -> bool:
    return False


class UnseenTpeSampler(TPESampler):
    """Of the candidates that TPE compares, takes the best one that is not visible.

    With levels instead of a continuum the best one is often a candidate that was evaluated, and
    asking again costs as much as the first time. This concerns the multivariate form; without
    it every parameter is chosen on its own.

    Attributes:
        searched: How many parameters are sampled together.
        is_visible: Whether parameters mean a visible candidate.
    """

    searched: int = 0
    is_visible: Callable[[Mapping[str, Number]], bool] = staticmethod(_nothing)

    def _compute_acquisition_func(
        self, samples: dict[str, np.ndarray], mpe_below: Any, mpe_above: Any
    ) -> np.ndarray:
        values = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
        if len(samples) < self.searched:
            return values
        for position in np.argsort(-values, kind="stable"):
            numbers = {name: column[position].item() for name, column in samples.items()}
            if not self.is_visible(numbers):
                break
            values[position] = -np.inf
        return values
