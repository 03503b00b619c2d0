"""Asking a strategy: what it sees of a study, and its answer as the store keeps it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from storage import Study, Trial
from storage.records import ENDED_STATES, Extension
from strategies.base import Budget, Exhausted, Observation, Proposal, Strategy, View, trial_rng
from strategies.space import Space, SpaceError

from .errors import NasliteError
from .goals import Goals
from .metrics import AUDIT, drop_name

ASYNC = "async"  # the lag of studies that see whatever has ended


class Proposals:
    """The proposals of one study, each a function of its stored rows.

    Args:
        lag: Trial n sees the outcomes of the trials up to n - lag; the later ones are pending to
            it, whether or not they have ended. `async`: it sees all that have ended. Default:
            the study's.
        extensions: The budgets that followed the study's first one.
    """

    def __init__(
        self,
        study: Study,
        *,
        space: Space,
        strategy: Strategy,
        goals: Goals,
        lag: int | str | None = None,
        extensions: Iterable[Extension] = (),
    ) -> None:
        self.study = study
        self.space = space
        self.strategy = strategy
        self.strategy_name: str = study.config["strategy"]["name"]
        self.goals = goals
        self.lag: int | str = study.config.get("lag", 1) if lag is None else lag
        self.extensions = list(extensions)
        budget = study.config.get("budget", {"trials": study.trials, "minutes": study.minutes})
        self._first_budget = Budget(budget["trials"], budget["minutes"])
        self._enqueued: list[dict[str, Any]] = list(study.config.get("enqueue", ()))
        self._observations: dict[int, Observation] = {}
        self._prefix: list[Observation] = []  # of the first trials, which have all ended
        self._passed = 0  # how many trials the prefix is of

    @property
    def first(self) -> int:
        """The number of the strategy's first trial: after the baseline and what is enqueued."""
        return 1 + len(self._enqueued)

    def origin(self, number: int) -> str:
        """Who chooses the candidate of a new trial."""
        if number == 0:
            return "baseline"
        return "enqueued" if number < self.first else "strategy"

    def budget(self, number: int) -> Budget:
        """The budget under which a trial was proposed."""
        found = self._first_budget
        for extension in self.extensions:
            if extension.number <= number:
                found = Budget(extension.trials, extension.minutes)
        return found

    def visible(self, number: int) -> int:
        """How many trials must have ended before trial `number` can be proposed."""
        return 0 if isinstance(self.lag, str) else max(0, number - self.lag + 1)

    def seen(self, number: int, trials: Sequence[Trial]) -> Sequence[Trial]:
        """The trials whose outcomes trial `number` sees, without a barrier.

        A continued training sees none, and none sees it: somebody has chosen it.
        """
        if trials[number].is_continued:
            return []
        if isinstance(self.lag, str):
            return [t for t in trials if t.state in ENDED_STATES and not t.is_continued]
        return [t for t in trials[: self.visible(number)] if not t.is_continued]

    def proposal(
        self, number: int, trials: Sequence[Trial], memo: Mapping[str, Any]
    ) -> Proposal | None:
        """The canonical candidate of trial `number`, with its memos as they are stored.

        Args:
            trials: Every trial below `number`, by number; the first `visible(number)` have ended.
            memo: The study memo after the proposals below `number`.

        Returns:
            None at a barrier: ask again when all of `trials` have ended.

        Raises:
            Exhausted: The strategy has nothing left to propose.
            NasliteError: An error of the strategy: it fails, asks to wait though every trial has
                ended, or answers with something else than a candidate of the space and JSON.
        """
        if number == 0:
            return Proposal(self.space.baseline())
        if number < self.first:
            return Proposal(self._enqueued[number - 1])
        view = self.view(number, trials, memo)
        proposal = self._asked(number, view)
        if proposal is None and view.pending:
            if any(trial.state not in ENDED_STATES for trial in trials[:number]):
                return None
            proposal = self._asked(number, self.view(number, trials, memo, lag=1))
        if proposal is None:
            raise NasliteError(
                f"strategy {self.strategy_name!r} asked to wait at trial {number},"
                " but every earlier trial has ended; this is an error of the strategy"
            )
        try:
            candidate = self.space.canonical(proposal.candidate)
        except SpaceError as error:
            raise NasliteError(
                f"strategy {self.strategy_name!r} left the space at trial {number}: {error}"
            ) from None
        return Proposal(
            candidate,
            _as_stored(proposal.memo),
            _as_stored(proposal.study_memo),
        )

    def view(
        self,
        number: int,
        trials: Sequence[Trial],
        memo: Mapping[str, Any],
        *,
        lag: int | str | None = None,
    ) -> View:
        """What the strategy sees when it is asked for trial `number`; see `proposal`."""
        done, pending = self._split(trials[:number], self.lag if lag is None else lag)
        score = self.study.facts["score_name"]
        drop = drop_name(score)
        return View(
            space=self.space,
            objectives=tuple(self.goals.objectives),
            constraints=tuple(str(c) for c in self.goals.constraints),
            seed=self.study.seed,
            budget=self.budget(number),
            done=done,
            pending=tuple(_pending(trial) for trial in pending),
            memo=MappingProxyType(dict(memo)),
            drop=drop,
            costs=self.goals.costs(score, drop),
        )

    def _asked(self, number: int, view: View) -> Proposal | None:
        rng = trial_rng(self.study.seed, self.strategy_name, number)
        try:
            proposal: object = self.strategy.propose(view, number, rng)
        except Exhausted:
            raise
        except Exception as error:
            raise NasliteError(
                f"strategy {self.strategy_name!r} failed at trial {number}:"
                f" {type(error).__name__}: {error} (--debug shows where)"
            ) from error
        if proposal is None or isinstance(proposal, Proposal):
            return proposal
        raise NasliteError(
            f"strategy {self.strategy_name!r} must return a Proposal or None,"
            f" got {proposal!r} at trial {number}"
        )

    def _split(
        self, trials: Sequence[Trial], lag: int | str
    ) -> tuple[tuple[Observation, ...], Sequence[Trial]]:
        """The outcomes that the next trial sees, and the other trials.

        Continued trainings are left out: their epochs are not of the strategy's space.
        """
        if isinstance(lag, str):
            own = [trial for trial in trials if not trial.is_continued]
            ended = [trial for trial in own if trial.state in ENDED_STATES]
            others = [trial for trial in own if trial.state not in ENDED_STATES]
            return tuple(map(self._ended, ended)), others
        visible = max(0, len(trials) - lag + 1)
        new = [self._ended(t) for t in trials[self._passed : visible] if not t.is_continued]
        self._prefix += new
        self._passed = max(self._passed, visible)
        count = bisect_left(self._prefix, visible, key=attrgetter("number"))
        return tuple(self._prefix[:count]), [t for t in trials[visible:] if not t.is_continued]

    def _ended(self, trial: Trial) -> Observation:
        found = self._observations.get(trial.number)
        if found is None:
            assert trial.state in ENDED_STATES, f"trial {trial.number} has not ended"
            complete = trial.state == "complete"
            metrics = trial.metrics if complete else {}  # no audit: a strategy must not learn it
            metrics = {name: v for name, v in metrics.items() if not name.startswith(AUDIT)}
            found = self._observations[trial.number] = Observation(
                number=trial.number,
                candidate=trial.candidate,
                state=trial.state,
                values=self.goals.values(metrics) if complete else (),
                violations=self.goals.violations(metrics) if complete else (),
                metrics=metrics,
                seconds=trial.seconds,
                memo=trial.memo,
            )
        return found


def _pending(trial: Trial) -> Observation:
    return Observation(trial.number, trial.candidate, "running", memo=trial.memo)


def _as_stored(memo: Mapping[str, Any]) -> dict[str, Any]:
    """A memo as it comes back from the store, so that resuming changes no proposal.

    Raises:
        NasliteError: It is not JSON.
    """
    try:
        stored: dict[str, Any] = json.loads(json.dumps(dict(memo), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise NasliteError(f"a strategy's memo must be JSON, got {memo!r} ({error})") from None
    return stored
