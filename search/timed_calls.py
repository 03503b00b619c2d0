"""Calls of a loaded file by the clock, and whether the processor was ours meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from .runtimes.base import Session

LOST = 0.005  # of a call: what something else may have had of it for the call to count


class Call(NamedTuple):
    """One call.

    Args:
        seconds: That it took, less what something else had of them if that was little.
        is_calm: Whether nothing else had our processor meanwhile, or for up to LOST of the call.
    """

    seconds: float
    is_calm: bool


def timed(session: Session, feed: Mapping[str, np.ndarray], calls: int) -> list[Call]:
    """Call so many times in a row.

    The kernel's own work cuts nearly every call of some ten milliseconds for about 0.1 ms, so a
    call that was cut counts if little is missing of it: the time by the clock, less that of our
    thread on a processor. What other threads of ours did counts as missing, too, for then ours may
    have spun while another was cut, which no clock of ours shows.
    """
    found = []
    for _ in range(calls):
        before, every, own = interruptions(), time.process_time(), time.thread_time()
        start = time.perf_counter()
        session(feed)
        seconds = time.perf_counter() - start
        own, every = time.thread_time() - own, time.process_time() - every
        if interruptions() == before:
            found.append(Call(seconds, True))
            continue
        lost = max(0.0, seconds - own) + max(0.0, every - own)
        is_calm = lost <= LOST * seconds
        found.append(Call(seconds - lost if is_calm else seconds, is_calm))
    return found


def undisturbed(calls: Iterable[Call]) -> list[float]:
    return [call.seconds for call in calls if call.is_calm]


def seconds_of(calls: Iterable[Call]) -> list[float]:
    return [call.seconds for call in calls]


def interruptions() -> int:
    """How often a thread of this process has lost its processor to something else: involuntary
    context switches (getrusage(2)); always 0 where the system does not count them."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
