"""What a study may take, and what it has taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from storage import Study


class Spending:
    """The budget of a study, and the clock of this session's search."""

    def __init__(self, study: Study) -> None:
        self.budget: tuple[int, float | None] = study.trials, study.minutes
        self._seconds = study.seconds  # committed
        self._mark = time.monotonic()  # until when they count

    def uncommitted(self) -> float:
        """Seconds of searching that the store does not know of."""
        return time.monotonic() - self._mark

    def commit(self, seconds: float) -> None:
        """The store knows of so many more."""
        self._mark += seconds
        self._seconds += seconds

    @contextmanager
    def standing(self) -> Iterator[None]:
        """What the block does is no searching."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._mark += time.monotonic() - began

    def used_up(self, number: int) -> tuple[str, str] | None:
        """The state and cause in which a study ends before its trial `number`, if it does."""
        trials, minutes = self.budget
        if number - 1 >= trials:
            return "finished", f"all {trials} trials are done"
        seconds = self._seconds + self.uncommitted()
        if number and minutes is not None and seconds >= 60 * minutes:
            return "finished", f"the {minutes:g} minutes are used up"
        return None
