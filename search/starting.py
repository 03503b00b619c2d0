"""When a pool starts another worker after one could not begin, and when it gives up."""

from __future__ import annotations

import time

MOST_FAILURES = 3  # in a row
FIRST_DELAY_S = 0.5  # doubled with each failure


class Starts:
    """What has become of the workers that a pool has started.

    A machine that is short of processes, files or memory for a moment must not end a search, nor
    must a bench that once takes too long. An error of the bench itself, before any worker was
    ever ready, will not pass.
    """

    def __init__(self) -> None:
        self.failures = 0  # in a row; those of workers that began side by side are one
        self._was_ready = False
        self._due = float("-inf")

    @property
    def are_due(self) -> bool:
        """Whether another worker may be started now."""
        return time.monotonic() >= self._due

    def succeed(self) -> None:
        """A worker is ready."""
        self.failures = 0
        self._was_ready = True
        self._due = float("-inf")

    def fail(self, began_after: int, *, may_pass: bool) -> bool:
        """A worker could not begin; says whether it is of no use to start another.

        Args:
            began_after: `failures` when it was started.
            may_pass: Whether the machine is to blame, not the bench.
        """
        if began_after >= self.failures:
            self.failures += 1
        if self.failures >= MOST_FAILURES or not (may_pass or self._was_ready):
            return True
        self._due = time.monotonic() + FIRST_DELAY_S * 2 ** (self.failures - 1)
        return False
