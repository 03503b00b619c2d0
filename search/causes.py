"""Why trials did not complete: their causes, counted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from storage import Trial

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Cause:
    """Trials that ended in the same state for the same reason.

    Args:
        text: Of the first of them; those of the others differ in numbers only.
        numbers: Of the trials.
    """

    state: str
    text: str
    numbers: tuple[int, ...]


def causes(trials: Iterable[Trial]) -> list[Cause]:
    """The trials that are not complete, by state and cause, the most frequent first."""
    found: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.state != "complete":
            found[trial.state, _NUMBER.sub("N", trial.cause)].append(trial)
    counted = [
        Cause(state, group[0].cause, tuple(trial.number for trial in group))
        for (state, _), group in found.items()
    ]
    return sorted(counted, key=lambda cause: (-len(cause.numbers), cause.numbers))
