"""Timing an artifact against the baseline, in a process that loads the runtime and little else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressors.arrays import with_batch_size

from . import runtimes
from .jobs import Timing
from .registry import load

if TYPE_CHECKING:
    from .jobs import Progress
    from .runtimes.base import Runtime, Session

MEASURE = "measure"  # the stage of a trial that timing belongs to

BLOCK_S = 0.004  # long against the clock's resolution and a context switch
WARM_UP_S = 0.03
MIN_BLOCKS, MAX_BLOCKS = 15, 60
MAX_SECONDS = 2.0  # after which FEW_BLOCKS are enough, for models that take long
FEW_BLOCKS = 5
HALF_WIDTH = 0.02  # of the ratio; timing stops when its interval is narrower
RESAMPLES = 500

Feed = Mapping[str, np.ndarray]


class Timer:
    """The bench of the timing process.

    Args:
        runtime: Its name, or `file.py:Class` in `folder`.
        threads: Of a session.
        batch_sizes: To time, in samples.
        feed: Inputs as `measure.timing_feed` gives them, samples along axis 0.
    """

    def __init__(
        self,
        runtime: str,
        folder: str,
        threads: int,
        batch_sizes: Sequence[int],
        feed: Feed,
    ) -> None:
        found = load("runtime", "runtimes", runtime, runtimes.BUILTIN, Path(folder))
        self.runtime: Runtime = found()
        self.threads = threads
        self._feeds = {size: with_batch_size(dict(feed), size) for size in batch_sizes}
        self._baseline: tuple[Path, Session] | None = None

    def time(
        self,
        path: Path,
        baseline: Path | None,
        seed: int,
        *,
        progress: Progress = lambda stage, ended: None,
    ) -> tuple[Timing, ...]:
        """Time a file at every batch size; `baseline` None times the baseline itself."""
        progress(MEASURE, ())
        rng = np.random.default_rng(seed)
        session = self.runtime.load(path, threads=self.threads)
        if baseline is None:
            return tuple(time_baseline(session, feed, size) for size, feed in self._feeds.items())
        other = self._session_of(baseline)
        return tuple(
            time_against(session, other, feed, size, rng) for size, feed in self._feeds.items()
        )

    def _session_of(self, baseline: Path) -> Session:
        """Kept between calls: all trials of a study have the same baseline."""
        if self._baseline is None or self._baseline[0] != baseline:
            self._baseline = baseline, self.runtime.load(baseline, threads=self.threads)
        return self._baseline[1]


def time_against(
    candidate: Session, baseline: Session, feed: Feed, batch_size: int, rng: np.random.Generator
) -> Timing:
    """Time two loaded artifacts in interleaved blocks.

    Each block calls both, in random order, often enough to last some milliseconds. What slows the
    machine down slows both, so the ratio within a block is far steadier than either time. Stops
    when the bootstrap interval of the median ratio is within +-2 %, or after two seconds and five
    blocks.

    Args:
        feed: Inputs with `batch_size` samples.
    """
    sessions = (candidate, baseline)
    feeds = [_renamed(feed, session.input_names) for session in sessions]
    calls = [
        max(1, round(BLOCK_S / _warm_up(session, own)))
        for session, own in zip(sessions, feeds, strict=True)
    ]
    times: list[tuple[float, float]] = []
    began = time.perf_counter()
    while True:
        pair = [0.0, 0.0]
        for which in rng.permutation(2):
            pair[which] = _seconds_per_call(sessions[which], feeds[which], calls[which])
        times.append((pair[0], pair[1]))
        late = time.perf_counter() - began > MAX_SECONDS
        if len(times) < (FEW_BLOCKS if late else MIN_BLOCKS) or len(times) % 5:
            continue
        low, high = _interval(times, rng)
        if late or len(times) >= MAX_BLOCKS or high - low < 2 * HALF_WIDTH * (low + high) / 2:
            break
    seconds = np.array(times)
    return Timing(
        batch_size=batch_size,
        milliseconds=float(np.median(seconds[:, 0])) * 1e3,
        ratio=float(np.median(seconds[:, 0] / seconds[:, 1])),
        low=low,
        high=high,
        blocks=len(times),
    )


def time_baseline(baseline: Session, feed: Feed, batch_size: int) -> Timing:
    """Time the baseline alone: its ratio to itself is 1 by definition."""
    feed = _renamed(feed, baseline.input_names)
    calls = max(1, round(BLOCK_S / _warm_up(baseline, feed)))
    times = [_seconds_per_call(baseline, feed, calls) for _ in range(MIN_BLOCKS)]
    return Timing(batch_size, float(np.median(times)) * 1e3, 1.0, 1.0, 1.0, MIN_BLOCKS)


def _renamed(feed: Feed, names: list[str]) -> Feed:
    """The same arrays under a file's own input names, which depend on the exporter.

    Raises:
        ValueError: The file has more or fewer inputs.
    """
    if len(feed) != len(names):
        raise ValueError(f"the file takes {names}, the task's inputs() gives {len(feed)} tensors")
    return feed if feed.keys() == set(names) else dict(zip(names, feed.values(), strict=True))


def _warm_up(session: Session, feed: Feed) -> float:
    """Call until caches and clocks have settled; returns the seconds of the fastest call."""
    began = end = time.perf_counter()
    fastest = float("inf")
    while end - began < WARM_UP_S:
        start = time.perf_counter()
        session(feed)
        end = time.perf_counter()
        fastest = min(fastest, end - start)
    return fastest


def _seconds_per_call(session: Session, feed: Feed, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        session(feed)
    return (time.perf_counter() - start) / calls


def _interval(times: list[tuple[float, float]], rng: np.random.Generator) -> tuple[float, float]:
    """The percentile bootstrap interval (95 %) of the median ratio (Efron 1979)."""
    seconds = np.array(times)
    ratios = seconds[:, 0] / seconds[:, 1]
    drawn = rng.integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return float(low), float(high)
