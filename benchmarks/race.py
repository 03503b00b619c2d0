"""One run: a player proposes, the problem answers, the hypervolume of what was found is noted."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from search.errors import NasliteError
from strategies.base import Budget, Exhausted, Observation, Proposal, Strategy, View, trial_rng
from strategies.space import Candidate, candidate_key

from .problem import Archive, Outcome, Problem


class Player(Protocol):
    """Proposes candidates; the first must be the baseline.

    Args:
        seconds: Spent so far in the strategy proper, bookkeeping of the player not counted.
    """

    seconds: float

    def ask(self) -> Candidate:
        """The next candidate; the one before has been told.

        Raises:
            Exhausted: Nothing is left to propose.
        """
        ...

    def tell(self, candidate: Candidate, outcome: Outcome) -> None: ...


@dataclass(frozen=True, slots=True)
class Run:
    """How a run went.

    Args:
        steps: (evaluations, share of the true hypervolume) where the share grew, 0 to 1; the
            first evaluation is that of the baseline.
        evaluations: Made in all; less than the budget if the strategy had nothing left.
        repeats: Proposals equal to an earlier one of the run.
        refused: Evaluations of candidates that the problem refused.
        seconds: Spent on proposals, evaluations and bookkeeping not counted.
    """

    steps: tuple[tuple[int, float], ...]
    evaluations: int
    repeats: int
    refused: int
    seconds: float

    @property
    def final(self) -> float:
        return self.steps[-1][1] if self.steps else 0.0

    def evaluations_to(self, share: float) -> int | None:
        """Evaluations until this share of the true hypervolume; None if it was not reached."""
        for evaluations, reached in self.steps:
            if reached >= share * (1 - 1e-12):
                return evaluations
        return None


def race(problem: Problem, player: Player, budget: int, seed: int) -> Run:
    """Let a player evaluate `budget` candidates, the baseline included.

    The player sees what is measured; the hypervolume is that of the true values of what it chose.
    """
    archive = Archive(problem.reference)
    visits: Counter[str] = Counter()
    steps: list[tuple[int, float]] = []
    evaluations = refused = 0
    for number in range(budget):
        try:
            candidate = player.ask()
        except Exhausted:
            break
        key = candidate_key(candidate)
        outcome = problem.measured(candidate, seed, visits[key])
        visits[key] += 1
        evaluations += 1
        refused += outcome.is_refused
        true = problem.exact(candidate) if visits[key] == 1 else Outcome()
        if true.is_feasible and archive.add(true.values):
            steps.append((number + 1, archive.hypervolume / problem.hypervolume))
        player.tell(candidate, outcome)
    repeats = evaluations - len(visits)
    return Run(tuple(steps), evaluations, repeats, refused, player.seconds)


class OurPlayer:
    """Drives a strategy as the controller does; the baseline is trial 0.

    Args:
        name: As in a config; part of what each proposal's generator is derived from.
        lag: Trial n sees the outcomes of the trials up to n - lag, the others as pending.
    """

    def __init__(
        self,
        problem: Problem,
        strategy: Strategy,
        name: str,
        *,
        budget: int,
        seed: int,
        lag: int = 1,
    ) -> None:
        self.problem = problem
        self.strategy = strategy
        self.name = name
        self.budget = Budget(budget - 1)
        self.seed = seed
        self.lag = lag
        self.seconds = 0.0
        self._constraints = tuple(str(c) for c in problem.goals.constraints)
        self._done: list[Observation] = []
        self._running: list[Observation] = []
        self._memo: dict[str, Any] = {}
        self._trial_memo: dict[str, Any] = {}
        self._baseline_value = 0.0

    def ask(self) -> Candidate:
        number = len(self._done)
        if number == 0:
            return self.problem.space.baseline()
        proposal = self._asked(number, self._view(self.lag))
        if proposal is None and self.lag > 1:  # a barrier: every earlier trial ends first
            proposal = self._asked(number, self._view(1))
        if proposal is None:
            raise NasliteError(
                f"{self.name} asked to wait at trial {number}, but every earlier one has ended"
            )
        if proposal.study_memo:  # a new mapping: views that were given stay as they were
            self._memo = {**self._memo, **_as_stored(proposal.study_memo)}
        self._trial_memo = _as_stored(proposal.memo)
        return self.problem.space.canonical(proposal.candidate)

    def resumed(self, strategy: Strategy) -> OurPlayer:
        """The same study after a restart: the same rows, a new strategy object."""
        other = OurPlayer(
            self.problem,
            strategy,
            self.name,
            budget=self.budget.trials + 1,
            seed=self.seed,
            lag=self.lag,
        )
        other._done, other._running = list(self._done), list(self._running)
        other._memo, other._baseline_value = dict(self._memo), self._baseline_value
        return other

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        number, memo = len(self._done), self._trial_memo
        self._running.append(Observation(number, candidate, "running", memo=memo))
        if outcome.metrics is None:
            self._done.append(Observation(number, candidate, "refused", seconds=1.0, memo=memo))
            return
        position = self.problem.objectives.index(self.problem.quality)
        if number == 0:
            self._baseline_value = outcome.values[position]
        drop = outcome.values[position] - self._baseline_value
        self._done.append(
            Observation(
                number,
                candidate,
                "complete",
                values=outcome.values,
                violations=outcome.violations,
                metrics={**outcome.metrics, f"{self.problem.quality}_drop": drop},
                seconds=1.0,
                memo=memo,
            )
        )

    def _view(self, lag: int) -> View:
        seen = max(0, len(self._done) - lag + 1)
        return View(
            space=self.problem.space,
            objectives=self.problem.objectives,
            constraints=self._constraints,
            seed=self.seed,
            budget=self.budget,
            done=tuple(self._done[:seen]),
            pending=tuple(self._running[seen:]),
            memo=MappingProxyType(self._memo),
            drop=f"{self.problem.quality}_drop",
            costs=self.problem.costs,
        )

    def _asked(self, number: int, view: View) -> Proposal | None:
        rng = trial_rng(self.seed, self.name, number)
        begun = time.perf_counter()
        proposal = self.strategy.propose(view, number, rng)
        self.seconds += time.perf_counter() - begun
        return proposal


def _as_stored(memo: Any) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(json.dumps(dict(memo), allow_nan=False))
    return stored
