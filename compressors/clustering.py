"""Weight clustering: few distinct weights in the file, so that it packs well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from strategies.space import Int, Knob

from .base import Context, Options, Refused, Task

if TYPE_CHECKING:
    from onnx import GraphProto
    from torch import nn

ITERATIONS = 100
WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


class WeightClustering:
    """Replaces the weights of each layer by the nearest of `clusters` shared values.

    It works on the exported file: an exporter folds BatchNorm into the convolutions before it,
    after which few values per layer would be few per output channel. The file holds the values as
    floats, as before: it is neither faster nor smaller before it is packed. What shrinks is
    `size_zstd_bytes`. Zeros stay zero, so what was pruned stays pruned.

    Source: Han, Mao and Dean, "Deep Compression", ICLR 2016, section 3: k-means in one dimension
    with centroids that begin evenly spaced over the range.
    """

    version = 2
    libraries = ("numpy", "onnx")
    formats = frozenset({"onnx"})
    kind = "cluster"

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        return [
            Int(name="clusters", low=0, high=256, neutral=0, default=[0, 16, 32, 64, 128, 256]),
        ]

    def apply(self, path: Path, options: Options, context: Context) -> Path:
        import onnx
        from onnx import numpy_helper
        from onnx.external_data_helper import uses_external_data

        is_external = any(
            uses_external_data(tensor)
            for tensor in onnx.load(path, load_external_data=False).graph.initializer
        )
        model = onnx.load(path)
        names = _weights(model.graph)
        found = [tensor for tensor in model.graph.initializer if tensor.name in names]
        if not found:
            raise Refused(f"no constant float32 weights of {', '.join(sorted(WEIGHTED))}")
        for tensor in found:
            values = clustered_values(numpy_helper.to_array(tensor), options["clusters"])
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        clustered = context.workdir / path.name
        onnx.save(
            model,
            clustered,
            save_as_external_data=is_external,
            location=f"{path.name}.data" if is_external else None,
        )
        return clustered


def _weights(graph: GraphProto) -> set[str]:
    """The names of the constants that layers multiply by: float32, of two dimensions or more."""
    from onnx import TensorProto

    constants = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2
    }
    used = {name for node in graph.node if node.op_type in WEIGHTED for name in node.input[:2]}
    return constants & used


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
