"""Watching a study as it goes on."""

from __future__ import annotations

from storage import Study, Trial


class Observer:
    """Called by the controller as a study goes on; override what you need."""

    def preparing(self, what: str) -> None:
        """Something that may take a while begins before the study starts."""

    def started(self, study: Study, trials: list[Trial]) -> None:
        """The controller owns the study; `trials` are those stored so far."""

    def proposed(self, number: int, candidate: dict[str, object]) -> None:
        """A trial is stored and its evaluation begins."""

    def ended(self, trial: Trial) -> None:
        """A trial ended and is stored."""

    def stopped(self, state: str, cause: str) -> None:
        """The study was given up in a state: finished, stopped, interrupted or failed."""
