"""Model inputs as a model is called with them, and as the numpy arrays that a runtime takes."""

from __future__ import annotations

from typing import Any

import numpy as np


def call_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of a call with a tensor, a tuple of them or a dict."""
    if isinstance(inputs, dict):
        return (), inputs
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def named_arrays(inputs: Any, names: list[str]) -> dict[str, np.ndarray]:
    """Model inputs under the file's input names.

    Args:
        inputs: A tensor, a tuple of tensors (taken in order), or a dict (taken by name).

    Raises:
        ValueError: There are more or fewer inputs than names.
    """
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(f"the model takes {names}, the task's inputs() gives {list(inputs)}")
        return {name: np.asarray(inputs[name]) for name in names}
    parts = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    if len(parts) != len(names):
        raise ValueError(
            f"the model takes {names}, the task's inputs() gives {len(parts)} tensors"
        )
    return {name: np.asarray(part) for name, part in zip(names, parts, strict=True)}


def with_batch_size(feed: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """The first `size` samples of every array with a batch dimension, repeated where too few."""
    return {
        name: np.ascontiguousarray(np.take(array, np.arange(size) % len(array), axis=0))
        if array.ndim
        else array
        for name, array in feed.items()
    }


def first_samples(feed: dict[str, np.ndarray], count: int) -> tuple[dict[str, np.ndarray], int]:
    """At most `count` samples of a batch, and how many they are.

    The first array with a dimension says how long the batch is; an array of another length has no
    samples and stays whole.
    """
    size = next((len(array) for array in feed.values() if array.ndim), 1)
    cut = {
        name: array[:count] if array.ndim and len(array) == size else array
        for name, array in feed.items()
    }
    return cut, min(size, count)
