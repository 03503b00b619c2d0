"""Timing an artifact against the baseline, in a process that loads the runtime and little else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from compressors.arrays import with_batch_size

from . import runtimes
from .footprint import footprint
from .jobs import Control, Timing, unheard
from .registry import load
from .runtimes.base import renamed
from .timed_calls import Call, seconds_of, timed, undisturbed
from .timing_statistics import FEWEST, median_interval, noise_floor, unexplained, widened

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
PATIENCE_S = 4.0  # longer than that, where other work leaves too few rounds
ROUND_S = 0.16  # of calls, at most, unless a call alone takes longer
RELOAD_S = 0.15  # for which two sessions may be loaded anew for every round
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
            timings = [
                _with_excess(time_against(pair, feed, n, rng, seconds=self._seconds), excess)
                for n, feed in self._feeds.items()
            ]
            timings[0] = replace(timings[0], control=None if self._is_told else control)
            self._is_told = True
        if weight is not None:
            timings[0] = replace(timings[0], load_ms=weight[0], peak_rss_bytes=weight[1])
        return tuple(timings)

    def loader(self, path: Path) -> Load:
        """Loads a file as this timer does, each time that it is called."""
        return lambda: self.runtime.load(path, threads=self.threads)

    def _footprint(self, path: Path) -> tuple[float, int] | None:
        if not self._footprints:
            return None
        name, folder = self._named
        return footprint(name, folder, path, self.threads, self._feeds[max(self._feeds)])

    def _control(self, baseline: Path, rng: np.random.Generator) -> Control:
        if self._controlled is not None:
            return self._controlled
        size, feed = next(iter(self._feeds.items()))
        pair = SessionPair(self.loader(baseline), self.loader(baseline), rng)
        found = time_against(pair, feed, size, rng, seconds=self._seconds)
        floor = noise_floor(found.low, found.high)
        load_average = os.getloadavg()[0]
        self._controlled = Control(
            found.ratio, found.low, found.high, found.blocks, floor, load_average
        )
        return self._controlled


class SessionPair:
    """A candidate's session and the baseline's, loaded anew for every round if that is quick.

    Two sessions of the very same file may differ for as long as they live, by where their memory
    happens to lie. Many pairs average that, and their scatter shows it (Kalibera and Jones,
    Rigorous benchmarking in reasonable time, 2013: repeat at the highest level that varies).
    """

    def __init__(self, candidate: Load, baseline: Load, rng: np.random.Generator) -> None:
        self._loads = candidate, baseline
        self._rng = rng
        self._sessions: list[Session] = []
        self._ballast: list[bytearray] = []
        self._is_quick = True

    def fresh(self) -> tuple[Session, Session]:
        """Loaded in random order, so that neither is always first in memory."""
        if self._sessions and not self._is_quick:
            return self._sessions[0], self._sessions[1]
        began = time.perf_counter()
        found: dict[int, Session] = {}
        self._ballast = []
        for which in self._rng.permutation(2):
            self._ballast.append(bytearray(int(self._rng.integers(BALLAST))))
            found[int(which)] = self._loads[which]()
        self._is_quick = time.perf_counter() - began < RELOAD_S
        self._sessions = [found[0], found[1]]
        return found[0], found[1]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Of a round: so many blocks of a run of calls each; the first calls of a run do not count."""

    blocks: int
    calls: int
    unheard: int


@dataclass(slots=True)
class _Rounds:
    """The ratio of each round, and what it is made of.

    Args:
        calls: Seconds of the candidate's.
    """

    ratios: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    blocks: int = 0

    def add(self, blocks: Sequence[tuple[list[float], list[float]]]) -> None:
        """Add a round of the seconds of candidate and baseline in each block, if any has both."""
        ratios = []
        for own, other in blocks:
            count = min(len(own), len(other))
            if count:
                ratios.append(min(own[:count]) / min(other[:count]))
                self.calls += own
        if ratios:
            self.ratios.append(median(ratios))
            self.blocks += len(ratios)


def time_against(
    pair: SessionPair,
    feed: Feed,
    batch_size: int,
    rng: np.random.Generator,
    *,
    seconds: float = MAX_SECONDS,
) -> Timing:
    """Time two artifacts in interleaved blocks.

    A block is a run of calls of each, in random order, and its ratio that of the fastest call of
    either: what disturbs a call only makes it slower (Chen and Revels, Robust benchmarking in
    noisy environments, 2016). Calls from which something else took the processor do not count (see
    `timed_calls`), and of either file as many are looked at: on a busy machine long calls are cut
    more often than short ones, and what is left of a run would flatter the faster file. A round is
    the median of a few blocks with one pair of sessions; the result is the median of the rounds
    with its order-statistic interval.

    Stops after some rounds if the interval is within +-2 %, or when `seconds` are over. Where four
    seconds more leave too few rounds, all calls count, and the timing is noisy.

    Args:
        feed: Inputs with `batch_size` samples.
        seconds: After which the fewest rounds are enough.
    """
    began = time.perf_counter()
    sessions = pair.fresh()
    feeds = [renamed(feed, session.input_names) for session in sessions]
    fastest = [_warm_up(s, own) for s, own in zip(sessions, feeds, strict=True)]
    plan = _plan(fastest)
    calm, every = _Rounds(), _Rounds()
    while True:
        blocks = []
        for _ in range(plan.blocks):
            runs: dict[int, list[Call]] = {}
            for which in rng.permutation(2):
                runs[int(which)] = _run(sessions[which], feeds[which], plan)
            blocks.append((runs[0], runs[1]))
        calm.add([(undisturbed(own), undisturbed(other)) for own, other in blocks])
        every.add([(seconds_of(own), seconds_of(other)) for own, other in blocks])
        spent = time.perf_counter() - began
        late, count = spent > seconds, len(calm.ratios)
        if count >= FEWEST and (late or count in LOOKS):
            ratio, low, high = median_interval(calm.ratios)
            if late or count >= LOOKS[-1] or high - low <= HALF_WIDTH * (low + high):
                break
        elif spent > seconds + PATIENCE_S and len(every.ratios) >= FEWEST:
            ratio, low, high = median_interval(every.ratios)
            break
        before, sessions = sessions, pair.fresh()
        if sessions[0] is not before[0]:
            for which in rng.permutation(2):  # the last to be called has the caches to itself
                timed(sessions[which], feeds[which], min(CALLS, plan.calls + 1))
    is_noisy = len(calm.ratios) < FEWEST
    counted = every if is_noisy else calm
    p50, p90 = np.quantile(counted.calls, [0.5, 0.9])
    return Timing(
        batch_size=batch_size,
        milliseconds=float(p50) * 1e3,
        ratio=ratio,
        low=low,
        high=high,
        blocks=counted.blocks,
        p90_ms=float(p90) * 1e3,
        noisy=is_noisy,
    )


def time_baseline(baseline: Session, feed: Feed, batch_size: int) -> Timing:
    """Time the baseline alone: its ratio to itself is 1 by definition."""
    feed = renamed(feed, baseline.input_names)
    fastest = _warm_up(baseline, feed)
    plan = _plan([fastest, fastest])
    calls: list[Call] = []
    blocks = LOOKS[0] * plan.blocks
    for _ in range(blocks):
        calls += _run(baseline, feed, plan)
    p50, p90 = np.quantile(undisturbed(calls) or seconds_of(calls), [0.5, 0.9])
    return Timing(batch_size, float(p50) * 1e3, 1.0, 1.0, 1.0, blocks, p90_ms=float(p90) * 1e3)


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
