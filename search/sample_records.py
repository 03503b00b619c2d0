"""The records of samples as bytes: small enough to keep for every trial."""

from __future__ import annotations

import io
import zlib

import numpy as np

LEVEL = 6


def packed(records: np.ndarray) -> bytes:
    """Records, samples along axis 0, compressed; what holds only 0 and 1 needs a bit a sample."""
    is_binary = records.dtype.kind in "fiu" and np.isin(records, (0, 1)).all()
    out = io.BytesIO()
    np.save(out, records.astype(bool) if is_binary else records, allow_pickle=False)
    np.save(out, np.empty(0, records.dtype), allow_pickle=False)  # tells the type they have
    return zlib.compress(out.getvalue(), LEVEL)


def unpacked(content: bytes) -> np.ndarray:
    """What `packed` was given, in the same type: a score may index with records, or mask."""
    stream = io.BytesIO(zlib.decompress(content))
    records: np.ndarray = np.load(stream, allow_pickle=False)
    if stream.tell() == len(stream.getbuffer()):  # of before types were kept
        return records.astype(np.float64) if records.dtype == bool else records
    return records.astype(np.load(stream, allow_pickle=False).dtype, copy=False)
