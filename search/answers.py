"""What is known already: nothing is evaluated twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from storage import Measurement, Outcome, Trial
from strategies.space import candidate_key

from .metrics import AUDIT, RATIO


class Answers:
    """The outcomes of ended trials, by what they mean and by the files that they gave.

    Args:
        known: By candidate key, what earlier studies found out.
    """

    def __init__(self, trials: Iterable[Trial], known: Mapping[str, Outcome]) -> None:
        self._known = dict(known)
        self._by_candidate: dict[str, Trial] = {}
        self._by_artifact: dict[str, Trial] = {}
        for trial in trials:
            self.add(trial, candidate_key(trial.candidate))

    def add(self, trial: Trial, key: str) -> None:
        """Remember an ended trial for those that mean or give the same.

        Args:
            key: Of its candidate.
        """
        if trial.state in ("complete", "refused"):
            self._by_candidate.setdefault(key, trial)
        if trial.state == "complete" and trial.artifact:
            self._by_artifact.setdefault(trial.artifact.sha256, trial)

    def renew(self, trials: Sequence[Trial]) -> None:
        """Take trials as they are now, by number: some have been measured again."""
        for table in (self._by_candidate, self._by_artifact):
            table.update({key: trials[trial.number] for key, trial in table.items()})

    def of_candidate(self, key: str) -> Outcome | None:
        """The outcome of an earlier trial, or of an earlier study, with the same candidate."""
        other = self._by_candidate.get(key)
        if other is None:
            return self._known.get(key)
        return taken_over(other)

    def of_artifact(self, sha256: str) -> tuple[int, tuple[Measurement, ...]] | None:
        """The trial that gave the same bytes, and what was measured on them."""
        trial = self._by_artifact.get(sha256)
        return None if trial is None else (trial.number, _of_search(trial))

    def forget(self, outcome: Outcome) -> None:
        """Drop what was known of an outcome whose files are gone."""
        if outcome.artifact is None:
            return
        lost = outcome.artifact.sha256
        self._by_artifact.pop(lost, None)
        for table in (self._by_candidate, self._known):
            for key in [k for k, v in table.items() if v.artifact and v.artifact.sha256 == lost]:
                del table[key]


def taken_over(trial: Trial, study: str = "") -> Outcome:
    """The outcome of an ended trial for another one that means the same.

    Args:
        study: Of the trial, if it is another study.
    """
    return Outcome(
        trial.state,
        trial.cause,
        tuple(replace(stage, cached=True, seconds=0.0) for stage in trial.stages),
        trial.artifact,
        _of_search(trial),
        reused_from=trial.number,
        reused_study=study,
    )


def _of_search(trial: Trial) -> tuple[Measurement, ...]:
    """What was measured, without the scores of an audit: those are of the front's rows alone. A
    second timing goes along, for the interval of the first covers it."""
    again = f"{AUDIT}{RATIO}"
    return tuple(
        m
        for m in trial.measurements
        if not m.metric.startswith(AUDIT) or m.metric.startswith(again)
    )
