"""Taking some samples out of a batch, whatever it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compressors.base import Task


class CannotCut(Exception):
    """It does not show which part of a batch belongs to which sample."""


def sample_count(inputs: Any) -> int:
    """How many samples model inputs are of.

    Raises:
        CannotCut: No tensor says so.
    """
    from compressors.inspect import tensors_in

    for tensor in tensors_in(inputs):
        if tensor.ndim:
            return len(tensor)
    raise CannotCut("the task's inputs() give no tensor with a batch dimension")


def cut_out(task: Task, picks: Sequence[np.ndarray]) -> tuple[list[list[Any]], int]:
    """For each of some choices of samples, the batches of just those; and how many there are.

    Args:
        picks: Positions in the search split, sorted.

    Raises:
        CannotCut: A batch cannot be cut.
    """
    parts: list[list[Any]] = [[] for _ in picks]
    start = 0
    for batch in task.eval_batches():
        size = sample_count(task.inputs(batch))
        for pick, part in zip(picks, parts, strict=True):
            rows = pick[(start <= pick) & (pick < start + size)] - start
            if len(rows):
                part.append(cut(batch, rows, size))
        start += size
    return parts, start


def cut(batch: Any, rows: np.ndarray, size: int) -> Any:
    """The batch with these samples only.

    Tensors and arrays are cut along axis 0, in tuples, lists and dicts too. A list that has one
    entry per sample is cut itself, unless all its entries can be. Numbers, text and None stay.

    Args:
        size: How many samples the batch has.

    Raises:
        CannotCut: There is something else in it, or something of another length.
    """
    import torch

    if isinstance(batch, torch.Tensor):
        return batch[torch.from_numpy(rows)] if _fits(batch, size) else batch
    if isinstance(batch, np.ndarray):
        return batch[rows] if _fits(batch, size) else batch
    if type(batch) is dict:
        return {key: cut(value, rows, size) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return _cut_sequence(batch, rows, size)
    if batch is None or isinstance(batch, (str, bytes, bool, int, float, np.generic)):
        return batch
    raise CannotCut(f"a batch holds a {type(batch).__name__}, which cannot be cut")


def _cut_sequence(batch: Any, rows: np.ndarray, size: int) -> Any:
    is_data = any(not isinstance(p, (str, bytes, bool, int, float, np.generic)) for p in batch)
    try:
        if not is_data and len(batch) == size:
            raise CannotCut("entries of samples")
        parts = [cut(part, rows, size) for part in batch]
    except CannotCut:
        if len(batch) != size:
            raise
        parts = [batch[row] for row in rows]
    if hasattr(batch, "_fields"):  # a named tuple
        return type(batch)(*parts)
    return tuple(parts) if isinstance(batch, tuple) else parts


def _fits(array: Any, size: int) -> bool:
    if array.ndim and len(array) != size:
        raise CannotCut(f"a batch of {size} samples holds an array of length {len(array)}")
    return bool(array.ndim)
