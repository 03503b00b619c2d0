"""Watching a study as it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import Study, Trial

if TYPE_CHECKING:
    from .jobs import Epoch


class Observer:
    """Called by the controller as a study goes on; override what you need."""

    def preparing(self, what: str) -> None:
        """Something that may take a while begins before the study starts."""

    def started(self, study: Study, trials: list[Trial]) -> None:
        """The controller owns the study; `trials` are those stored so far."""

    def proposed(self, number: int, candidate: dict[str, object]) -> None:
        """A trial is stored and its evaluation begins."""

    def epoch_ended(self, number: int, epoch: Epoch) -> None:
        """A training of a trial has come so far."""

    def ended(self, trial: Trial) -> None:
        """A trial ended and is stored."""

    def retried(self, trial: Trial, cause: str) -> None:
        """A worker died over a trial, which begins again."""

    def extended(self, trials: int, minutes: float | None) -> None:
        """Somebody gave the study a new budget."""

    def auditing(self, rows: int) -> None:
        """The search has ended; so many rows of the front are scored on the audit split."""

    def retiming(self, rows: int) -> None:
        """The search has ended; so many rows of the front are timed again."""

    def stopping(self, running: int, grace_s: float | None) -> None:
        """Nothing more is begun; what runs may end, for so many seconds if they are limited."""

    def stopped(self, state: str, cause: str) -> None:
        """The study was given up in a state: finished, stopped, interrupted or failed."""
