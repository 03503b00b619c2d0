"""How far a search had come after each trial: hypervolume of the front, best of each objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from storage import Trial
from storage.records import Session

from .goals import Goals
from .results import Row

MARGIN = 0.1  # by how much of the range the reference point is worse than the worst row


@dataclass(frozen=True, slots=True)
class Progress:
    """Curves over the trials that ended, in the order in which they did.

    Args:
        numbers: Of the trials.
        seconds: Of searching until each ended; pauses between sessions do not count.
        hypervolume: Of the feasible rows so far, as a share of the box between `reference` and
            the best value seen of each objective.
        best: The best feasible value so far by objective; None before there is one.
        reference: By objective: the worst value of a feasible row, and a tenth of the range more.
    """

    numbers: tuple[int, ...]
    seconds: tuple[float, ...]
    hypervolume: tuple[float, ...]
    best: Mapping[str, tuple[float | None, ...]]
    reference: Mapping[str, float]


def progress(goals: Goals, rows: Sequence[Row], sessions: Sequence[Session]) -> Progress | None:
    """The curves of a study; None as long as no row is feasible."""
    ended = [row for row in rows if row.trial.state not in ("queued", "running")]
    ended.sort(key=lambda row: (row.trial.finished_at or 0.0, row.number))
    feasible = [row for row in ended if row.is_feasible]
    if not feasible:
        return None
    values = np.array([goals.values(row.metrics) for row in feasible], dtype=float)
    ideal, worst = values.min(axis=0), values.max(axis=0)
    span = np.where(worst > ideal, worst - ideal, 1.0)
    reference = worst + MARGIN * span
    scaled = iter((values - ideal) / (reference - ideal))
    signs = [-1.0 if way == "maximize" else 1.0 for way in goals.objectives.values()]
    best: dict[str, list[float | None]] = {name: [] for name in goals.objectives}
    volumes: list[float] = []
    front = np.empty((0, values.shape[1]))
    lowest = np.full(values.shape[1], np.inf)
    for row in ended:
        if row.is_feasible:
            lowest = np.minimum(lowest, goals.values(row.metrics))
            grown = _with(front, next(scaled))
            volumes.append(volumes[-1] if grown is front else _volume(grown))
            front = grown
        else:
            volumes.append(volumes[-1] if volumes else 0.0)
        for sign, value, curve in zip(signs, lowest, best.values(), strict=True):
            curve.append(sign * float(value) if np.isfinite(value) else None)
    return Progress(
        tuple(row.number for row in ended),
        searched_seconds([row.trial for row in ended], sessions),
        tuple(volumes),
        {name: tuple(curve) for name, curve in best.items()},
        {n: s * float(r) for n, s, r in zip(goals.objectives, signs, reference, strict=True)},
    )


def searched_seconds(trials: Sequence[Trial], sessions: Sequence[Session]) -> tuple[float, ...]:
    """Seconds of searching until each trial ended, by the clock where the sessions are known,
    else the sum of what the trials cost.

    Args:
        trials: That ended, in the order in which they did.
    """
    ends = [trial.finished_at for trial in trials]
    begins = [session.began_at for session in sessions]
    if not begins or any(end is None for end in ends):
        return tuple(np.cumsum([trial.seconds for trial in trials]).tolist())
    found, spent, position = [], 0.0, 0
    start = begins[0]
    last = start
    for end in ends:
        assert end is not None
        while position + 1 < len(begins) and begins[position + 1] <= end:
            position += 1
            if begins[position] > last:
                spent, start = spent + last - start, begins[position]
                last = start
        last = max(last, end)
        found.append(max(0.0, spent + end - start))
    return tuple(found)


def _with(front: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The front with one more point; the same object if an earlier one is as good."""
    if np.any(np.all(front <= point, axis=1)):
        return front
    return np.vstack([front[~np.all(front >= point, axis=1)], point])


def _volume(front: np.ndarray) -> float:
    """Of what the front dominates below (1, ..., 1)."""
    if front.shape[1] == 1:
        return float(1.0 - front.min())
    import moocore

    return float(moocore.hypervolume(front, ref=np.ones(front.shape[1])))
