"""Whether two measurements of one file agree, metric by metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from storage import Measurement

from .metrics import AUDIT, EXACT, RATIO, drop_name

AGREES, DISAGREES, SHOWN = "agrees", "disagrees", "not judged"
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
    the stored interval. A ratio of times must lie within the joint interval (see `joint`); of one
    that was timed twice, within that of the nearer timing, or between the two. Times and memory
    are not judged: they have no baseline beside them.

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
        again = before.get(f"{AUDIT}{name}") if name.startswith(RATIO) else None
        if again is not None and not again.noisy:
            a = _nearer(a, again, b)
        agrees, rule = _judged(name, a, b, score_name, is_same_machine, ratios)
        verdict = SHOWN if agrees is None else AGREES if agrees else DISAGREES
        compared.append(Agreement(name, before[name], b, verdict, rule))
    return tuple(compared)


def _nearer(first: Measurement, again: Measurement, found: Measurement) -> Measurement:
    """The stored timing that is nearer to the one found, or what was found if it lies between;
    the second one where the first was disturbed."""
    low, high = sorted((first.value, again.value))
    if low <= found.value <= high and not first.noisy:
        return replace(first, value=found.value)
    timings = [again] if first.noisy else [first, again]
    nearer = min(timings, key=lambda timing: abs(timing.value - found.value))
    return replace(nearer, metric=first.metric)


def joint(stored: Measurement, found: Measurement, ratios: int = 1) -> bool:
    """Whether two ratios may be the same one: their difference in logarithms is no more than the
    root of the sum of the squared half-widths that face each other.

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
    return math.log(greatest.value / least.value) <= scale * math.hypot(*inward)


def _judged(
    name: str, a: Measurement, b: Measurement, score_name: str, is_same_machine: bool, ratios: int
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
    if name.startswith(RATIO):
        if a.noisy or b.noisy:
            return None, "a timing was disturbed"
        if None in (a.low, a.high, b.low, b.high):
            return None, "no interval"
        return joint(a, b, ratios), "within the joint interval"
    return None, "depends on the moment"
