"""What a measured value says of a limit, and of a difference in speed."""

from __future__ import annotations

from collections.abc import Mapping

from storage import Measurement

from .expressions import Comparison, violation
from .metrics import AUDIT, EXACT

PROVEN, NOT_PROVEN, VIOLATED = "proven", "not proven", "violated"
FASTER, SLOWER, UNDECIDED = "faster", "slower", "no difference shown"


def verdict(constraint: Comparison, measured: Measurement) -> str:
    """Whether a constraint holds: `violated` by the value itself, `proven` if the far end of its
    interval keeps to the limit too (or if it is exact), else `not proven`; so is a timing
    that was disturbed."""
    if violation(constraint, measured.value):
        return VIOLATED
    far = measured.high if constraint.op in ("<=", "<") else measured.low
    if far is None:  # what varies from one measurement to the next proves nothing without one
        return PROVEN if measured.metric in EXACT else NOT_PROVEN
    return NOT_PROVEN if measured.noisy or violation(constraint, far) else PROVEN


def verdict_of(constraint: Comparison, measured: Mapping[str, Measurement]) -> str:
    """The verdict by all that was measured of a file: where a ratio is within a limit but was
    disturbed, and the timing after the search was not, by that one."""
    first, again = measured[constraint.name], measured.get(f"{AUDIT}{constraint.name}")
    found = verdict(constraint, first)
    if found == NOT_PROVEN and first.noisy and again is not None:
        return PROVEN if verdict(constraint, again) == PROVEN else NOT_PROVEN
    return found


def speed(ratio: Measurement) -> str:
    """What a latency ratio says: `faster` or `slower` only if its interval excludes 1."""
    if ratio.high is not None and ratio.high < 1:
        return FASTER
    if ratio.low is not None and ratio.low > 1:
        return SLOWER
    return UNDECIDED
