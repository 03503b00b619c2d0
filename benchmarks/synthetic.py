"""Per-layer compression by a formula: more layers than any table could list.

Layer l holds w_l units of weights and is compressed to level k_l of 0 (not at all) to K - 1:

    size = sum_l w_l * (K - k_l)
    d_l  = s_l * (k_l / (K - 1))^2                                    convex damage of one layer
    D    = sum_l d_l + strength * sum_{l != m} C_lm * sqrt(d_l * d_m)           with interactions
    err  = 5 + 85 * (1 - exp(-D))                                  in percent, saturates at chance

w_l is lognormal (median 20, sigma 0.5, rounded, >= 1); the sensitivities s_l are lognormal
(sigma 1), scaled to a sum of 3; C is a symmetric random matrix with a diagonal of 0 and spectral
norm 0.8, so D >= 0 for strengths up to 1.25. The form with products of pairs is that of Deng et
al., "CLADO" (cross-layer dependencies of quantization, 2023). The reference point is
err 50 and 1.02 times the uncompressed size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.goals import Goals
from strategies.options import real_number, whole_number
from strategies.space import Candidate, Int, Space

from .problem import Problem, hypervolume_of
from .reference_fronts import additive_front, interacting_front

Array = np.ndarray[Any, Any]
WORST_ERR = 50.0
MAX_STRENGTH = 1.25


@dataclass(frozen=True, slots=True)
class Layers:
    """One instance of the formula.

    Args:
        weights: w_l, integers, shape (layers,).
        damage: d_l at each level, shape (layers, levels).
        coupling: strength * C, shape (layers, layers).
    """

    weights: Array
    damage: Array
    coupling: Array

    @classmethod
    def drawn(cls, layers: int, levels: int, strength: float, seed: int) -> Layers:
        rng = np.random.default_rng(seed)
        weights = np.maximum(1, np.rint(20 * np.exp(0.5 * rng.standard_normal(layers))))
        sensitivity = np.exp(rng.standard_normal(layers))
        sensitivity *= 3 / sensitivity.sum()
        steps = np.arange(levels) / (levels - 1)
        coupling = rng.standard_normal((layers, layers))
        coupling += coupling.T
        np.fill_diagonal(coupling, 0.0)
        coupling *= 0.8 * strength / max(np.abs(np.linalg.eigvalsh(coupling)).max(), 1e-12)
        return cls(weights.astype(int), sensitivity[:, None] * steps**2, coupling)

    def sizes(self, chosen: Array) -> Array:
        """Of rows of levels, shape (n, layers)."""
        sizes: Array = (self.damage.shape[1] - chosen) @ self.weights
        return sizes

    def damages(self, chosen: Array) -> Array:
        """D of rows of levels, shape (n, layers)."""
        single = self.damage[np.arange(len(self.weights)), chosen]
        roots = np.sqrt(single)
        both: Array = single.sum(axis=1) + ((roots @ self.coupling) * roots).sum(axis=1)
        return both

    def exact(self, candidate: Candidate) -> Mapping[str, float]:
        chosen = np.array([list(candidate.values())], dtype=int)
        return {
            "err": float(error_of(self.damages(chosen))[0]),
            "size": float(self.sizes(chosen)[0]),
        }

    def measured(self, candidate: Candidate, seed: int, visit: int) -> Mapping[str, float]:
        return self.exact(candidate)


def error_of(damage: Array) -> Array:
    """err of D."""
    error: Array = 5 + 85 * (1 - np.exp(-damage))
    return error


def synthetic_problem(
    *,
    cache: Path,
    layers: int = 20,
    interaction: float = 0.0,
    seed: int = 0,
    levels: int = 5,
) -> Problem:
    """One instance as a problem.

    Args:
        cache: Where the reference front of an instance with interactions is kept.
        interaction: The strength, in [0, 1.25].
        seed: Of the instance.

    Raises:
        ValueError: An argument is out of its range.
    """
    for name, value, low in (("layers", layers, 1), ("levels", levels, 2), ("seed", seed, 0)):
        whole_number(name, value, low)
    interaction = real_number("interaction", interaction, 0, MAX_STRENGTH)
    instance = Layers.drawn(layers, levels, interaction, seed)
    name = f"synthetic-{layers}-{interaction:g}"
    name += f"-levels{levels}" * (levels != 5) + f"-seed{seed}" * (seed != 0)
    if interaction:
        damage, sizes = interacting_front(
            instance.weights, instance.damage, instance.coupling, cache / f"{name}.npz"
        )
        how = "reference front by a long local search (a lower bound of the true one)"
    else:
        damage, sizes = additive_front(instance.weights, instance.damage)
        how = "true front by dynamic programming"
    corner = (WORST_ERR, 1.02 * levels * float(instance.weights.sum()))
    values = np.stack([error_of(damage), sizes.astype(float)], axis=1)
    knobs = [
        Int(name=f"layer{i:02d}", low=0, high=levels - 1, neutral=0, direction=1)
        for i in range(layers)
    ]
    return Problem(
        name=name,
        title=f"synthetic, {layers} layers x {levels} levels, interactions {interaction:g}",
        space=Space(knobs),
        goals=Goals({"err": "minimize", "size": "minimize"}),
        reference=corner,
        hypervolume=hypervolume_of(values, corner),
        quality="err",
        evaluator=instance,
        facts={
            "candidates": f"{levels}^{layers}",
            "true front": f"{int((values[:, 0] < WORST_ERR).sum())} points, {how}",
        },
    )
