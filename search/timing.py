"""Timing an artifact against the baseline, in a process that loads the runtime and little else."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressors.arrays import with_batch_size

from . import runtimes
from .footprint import footprint
from .jobs import Control, Timing, unheard
from .registry import load
from .runtimes.base import renamed
from .timed_calls import Call, seconds_of, timed, undisturbed
from .timed_rounds import Block, Pace, Round, at_full_speed, round_of
from .timing_statistics import (
    FEWEST,
    MOMENT,
    median_interval,
    noise_floor,
    unexplained,
    widened,
)

if TYPE_CHECKING:
    from .jobs import Progress
    from .runtimes.base import Runtime, Session

MEASURE = "measure"  # the stage of a trial that timing belongs to

RUN_S = 0.003  # of calls of one file in a row: long against the clock's resolution
CALLS = 3  # of a run at least, where the model is fast enough
BLOCKS = 3  # of a round
LOOKS = (12, 20, 30)  # rounds after which timing may stop
HALF_WIDTH = 0.02  # of the ratio; timing stops when its interval is narrower
MAX_SECONDS = 2.0
PATIENCE = 3  # times as long, where too few rounds count
ROUND_S = 0.16  # of calls, at most, unless a call alone takes longer
RELOAD_S = 0.15  # for which two sessions may be loaded anew for every round
SLOW_LOADS = 2  # in a row, after which they are not: a single one may have been disturbed
BALLAST = 1 << 18  # bytes at most that shift where a session's memory lies
WARM_UP_S = 0.01  # of one look at whether calls still get faster
MAX_WARM_UP_S = 0.5
DRIFT = 0.02

Feed = Mapping[str, np.ndarray]
Load = Callable[[], "Session"]


class Timer:
    """The bench of the timing process.

    Args:
        runtime: Its name, or `file.py:Class` in `folder`.
        threads: Of a session.
        batch_sizes: To time, in samples.
        feed: Inputs as `measure.timing_feed` gives them, samples along axis 0.
        footprints: Whether memory and load time are measured too.
        seconds: See `time_against`.
    """

    def __init__(
        self,
        runtime: str,
        folder: str,
        threads: int,
        batch_sizes: Sequence[int],
        feed: Feed,
        footprints: bool = True,
        seconds: float = MAX_SECONDS,
    ) -> None:
        found = load("runtime", "runtimes", runtime, runtimes.BUILTIN, Path(folder))
        self.runtime: Runtime = found()
        self.threads = threads
        self._named = runtime, folder
        self._feeds = {size: with_batch_size(dict(feed), size) for size in batch_sizes}
        self._footprints = footprints
        self._seconds = seconds
        self._paces = {size: Pace() for size in batch_sizes}
        self._controlled: Control | None = None
        self._is_told = False  # whether a timing has come back with the control

    def time(
        self,
        path: Path,
        baseline: Path | None,
        seed: int,
        *,
        progress: Progress = unheard,
    ) -> tuple[Timing, ...]:
        """Time a file at every batch size; `baseline` None times the baseline itself.

        The first timing against a baseline times the baseline against itself before: the control
        of this process. What that does not explain by chance widens all intervals that follow.
        """
        progress(MEASURE, ())
        rng = np.random.default_rng(seed)
        weight = self._footprint(path)  # before there are sessions here, which take memory too
        if baseline is None:
            session = self.loader(path)()
            timings = [time_baseline(session, feed, n) for n, feed in self._feeds.items()]
        else:
            control = self._control(baseline, rng)
            excess = unexplained(control.low, control.high)
            pair = SessionPair(self.loader(path), self.loader(baseline), rng)
            timings = [_with_excess(self.against(pair, n, rng), excess) for n in self._feeds]
            timings[0] = replace(timings[0], control=None if self._is_told else control)
            self._is_told = True
        if weight is not None:
            timings[0] = replace(timings[0], load_ms=weight[0], peak_rss_bytes=weight[1])
        return tuple(timings)

    def loader(self, path: Path) -> Load:
        """Loads a file as this timer does, each time that it is called."""
        return lambda: self.runtime.load(path, threads=self.threads)

    def against(
        self, pair: SessionPair, batch_size: int, rng: np.random.Generator, **options: float
    ) -> Timing:
        """`time_against` with what this process knows of the baseline."""
        options = {"seconds": self._seconds, **options}
        feed, pace = self._feeds[batch_size], self._paces[batch_size]
        return time_against(pair, feed, batch_size, rng, pace=pace, **options)

    def _footprint(self, path: Path) -> tuple[float, int] | None:
        if not self._footprints:
            return None
        name, folder = self._named
        return footprint(name, folder, path, self.threads, self._feeds[max(self._feeds)])

    def _control(self, baseline: Path, rng: np.random.Generator) -> Control:
        if self._controlled is not None:
            return self._controlled
        size = next(iter(self._feeds))
        pair = SessionPair(self.loader(baseline), self.loader(baseline), rng)
        found = self.against(pair, size, rng, least=self._seconds)
        floor = noise_floor(found.low, found.high)
        load_average = os.getloadavg()[0]
        self._controlled = Control(
            found.ratio, found.low, found.high, found.blocks, floor, load_average
        )
        return self._controlled


class SessionPair:
    """A candidate's session and the baseline's, loaded anew for every round while that is quick.

    Two sessions of the very same file may differ for as long as they live, by where their memory
    happens to lie. Many pairs average that, and their scatter shows it (Kalibera and Jones,
    Rigorous benchmarking in reasonable time, 2013: repeat at the highest level that varies). What
    the last ones had goes back to the system first, or all would lie in the same pages.
    """

    def __init__(self, candidate: Load, baseline: Load, rng: np.random.Generator) -> None:
        self._loads = candidate, baseline
        self._rng = rng
        self._ballast: list[bytearray] = []
        self._slow = 0  # loads in a row
        self.sessions: list[Session] = []
        self.renew()

    def renew(self) -> bool:
        """Load both in random order, so that neither is always first in memory; False if that
        took too long twice in a row, and they stay."""
        if self._slow == SLOW_LOADS:
            return False
        self.sessions, self._ballast = [], []
        _give_back_memory()
        began = time.perf_counter()
        found: dict[int, Session] = {}
        for which in self._rng.permutation(2):
            self._ballast.append(bytearray(int(self._rng.integers(BALLAST))))
            found[int(which)] = self._loads[which]()
        self._slow = 0 if time.perf_counter() - began < RELOAD_S else self._slow + 1
        self.sessions = [found[0], found[1]]
        return True


def _give_back_memory() -> None:
    """Of what is freed, all that the system takes (malloc_trim(3)), where there is such a call."""
    with contextlib.suppress(OSError, AttributeError):  # another C library, or none to be opened
        ctypes.CDLL(None).malloc_trim(0)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Of a round: so many blocks of a run of calls each; the first calls of a run do not count."""

    blocks: int
    calls: int
    unheard: int


def time_against(
    pair: SessionPair,
    feed: Feed,
    batch_size: int,
    rng: np.random.Generator,
    *,
    seconds: float = MAX_SECONDS,
    least: float = 0.0,
    pace: Pace | None = None,
) -> Timing:
    """Time two artifacts in interleaved blocks.

    A block is a run of calls of each, in random order, and its ratio that of the fastest call of
    either: what disturbs a call only makes it slower (Chen and Revels, Robust benchmarking in
    noisy environments, 2016). Calls from which something else took the processor do not count (see
    `timed_calls`), and of either file as many are looked at: on a busy machine long calls are cut
    more often than short ones, and what is left of a run would flatter the faster file. A round is
    the median of a few blocks with one pair of sessions, and counts if the processor was at full
    speed (see `timed_rounds`); the result is the median of the rounds with its order-statistic
    interval, widened by what moments differ in.

    Stops after some rounds if the interval is within +-2 %, or when `seconds` are over. Where
    three times as many, and twelve rounds, leave too few that count, or do not reach the pace, the
    timing is noisy.

    Args:
        feed: Inputs with `batch_size` samples.
        seconds: After which the fewest rounds are enough.
        least: Seconds before which it does not stop.
        pace: Of the baseline at this batch size in earlier timings, which has to be reached; this
            one is noted in it.
    """
    began = time.perf_counter()
    pace = pace or Pace()
    feeds = [renamed(feed, session.input_names) for session in pair.sessions]
    fastest = [_warm_up(s, own) for s, own in zip(pair.sessions, feeds, strict=True)]
    plan = _plan(fastest)
    calm: list[Round] = []
    every: list[Round] = []
    looks = iter(LOOKS)
    look = next(looks)
    while True:
        blocks = []
        for _ in range(plan.blocks):
            runs: dict[int, list[Call]] = {}
            for which in rng.permutation(2):
                runs[int(which)] = _run(pair.sessions[which], feeds[which], plan)
            blocks.append((runs[0], runs[1]))
        _add(calm, [(undisturbed(own), undisturbed(other)) for own, other in blocks])
        _add(every, [(seconds_of(own), seconds_of(other)) for own, other in blocks])
        counted = at_full_speed(calm)
        spent = time.perf_counter() - began
        is_noisy = len(counted) < FEWEST or not pace.is_reached(counted)
        if not is_noisy and spent >= least and (len(counted) >= look or spent > seconds):
            ratio, low, high = median_interval([each.ratio for each in counted])
            look = next(looks, 0)
            if spent > seconds or not look or high - low <= HALF_WIDTH * (low + high):
                break
        elif spent > PATIENCE * seconds and len(every) >= 2 * FEWEST:
            counted = _enough(counted, calm, every)
            ratio, low, high = median_interval([each.ratio for each in counted])
            break
        if pair.renew():
            for which in rng.permutation(2):  # the last to be called has the caches to itself
                timed(pair.sessions[which], feeds[which], min(CALLS, plan.unheard + plan.calls))
    pace.note(calm)
    low, high = widened(ratio, low, high, MOMENT)
    p50, p90, count = _summary(counted)
    return Timing(batch_size, p50, ratio, low, high, count, p90_ms=p90, noisy=is_noisy)


def time_baseline(baseline: Session, feed: Feed, batch_size: int) -> Timing:
    """Time the baseline alone: its ratio to itself is 1 by definition."""
    feed = renamed(feed, baseline.input_names)
    fastest = _warm_up(baseline, feed)
    plan = _plan([fastest, fastest])
    calm: list[Round] = []
    every: list[Round] = []
    for _ in range(LOOKS[0]):
        runs = [_run(baseline, feed, plan) for _ in range(plan.blocks)]
        _add(calm, [(undisturbed(run), undisturbed(run)) for run in runs])
        _add(every, [(seconds_of(run), seconds_of(run)) for run in runs])
    p50, p90, blocks = _summary(_enough(at_full_speed(calm), calm, every))
    return Timing(batch_size, p50, 1.0, 1.0, 1.0, blocks, p90_ms=p90)


def _add(rounds: list[Round], blocks: Sequence[Block]) -> None:
    found = round_of(blocks)
    if found is not None:
        rounds.append(found)


def _enough(*choices: list[Round]) -> list[Round]:
    """The first with rounds enough for an interval, else the last."""
    return next((rounds for rounds in choices if len(rounds) >= FEWEST), choices[-1])


def _summary(rounds: Sequence[Round]) -> tuple[float, float, int]:
    """Median and 90th percentile of the candidate's calls, in ms, and the number of blocks."""
    calls = [call for each in rounds for call in each.calls]
    p50, p90 = np.quantile(calls, [0.5, 0.9])
    return float(p50) * 1e3, float(p90) * 1e3, sum(each.blocks for each in rounds)


def _with_excess(timing: Timing, excess: float) -> Timing:
    low, high = widened(timing.ratio, timing.low, timing.high, excess)
    return replace(timing, low=low, high=high)


def _warm_up(session: Session, feed: Feed) -> float:
    """Call until caches and clocks have settled; returns the seconds of the fastest call."""
    end = time.perf_counter() + MAX_WARM_UP_S
    fastest = min(_call_for(session, feed, WARM_UP_S))
    while time.perf_counter() < end:
        before, fastest = fastest, min(fastest, *_call_for(session, feed, WARM_UP_S))
        if fastest > (1 - DRIFT) * before:
            break
    return fastest


def _call_for(session: Session, feed: Feed, seconds: float) -> list[float]:
    """Call at least once, and until the time is over; the seconds of every call."""
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        times += seconds_of(timed(session, feed, 1))
    return times


def _plan(fastest: Sequence[float]) -> _Plan:
    """As many calls of one as of the other: the least of more calls would be less."""
    most = max(1, int(ROUND_S / max(sum(fastest), 1e-9)))  # calls of either in a round
    if most >= BLOCKS * (CALLS + 1):
        wanted = max(CALLS, round(RUN_S / max(fastest)))
        return _Plan(BLOCKS, min(wanted, most // BLOCKS - 1), 1)
    blocks = min(BLOCKS, most)
    return _Plan(blocks, most // blocks, 0)


def _run(session: Session, feed: Feed, plan: _Plan) -> list[Call]:
    """The calls of a run; the first may find the caches full of the other's."""
    return timed(session, feed, plan.unheard + plan.calls)[plan.unheard :]
