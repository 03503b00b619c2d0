"""Staged evaluation: giving up, after few samples, a candidate that is beyond its limit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compressors.base import Task
from compressors.training import seeded

from . import measure
from .cutting import CannotCut, cut_out
from .expressions import Comparison
from .jobs import Scored
from .metrics import drop_name
from .paired import ALPHA, drop_bounds
from .runtimes.base import Session
from .scoring import described

LOOKS = (256, 1024)
CHEAP = 4  # a look is taken where all samples are at least so many times as many

log = logging.getLogger("naslite.search")


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest drop that a constraint allows."""

    constraint: Comparison
    drop: float

    def cause(self, lost: float, samples: int, total: int) -> str:
        """Why a candidate is given up, that has lost at least so much."""
        c = self.constraint
        opposite = {"<=": ">", "<": ">=", ">=": "<", ">": "<="}[c.op]
        broken = Comparison(c.name, opposite, c.literal)
        what = "" if c.op in ("<=", "<") and c.name.endswith("_drop") else "a drop of "
        return f"{broken}: {what}at least {lost:.3g} after {samples:,} of {total:,} samples (95 %)"


def looks_at(samples: int) -> tuple[int, ...]:
    """After how many of so many samples a candidate may be given up."""
    return tuple(look for look in LOOKS if CHEAP * look <= samples)


def limiting(
    constraints: Iterable[Comparison], score_name: str, higher_is_better: bool
) -> list[Comparison]:
    """The constraints that a low score breaks: on the drop, or on the score itself."""
    wanted = (">=", ">") if higher_is_better else ("<=", "<")
    ops = {drop_name(score_name): ("<=", "<"), score_name: wanted}
    return [c for c in constraints if c.op in ops.get(c.name, ())]


def tightest(
    constraints: Sequence[Comparison], score_name: str, baseline: float, higher_is_better: bool
) -> Limit:
    """The limit on the drop that is met last.

    Args:
        constraints: Those that `limiting` gives; at least one.
        baseline: The score of the uncompressed model.
    """
    sign = 1.0 if higher_is_better else -1.0
    limits = [
        Limit(
            c, sign * (baseline - float(c.literal)) if c.name == score_name else float(c.literal)
        )
        for c in constraints
    ]
    return min(limits, key=lambda limit: limit.drop)


class Looks:
    """Looks at some samples before all are scored, the same ones for every candidate of a study.

    They are a random sample without replacement, since evaluation sets may be sorted by class. The
    error of giving up a candidate within the limit is at most 5 % over all looks (Bonferroni).

    Args:
        constraints: Those that `limiting` gives; at least one.
        seed: Of the study.
    """

    def __init__(self, task: Task, constraints: Sequence[Comparison], seed: int) -> None:
        self._task = task
        self._constraints = constraints
        self._seed = seed
        self._drawn: tuple[int, list[np.ndarray], list[list[Any]]] | None = None
        self._is_off = False

    def given_up(self, session: Session, reference: np.ndarray, seed: int) -> Scored | None:
        """The score over the first look that shows a drop beyond the limit, with the cause.

        Args:
            reference: The baseline's records of all samples.
            seed: Of a bootstrap.

        Returns:
            None if all samples are to be scored.

        Raises:
            ValueError: See `measure.records_of`.
        """
        task, total = self._task, len(reference)
        looks = looks_at(total)
        if not looks or self._is_off:
            return None
        picks, parts = self._samples(total, looks)
        if self._is_off:
            return None
        with seeded(0):
            whole = measure.score_of(task, reference)
        limit = tightest(self._constraints, task.score_name, whole, task.higher_is_better)
        known: list[np.ndarray] = []
        for position, look in enumerate(looks):
            with seeded(0):
                known.append(measure.records_of(session, task, parts[position]))
            records = np.concatenate(known)
            found = self._judged(
                records, reference[np.concatenate(picks[: position + 1])], len(looks), limit, seed
            )
            if found is not None:
                lost, scored = found
                return replace(scored, stopped=limit.cause(lost, look, total))
        return None

    def _judged(
        self, records: np.ndarray, reference: np.ndarray, looks: int, limit: Limit, seed: int
    ) -> tuple[float, Scored] | None:
        """What is certainly lost, and the score so far, if that is beyond the limit."""
        task = self._task
        with seeded(0):
            try:
                score = measure.score_of(task, records)
                before = measure.score_of(task, reference)
            except Exception:  # there is none of so few samples, such as F1 without a positive
                return None
            bounds = drop_bounds(
                task.score,
                reference,
                records,
                higher_is_better=task.higher_is_better,
                seed=seed,
                alpha=ALPHA / looks,
            )
        if bounds is None or not bounds[0] > limit.drop:
            return None
        scored = described(task, score, records, reference, seed)
        return bounds[0], replace(scored, records=None, baseline_score=before)

    def _samples(
        self, total: int, looks: Sequence[int]
    ) -> tuple[list[np.ndarray], list[list[Any]]]:
        """For each look, the positions and the batches of the samples that it adds."""
        if self._drawn is not None and self._drawn[0] == total:
            return self._drawn[1:]
        order = np.random.default_rng((self._seed, total)).permutation(total)
        picks = [np.sort(order[start:end]) for start, end in zip((0, *looks), looks, strict=False)]
        try:
            with seeded(0):
                parts, counted = cut_out(self._task, picks)
            if counted != total:
                raise CannotCut(f"there are {total} records of {counted} samples")
        except CannotCut as error:
            self._is_off, parts = True, [[] for _ in looks]
            log.warning("stage_evaluation: all samples are scored: %s", error)
        self._drawn = total, picks, parts
        return picks, parts
