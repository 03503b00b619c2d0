"""The fronts of size and damage of the synthetic problem: exact, or by a long search.

Sizes are integers, so a front is the least damage for every size.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
KICKS = 10  # rounds of random changes after the first local optimum


def additive_front(weights: Array, damage: Array) -> tuple[Array, Array]:
    """The exact front without interactions, by dynamic programming over layers and sizes.

    Returns:
        Damages and sizes, sizes ascending, dominated pairs left out.
    """
    best, _ = _additive_table(weights, damage)
    return _front(best)


def _additive_table(weights: Array, damage: Array) -> tuple[Array, Array]:
    """The least damage of every size, inf where there is none, and the levels that give it."""
    layers, levels = damage.shape
    most = int(weights.sum()) * levels
    best = np.full(most + 1, np.inf)
    best[0] = 0.0
    choices = np.zeros((layers, most + 1), dtype=np.int8)
    for layer in range(layers):
        longer = np.full(most + 1, np.inf)
        for level in range(levels):
            cost = int(weights[layer]) * (levels - level)
            extended = np.full(most + 1, np.inf)
            extended[cost:] = best[: most + 1 - cost] + damage[layer, level]
            better = extended < longer
            longer[better] = extended[better]
            choices[layer, better] = level
        best = longer
    chosen = np.zeros((most + 1, layers), dtype=np.int8)
    left = np.arange(most + 1)
    left[~np.isfinite(best)] = 0
    for layer in reversed(range(layers)):
        chosen[:, layer] = choices[layer, left]
        left = np.maximum(0, left - weights[layer] * (levels - chosen[:, layer].astype(int)))
    return best, chosen


def _front(best: Array) -> tuple[Array, Array]:
    below = np.minimum.accumulate(np.concatenate([[np.inf], best[:-1]]))
    sizes = np.flatnonzero(best < below)
    return best[sizes], sizes


def interacting_front(
    weights: Array, damage: Array, coupling: Array, cache: Path
) -> tuple[Array, Array]:
    """A near-optimal front with interactions, kept in a file.

    Begins with the additive optimum of every size, improves every size by all changes of one and
    two layers until none helps, and then by random changes of up to six, each followed by the
    former. No promise of optimality: the front is a lower bound in hypervolume.

    Returns:
        Damages and sizes, as `additive_front`.
    """
    parts = (weights, damage, coupling, np.array([KICKS]))
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))
    if cache.is_file():
        with np.load(cache) as stored:
            if str(stored["digest"]) == digest.hexdigest():
                return stored["damages"], stored["sizes"]
    damages, sizes = _front(_LocalSearch(weights, damage, coupling).run())
    cache.parent.mkdir(parents=True, exist_ok=True)
    unfinished = cache.with_suffix(f".{os.getpid()}.npz")
    np.savez(unfinished, damages=damages, sizes=sizes, digest=np.array(digest.hexdigest()))
    unfinished.replace(cache)
    return damages, sizes


class _LocalSearch:
    """The least damage found for every size, and the levels that give it."""

    def __init__(self, weights: Array, damage: Array, coupling: Array) -> None:
        self.weights = weights
        self.roots = np.sqrt(damage)
        self.coupling = coupling
        _, self.chosen = _additive_table(weights, damage)
        self.best = self._damages(self.chosen)
        layers, levels = damage.shape
        self.best[(levels - self.chosen.astype(int)) @ weights != np.arange(len(self.best))] = (
            np.inf
        )
        self._layer = np.repeat(np.arange(layers), levels)
        self._level = np.tile(np.arange(levels), layers)
        self._same = self._layer[:, None] == self._layer[None, :]

    def run(self) -> Array:
        rng = np.random.default_rng(0)
        changed = np.isfinite(self.best)
        for kick in range(KICKS + 1):
            while changed.any():
                changed = self._improved_by_pairs(np.flatnonzero(changed & self._on_front()))
            if kick < KICKS:
                changed = self._kicked(rng)
        return self.best

    def _on_front(self) -> Array:
        _, sizes = _front(self.best)
        on_front = np.zeros(len(self.best), dtype=bool)
        on_front[sizes] = True
        return on_front

    def _damages(self, chosen: Array) -> Array:
        roots = self.roots[np.arange(len(self.weights)), chosen]
        damages: Array = (roots**2).sum(axis=1) + ((roots @ self.coupling) * roots).sum(axis=1)
        return damages

    def _improved_by_pairs(self, sizes: Array) -> Array:
        """Try all changes of one or two layers; which sizes got better."""
        changed = np.zeros(len(self.best), dtype=bool)
        pull = 2 * self.coupling[self._layer][:, self._layer]
        for size in sizes:
            chosen = self.chosen[size].astype(int)
            now = self.roots[np.arange(len(chosen)), chosen]
            step = self.roots[self._layer, self._level] - now[self._layer]
            gain = step * (step + 2 * now[self._layer] + 2 * (self.coupling @ now)[self._layer])
            shift = self.weights[self._layer] * (chosen[self._layer] - self._level)
            damages = self.best[size] + gain[:, None] + gain + pull * np.outer(step, step)
            damages[self._same] = np.inf
            targets = np.where(self._same, size, size + shift[:, None] + shift)
            better = damages < self.best[targets] - 1e-12
            for first, second in np.argwhere(better):
                target, damage = targets[first, second], damages[first, second]
                if damage < self.best[target] - 1e-12:
                    other = chosen.copy()
                    other[self._layer[first]] = self._level[first]
                    other[self._layer[second]] = self._level[second]
                    self.best[target], self.chosen[target] = damage, other
                    changed[target] = True
        return changed

    def _kicked(self, rng: np.random.Generator) -> Array:
        """Change up to six layers of every size on the front at random; which sizes got better."""
        changed = np.zeros(len(self.best), dtype=bool)
        sizes = np.repeat(np.flatnonzero(self._on_front()), 50)
        others = self.chosen[sizes].copy()
        layers, levels = self.roots.shape
        for _ in range(6):
            steps = rng.integers(-1, 2, len(sizes))
            which = rng.integers(layers, size=len(sizes))
            rows = np.arange(len(sizes))
            others[rows, which] = np.clip(others[rows, which] + steps, 0, levels - 1)
        targets = (levels - others.astype(int)) @ self.weights
        damages = self._damages(others)
        for i in np.argsort(damages, kind="stable"):
            if damages[i] < self.best[targets[i]] - 1e-12:
                self.best[targets[i]], self.chosen[targets[i]] = damages[i], others[i]
                changed[targets[i]] = True
        return changed
