"""Rounds of a timing, and which of them were made while the processor was at full speed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from .timing_statistics import FEWEST

SLACK = 0.05  # a round may take this much longer than one at full speed
RANK = 2  # of the round that stands for the fastest; before it come lucky ones
REMEMBERED = 6  # timings: a machine that was faster long ago may be another one now


class Round(NamedTuple):
    """What a few blocks with one pair of sessions have shown.

    Args:
        ratio: Of the two times, the median of the blocks.
        own: Seconds of a call of the candidate.
        other: Seconds of a call of the baseline.
        calls: Seconds of each of the candidate's.
        blocks: How many had calls of both.
    """

    ratio: float
    own: float
    other: float
    calls: list[float]
    blocks: int


Block = tuple[list[float], list[float]]


def round_of(blocks: Sequence[Block]) -> Round | None:
    """A round of the seconds of candidate and baseline in each block; None if none has both.

    Of either file as many calls are looked at, for the least of more would be less.
    """
    pairs, calls = [], []
    for own, other in blocks:
        count = min(len(own), len(other))
        if count:
            pairs.append((min(own[:count]), min(other[:count])))
            calls += own
    if not pairs:
        return None
    owns, others = zip(*pairs, strict=True)
    ratio = median(own / other for own, other in pairs)
    return Round(ratio, median(owns), median(others), calls, len(pairs))


def at_full_speed(rounds: Sequence[Round]) -> list[Round]:
    """Those that took at most 5 % more than the median at full speed, in the mean of both files.

    By the geometric mean neither file counts for more than the other, so that of two copies each
    is as likely to come out as the faster one. What slows one file alone, such as where its memory
    lies, counts half, and stays among the rounds.
    """
    if not rounds:
        return []
    seconds = [math.sqrt(each.own * each.other) for each in rounds]
    limit = (1 + SLACK) * _full_speed(seconds)
    return [each for each, own in zip(rounds, seconds, strict=True) if own <= limit]


class Pace:
    """How fast the baseline has been in the latest timings of a process.

    A processor whose core or memory is shared with a neighbour is slower for seconds, and two
    files are slowed by unequal shares: who is timed in such seconds alone cannot know it, but the
    baseline, which is timed beside each, shows it.
    """

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=REMEMBERED)

    def is_reached(self, rounds: Sequence[Round]) -> bool:
        """Whether the baseline was at most 5 % slower in these rounds than in the second fastest
        timing of late; in the only one, if there is but one."""
        if not self._seen:
            return True
        known = sorted(self._seen)[min(1, len(self._seen) - 1)]
        return _full_speed([each.other for each in rounds]) <= (1 + SLACK) * known

    def note(self, rounds: Sequence[Round]) -> None:
        """Remember a timing that has ended; one of too few rounds says nothing."""
        if len(rounds) >= FEWEST:
            self._seen.append(_full_speed([each.other for each in rounds]))


def _full_speed(seconds: Sequence[float]) -> float:
    """The median of what is within 5 % of the third fastest, which alone would fall with every
    further round."""
    fast = (1 + SLACK) * sorted(seconds)[min(RANK, len(seconds) - 1)]
    return median(each for each in seconds if each <= fast)
