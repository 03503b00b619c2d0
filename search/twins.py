"""Trials that mean the same: one of them runs, the others wait for it."""

from __future__ import annotations

from storage import Trial
from strategies.space import candidate_key


class Twins:
    """The trials under way, by what their candidates mean."""

    def __init__(self) -> None:
        self._running: dict[str, int] = {}  # by candidate: the trial that runs
        self._waiting: dict[int, list[Trial]] = {}  # for that one
        self._keys: dict[int, str] = {}  # of candidates, by trial that has not ended

    def key(self, trial: Trial) -> str:
        """Of the trial's candidate; worth keeping where it has many knobs."""
        key = self._keys.get(trial.number)
        if key is None:
            key = self._keys[trial.number] = candidate_key(trial.candidate)
        return key

    def begin(self, trial: Trial) -> bool:
        """Whether the trial is to run; if not, it waits for the one that does."""
        running = self._running.setdefault(self.key(trial), trial.number)
        if running != trial.number:
            self._waiting.setdefault(running, []).append(trial)
        return running == trial.number

    def end(self, trial: Trial) -> list[Trial]:
        """Those that waited for a trial that has ended."""
        key = self._keys.pop(trial.number, None)
        if key is not None and self._running.get(key) == trial.number:
            del self._running[key]
        return self._waiting.pop(trial.number, [])
