"""What a measured value says of a limit, and of a difference in speed."""

from __future__ import annotations

from storage import Measurement

from .expressions import Comparison, violation
from .metrics import EXACT

PROVEN, NOT_PROVEN, VIOLATED = "proven", "not proven", "violated"
FASTER, SLOWER, UNDECIDED = "faster", "slower", "no difference shown"


def verdict(constraint: Comparison, measured: Measurement) -> str:
    """Whether a constraint holds: `violated` by the value itself, `proven` if the far end of its
    interval keeps to the limit too (or if it is exact), else `not proven`; so is what was timed
    beside other work."""
    if violation(constraint, measured.value):
        return VIOLATED
    far = measured.high if constraint.op in ("<=", "<") else measured.low
    if far is None:  # what varies from one measurement to the next proves nothing without one
        return PROVEN if measured.metric in EXACT else NOT_PROVEN
    return NOT_PROVEN if measured.noisy or violation(constraint, far) else PROVEN


def speed(ratio: Measurement) -> str:
    """What a latency ratio says: `faster` or `slower` only if its interval excludes 1."""
    if ratio.high is not None and ratio.high < 1:
        return FASTER
    if ratio.low is not None and ratio.low > 1:
        return SLOWER
    return UNDECIDED
