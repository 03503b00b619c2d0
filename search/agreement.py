"""Whether two measurements of one file agree, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from storage import Measurement

from .metrics import EXACT, drop_name

AGREES, DISAGREES, SHOWN = "agrees", "disagrees", "not judged"
MOST_CHANGE = 0.25  # of the machine's speed that excuses a ratio
ALPHA = 0.05  # that one of all ratios is called different by chance, files being the same


@dataclass(frozen=True, slots=True)
class Agreement:
    """One metric, as it is stored and as it was found now.

    Args:
        verdict: agrees, disagrees, or not judged.
        rule: By which.
    """

    metric: str
    stored: Measurement | None
    found: Measurement | None
    verdict: str
    rule: str

    def to_json(self) -> dict[str, Any]:
        values = {
            key: None if m is None else {"value": m.value, "low": m.low, "high": m.high}
            for key, m in (("stored", self.stored), ("found", self.found))
        }
        return {**values, "verdict": self.verdict, "rule": self.rule}


def agreements(
    stored: Sequence[Measurement],
    found: Sequence[Measurement],
    *,
    score_name: str,
    is_same_machine: bool,
    ratios: int,
) -> tuple[Agreement, ...]:
    """Compare the measurements of a file with those that are stored.

    What the file alone decides must be equal, and so must what is computed from its outputs, on
    the same machine with the same libraries; on another one the score and its drop must lie in
    the stored interval. A ratio of times must lie within the joint interval (see `joint`), widened
    by what the baseline beside it is slower or faster than it was (see `machine_change`). Times
    and memory are not judged: they have no baseline beside them.

    Args:
        ratios: How many ratios of times are compared in all, which widens their intervals.
    """
    before = {m.metric: m for m in stored}
    after = {m.metric: m for m in found}
    compared = []
    for name in dict.fromkeys([*before, *after]):
        a, b = before.get(name), after.get(name)
        if a is None or b is None:
            rule = "not stored" if a is None else "not measured again"
            compared.append(Agreement(name, a, b, SHOWN, rule))
            continue
        change = machine_change(name, before, after)
        agrees, rule = _judged(name, a, b, score_name, is_same_machine, ratios, change)
        verdict = SHOWN if agrees is None else AGREES if agrees else DISAGREES
        compared.append(Agreement(name, a, b, verdict, rule))
    return tuple(compared)


def machine_change(
    name: str, before: Mapping[str, Measurement], after: Mapping[str, Measurement]
) -> float:
    """By which share the baseline beside a ratio of times is slower or faster than it was, at most
    MOST_CHANGE; 0 where that is not known.

    Its time is the file's own divided by the ratio. What slows a machine slows two files by
    unequal shares.
    """
    own = name.replace("latency_ratio", "latency_ms")
    if not name.startswith("latency_ratio") or own not in before or own not in after:
        return 0.0
    times = [of[own].value / of[name].value for of in (before, after) if of[name].value > 0]
    if len(times) < 2 or not min(times) > 0:
        return 0.0
    return min(MOST_CHANGE, max(times) / min(times) - 1)


def joint(stored: Measurement, found: Measurement, ratios: int = 1, change: float = 0.0) -> bool:
    """Whether two ratios may be the same one: their difference in logarithms is no more than the
    root of the sum of the squared half-widths that face each other, and the log of 1 + `change`.

    For one comparison that is a test of level 5 % where the intervals are of 95 %. With several
    the half-widths are taken at the level of Sidak (1967), which keeps it at 5 % for all together.
    """
    assert None not in (stored.low, stored.high, found.low, found.high)
    least, greatest = sorted((stored, found), key=lambda m: m.value)
    if not least.value > 0 or not greatest.low or not least.high:
        return least.value == greatest.value
    inward = math.log(greatest.value / greatest.low), math.log(least.high / least.value)
    level = (1 - ALPHA) ** (1 / max(1, ratios))
    scale = NormalDist().inv_cdf((1 + level) / 2) / NormalDist().inv_cdf(1 - ALPHA / 2)
    allowed = scale * math.hypot(*inward) + math.log1p(change)
    return math.log(greatest.value / least.value) <= allowed


def _judged(
    name: str,
    a: Measurement,
    b: Measurement,
    score_name: str,
    is_same_machine: bool,
    ratios: int,
    change: float,
) -> tuple[bool | None, str]:
    """Whether they agree, None where that is not judged; and by which rule."""
    if name == "size_zstd_bytes" and not is_same_machine:
        return None, "another machine"  # another version of the library compresses otherwise
    if name in EXACT:
        return a.value == b.value, "equal"
    if name in (score_name, drop_name(score_name)):
        if is_same_machine:
            return a.value == b.value, "equal to the digit"
        if a.low is None or a.high is None:
            return None, "another machine, no interval"
        return a.low <= b.value <= a.high, "another machine: in the stored interval"
    if name.startswith("latency_ratio"):
        if a.noisy or b.noisy:
            return None, "timed beside other work"
        if None in (a.low, a.high, b.low, b.high):
            return None, "no interval"
        if joint(a, b, ratios):
            return True, "within the joint interval"
        if joint(a, b, ratios, change):
            return True, f"within it and what changed the baseline's time by {change:.0%}"
        return False, "within the joint interval"
    return None, "depends on the moment"
