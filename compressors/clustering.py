"""Weight clustering: few distinct weights, so that a packed file is small."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from strategies.space import Int, Knob

from .base import Context, Options, Recipe, Task
from .inspect import weighted_layers

ITERATIONS = 100


class WeightClustering:
    """Replaces the weights of each layer by the nearest of `clusters` shared values.

    Source: Han, Mao and Dean, "Deep Compression", ICLR 2016, section 3: k-means in one dimension
    with centroids that begin evenly spaced over the range. Zeros stay zero, so what was pruned
    stays pruned. The file holds the values as floats, as before: it is neither faster nor smaller
    before it is packed. What shrinks is `size_zstd_bytes`.
    """

    version = 1
    libraries = ("numpy", "torch")
    kind = "cluster"

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        return [
            Int(name="clusters", low=0, high=256, neutral=0, default=[0, 16, 32, 64, 128, 256]),
        ]

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        clustered = copy.deepcopy(model).eval()
        for layer in weighted_layers(clustered).values():
            weight = layer.weight.data
            values = clustered_values(weight.numpy(), options["clusters"])
            weight.copy_(torch.from_numpy(values))
        return clustered, {}

    def replay(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        return copy.deepcopy(model)


def clustered_values(weights: np.ndarray, clusters: int) -> np.ndarray:
    """The weights with each replaced by the centroid of its cluster; zeros are left alone.

    Args:
        clusters: How many distinct values other than zero there may be, at least 1.
    """
    flat = weights.reshape(-1)
    values = np.unique(flat[flat != 0]).astype(np.float64)
    if len(values) <= clusters:
        return weights
    sorted_weights = np.sort(flat[flat != 0]).astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(sorted_weights)])
    centroids = np.linspace(values[0], values[-1], clusters)
    for _ in range(ITERATIONS):
        # In one dimension a cluster is an interval, so means are differences of cumulative sums.
        bounds = (centroids[1:] + centroids[:-1]) / 2
        edges = np.concatenate(
            [[0], np.searchsorted(sorted_weights, bounds), [len(sorted_weights)]]
        )
        counts = np.diff(edges)
        means = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centroids)
        if np.array_equal(means, centroids):
            break
        centroids = means
    nearest = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, flat)
    return np.where(flat == 0, 0, centroids[nearest]).astype(weights.dtype).reshape(weights.shape)
