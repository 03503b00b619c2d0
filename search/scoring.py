"""Scoring an artifact on a split of the data: its score, its records, and how sure it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressors.base import Task
from compressors.training import seeded

from . import measure
from .jobs import Scored
from .paired import drop_bounds, score_interval
from .runtimes.base import Session
from .sample_records import packed, unpacked

ZSTD_LEVEL = 3  # zstd's own default
KEPT_BYTES = 32_000_000  # of records; larger ones would make the store unwieldy

log = logging.getLogger("naslite.search")


def scored_on(
    session: Session,
    task: Task,
    batches: Callable[[], Iterable[Any]],
    reference: bytes | None,
    seed: int,
) -> Scored:
    """The score of a loaded artifact over all batches, with its interval, and its drop's bounds.

    Args:
        reference: The baseline's records of the same samples, packed.
        seed: Of the bootstrap.

    Raises:
        ValueError: Outputs, records or the score are not finite, or there are none.
    """
    score, records = measure.score_of_batches(session, task, batches)
    against = None if reference is None else unpacked(reference)
    return described(task, score, records, against, seed)


def described(
    task: Task, score: float, records: np.ndarray, reference: np.ndarray | None, seed: int
) -> Scored:
    """A score with what its records say of it."""
    with seeded(0):
        interval = score_interval(task.score, records, seed)
        bounds = None
        if reference is not None:
            bounds = drop_bounds(
                task.score,
                reference,
                records,
                higher_is_better=task.higher_is_better,
                seed=seed,
            )
    kept = _kept(records)
    return Scored(score, len(records), 0.0, 0.0, kept, interval, bounds)


def bootstrap_seed(sha256: str) -> int:
    """Of an artifact: the same file gets the same intervals."""
    return int(sha256[:15], 16)


def zstd_bytes(files: Sequence[Path]) -> int:
    """Bytes of the files, each compressed by zstd at its default level."""
    from zstandard import ZstdCompressor

    total = 0
    with Path(os.devnull).open("wb") as nowhere:
        for path in files:
            with path.open("rb") as file:
                size = path.stat().st_size
                total += ZstdCompressor(ZSTD_LEVEL).copy_stream(file, nowhere, size=size)[1]
    return total


def _kept(records: np.ndarray) -> bytes | None:
    """Records as bytes, unless they are not plain numbers or far too many."""
    if records.dtype.hasobject:
        return None
    content = packed(records)
    if len(content) > KEPT_BYTES:
        log.warning(
            "the records of %d samples take %d MB, so they are not stored and drops get no bounds;"
            " let the task's records() give less for each sample",
            *(len(records), len(content) // 1_000_000),
        )
        return None
    return content
