"""Scoring an artifact through its runtime, and the inputs that it is timed with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from compressors.arrays import named_arrays, with_batch_size
from compressors.base import Task
from compressors.training import seeded

from .runtimes.base import Session


def score(session: Session, task: Task) -> tuple[float, int]:
    """The task's score of a loaded artifact over all evaluation batches, and how many samples.

    Raises:
        ValueError: See `score_of_batches`.
    """
    found, records = score_of_batches(session, task, task.eval_batches)
    return found, len(records)


def score_of_batches(
    session: Session, task: Task, batches: Callable[[], Iterable[Any]]
) -> tuple[float, np.ndarray]:
    """The task's score of a loaded artifact over batches, and the records that it is made of.

    Raises:
        ValueError: There are no records; outputs hold NaN; records or the score are not finite.
    """
    with seeded(0):
        merged = records_of(session, task, batches())
        found = score_of(task, merged)
    return found, merged


def records_of(session: Session, task: Task, batches: Iterable[Any]) -> np.ndarray:
    """What the task records of the artifact's outputs on batches, samples along axis 0.

    Raises:
        ValueError: There are none; outputs hold NaN; records are not finite.
    """
    records = []
    for batch in batches:
        outputs = session(named_arrays(task.inputs(batch), session.input_names))
        check_outputs(outputs)
        records.append(np.asarray(task.records(outputs, batch)))
    if not records:
        raise ValueError("eval_batches() gave no batch")
    merged = np.concatenate(records)
    if not _all_finite(merged):
        raise ValueError("records() gave NaN or infinite values")
    return merged


def score_of(task: Task, records: np.ndarray) -> float:
    """The task's score of records.

    Raises:
        ValueError: It is not finite.
    """
    found = float(task.score(records))
    if not np.isfinite(found):
        raise ValueError(f"{task.score_name} is {found}")
    return found


def check_outputs(outputs: Any) -> None:
    """Refuse NaN among a model's outputs; infinite ones may be meant, as masked logits are.

    Raises:
        ValueError: An output array holds NaN.
    """
    arrays = outputs if isinstance(outputs, tuple) else (outputs,)
    if any(_is_inexact(array) and np.isnan(array).any() for array in arrays):
        raise ValueError("the model's outputs hold NaN")


def timing_feed(inputs: Any, samples: int | None = None) -> dict[str, np.ndarray]:
    """Model inputs as arrays by name, positional ones as `input_0`, `input_1`...

    Args:
        inputs: What a task's `inputs` gives.
        samples: The largest batch that will be timed; further samples are left out.
    """
    if isinstance(inputs, dict):
        names = list(inputs)
    else:
        parts = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
        names = [f"input_{position}" for position in range(len(parts))]
    feed = named_arrays(inputs, names)
    return feed if samples is None else with_batch_size(feed, samples)


def _all_finite(array: np.ndarray) -> bool:
    return not _is_inexact(array) or bool(np.isfinite(array).all())


def _is_inexact(array: Any) -> bool:
    """Whether its elements are floating-point or complex numbers."""
    return isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.inexact)
