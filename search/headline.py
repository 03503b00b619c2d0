"""The one row that most people would take, and what is said of it in a line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from storage import Measurement, Study

from .expressions import Comparison
from .formats import TIMES
from .goals import Goals
from .metrics import audit_names, drop_name
from .results import Row, StudyResults
from .verdicts import FASTER, PROVEN, SLOWER, speed, verdict

MINUS = "−"
# Words in the names of scores that are shares of 1; others, such as a Spearman correlation or a
# loss below 1, are not counted in points.
SHARES = {
    *("accuracy", "acc", "top1", "top5", "precision", "recall", "f1", "auc", "auroc", "map"),
    *("iou", "miou", "dice", "share"),
}


@dataclass(frozen=True, slots=True)
class Headline:
    """What is said of the picked row.

    Args:
        phrases: Such as `5.2 times smaller`, each against the baseline.
        rule: How the row was picked.
    """

    number: int
    phrases: tuple[str, ...]
    rule: str


def by_metric(row: Row) -> dict[str, Measurement]:
    """The measurements of a complete row."""
    complete = row.trial.state == "complete"
    return {m.metric: m for m in row.trial.measurements} if complete else {}


def picked(results: StudyResults, front: Sequence[Row]) -> tuple[Row, str] | None:
    """The row to take of a front, and the rule in words; None where no row is within the limits.

    Rows whose limits are all proven go before others. Among them the row closest to the ideal
    wins: each objective is scaled to 0..1 over these rows, the ideal is the best of each
    (compromise programming: Zeleny, Multiple Criteria Decision Making, 1982). Where a limit on
    the score or its drop says how much quality may be given up, only costs are compared.
    """
    goals, score = results.goals, results.study.facts["score_name"]
    feasible = [row for row in front if row.is_feasible]
    rows = [row for row in feasible if row.number] or feasible
    proven = [row for row in rows if all(said == PROVEN for said in row.verdicts.values())]
    rows = proven or rows
    if not rows:
        return None
    quality = {score, drop_name(score)}
    costs = goals.costs(*quality)
    limited = any(constraint.name in quality for constraint in goals.constraints)
    columns = list(costs) if limited and costs else list(range(len(goals.objectives)))
    values = np.array([goals.values(row.metrics) for row in rows], dtype=float)[:, columns]
    span = np.ptp(values, axis=0)
    scaled = (values - values.min(axis=0)) / np.where(span > 0, span, 1.0)
    names = [list(goals.objectives)[column] for column in columns]
    among = "whose limits are all proven" if proven and goals.constraints else "within the limits"
    what = f"best in {names[0]}"
    if len(names) > 1:
        what = f"closest to the best of {' and '.join([', '.join(names[:-1]), names[-1]])}"
        what += ", each scaled over these rows"
    best = rows[int(np.argmin(np.linalg.norm(scaled, axis=1)))]
    return best, f"Of the rows of the front {among}, the one {what}."


def headline(results: StudyResults, front: Sequence[Row]) -> Headline | None:
    """What to say of the picked row against the baseline; None where there is none."""
    baseline, choice = results.baseline(), picked(results, front)
    if choice is None or baseline is None:
        return None
    row, rule = choice
    if not row.number:
        return Headline(0, ("nothing beats the uncompressed model within the limits",), rule)
    found, base = by_metric(row), by_metric(baseline)
    parts = [
        _size(found, base),
        _speed(found),
        _quality(results.study, results.goals, found, base),
        _audited(results.study, results.goals, found, base),
    ]
    return Headline(row.number, tuple(part for part in parts if part), rule)


def _size(found: Mapping[str, Measurement], base: Mapping[str, Measurement]) -> str:
    if "size_bytes" not in found or "size_bytes" not in base or not found["size_bytes"].value:
        return ""
    return _times(base["size_bytes"].value / found["size_bytes"].value, "smaller", "larger")


def _times(factor: float, better: str, worse: str) -> str:
    word, factor = (better, factor) if factor >= 1 else (worse, 1 / factor)
    text = digits(factor)
    return f"{text}{TIMES} {word}" if float(text) != 1 else f"neither {better} nor {worse}"


def _speed(found: Mapping[str, Measurement]) -> str:
    """`faster` and `slower` only if the interval excludes 1; a speed-up's is that of 1/ratio."""
    ratio = found.get("latency_ratio")
    if ratio is None or ratio.value <= 0:
        return ""
    said, low, high = speed(ratio), ratio.low, ratio.high
    noisy = ", the timing was disturbed" * ratio.noisy
    if said == SLOWER:
        return f"{digits(ratio.value)}{TIMES} slower{_interval(low, high)}{noisy}"
    speedup = _interval(1 / high if high else None, 1 / low if low else None) + noisy
    if said == FASTER:
        return f"{digits(1 / ratio.value)}{TIMES} faster{speedup}"
    return f"no difference in speed shown{speedup}"


def _interval(low: float | None, high: float | None) -> str:
    """With as many digits as tell the ends apart, and each from 1: not [1.0, 1.1] for 1.004."""
    if low is None or high is None or not math.isfinite(low + high):
        return ""
    for places in range(1, 5):
        texts = [f"{end:.{places}f}" for end in (low, high)]
        told = [
            (float(t) > 1) == (end > 1) and (float(t) < 1) == (end < 1)
            for t, end in zip(texts, (low, high), strict=True)
        ]
        if all(told) and (texts[0] != texts[1] or low == high):
            break
    return f" [{texts[0]}, {texts[1]}]"


def _quality(
    study: Study, goals: Goals, found: Mapping[str, Measurement], base: Mapping[str, Measurement]
) -> str:
    """The change of the score, in points if it is a share, and what is known of its limit."""
    score = study.facts["score_name"]
    loss = found.get(drop_name(score))
    if loss is None or score not in base:
        return ""
    return _change(study, goals, loss, base[score].value)


def _audited(
    study: Study, goals: Goals, found: Mapping[str, Measurement], base: Mapping[str, Measurement]
) -> str:
    """The same on the audit split, which may say otherwise."""
    score, (name, drop) = study.facts["score_name"], audit_names(study.facts["score_name"])
    if drop not in found or name not in base:
        return ""
    loss = replace(found[drop], metric=drop_name(score))  # the limits are on that
    return f"audit: {_change(study, goals, loss, base[name].value)}"


def _change(study: Study, goals: Goals, loss: Measurement, before: float) -> str:
    score = study.facts["score_name"]
    scale, unit = (100.0, "points") if is_share(score, before) else (1.0, score)
    sign = -scale if study.facts["higher_is_better"] else scale  # a loss raises a perplexity
    limits = [c for c in goals.constraints if c.name == loss.metric]
    known = _limits(limits, loss, scale) or _changes(loss, sign)
    return f"{_signed(sign * loss.value)} {unit}{known}"


def is_share(score_name: str, value: float) -> bool:
    """Whether a score is a share of 1 by its name, so that 0.01 of it is a point."""
    words = set(re.split(r"[^a-z0-9]+", score_name.lower()))
    return bool(words & SHARES) and 0 <= value <= 1


def _limits(limits: Sequence[Comparison], loss: Measurement, scale: float) -> str:
    if not limits:
        return ""
    signs = {"<=": "≤", ">=": "≥"}
    said = [
        f"{verdict(c, loss)} {signs.get(c.op, c.op)} {scale * float(c.literal):.3g}"
        for c in limits
    ]
    return f" [{', '.join(said)}]"


def _changes(loss: Measurement, sign: float) -> str:
    if loss.low is None or loss.high is None:
        return ""
    low, high = sorted((sign * loss.low, sign * loss.high))
    return f" [{_signed(low)}, {_signed(high)}]"


def _signed(change: float) -> str:
    sign = MINUS if change < 0 else "+" if change else "±"
    return f"{sign}{abs(change):.3g}"


def digits(value: float, count: int = 2) -> str:
    """At least `count` digits that count: 11.8, 5.2, 0.98."""
    if not math.isfinite(value) or value == 0:
        return str(value)
    places = max(0, count - 1 - math.floor(math.log10(abs(value))))
    if abs(value) >= 10:
        places = 1 if abs(value) < 100 else 0
    return f"{value:.{places}f}"
