"""One run: a player proposes, the problem answers, the hypervolume of what was found is noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from search.metrics import drop_name
from search.proposals import Proposals
from storage import Measurement, Study, Trial
from strategies.base import Exhausted, Proposal, Strategy, View
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
    """Drives a strategy as a study does: by `Proposals`, over rows that are kept in memory.

    Args:
        name: As in a config; part of what each proposal's generator is derived from.
        lag: Trial n sees the outcomes of the trials up to n - lag, the others as pending.

    Attributes:
        rows: The trials so far; trial 0 is the baseline.
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
        self.name = name
        self.budget = budget
        self.seed = seed
        self.lag = lag
        self.rows: list[Trial] = []
        self._timed = _Timed(strategy)
        self._proposals = Proposals(
            _study(problem, name, budget, seed),
            space=problem.space,
            strategy=self._timed,
            goals=problem.goals,
            lag=lag,
        )
        self._memo: dict[str, Any] = {}
        self._trial_memo: Mapping[str, Any] = {}

    @property
    def seconds(self) -> float:
        return self._timed.seconds

    def ask(self) -> Candidate:
        proposal = self._proposals.proposal(len(self.rows), self.rows, self._memo)
        assert proposal is not None  # every trial has ended
        self._memo |= proposal.study_memo
        self._trial_memo = proposal.memo
        return proposal.candidate

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        measured: tuple[Measurement, ...] = ()
        if outcome.metrics is not None:
            metrics = {**outcome.metrics, **self._drop(outcome.metrics)}
            measured = tuple(Measurement(name, value) for name, value in metrics.items())
        self.rows.append(
            Trial(
                len(self.rows),
                "refused" if outcome.is_refused else "complete",
                candidate,
                memo=self._trial_memo,
                measurements=measured,
                seconds=1.0,
            )
        )

    def resumed(self, strategy: Strategy) -> OurPlayer:
        """The same study after a restart: the same rows, a new strategy object."""
        other = OurPlayer(
            self.problem, strategy, self.name, budget=self.budget, seed=self.seed, lag=self.lag
        )
        other.rows, other._memo = list(self.rows), dict(self._memo)
        return other

    def _drop(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """How much quality was lost against the baseline, lower is better."""
        name = self.problem.quality
        baseline = self.rows[0].metrics if self.rows else metrics
        sign = -1.0 if self.problem.goals.objectives.get(name) == "maximize" else 1.0
        return {drop_name(name): sign * (metrics[name] - baseline[name])}


class _Timed:
    """A strategy, and the seconds spent in it."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.seconds = 0.0

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal | None:
        begun = time.perf_counter()
        try:
            return self.strategy.propose(view, number, rng)
        finally:
            self.seconds += time.perf_counter() - begun


def _study(problem: Problem, name: str, budget: int, seed: int) -> Study:
    """What `Proposals` must know of a study; its budget is without the baseline."""
    return Study(
        id=0,
        name=problem.name,
        state="running",
        cause="",
        config={"strategy": {"name": name}},
        space=[],
        task_fingerprint="",
        seed=seed,
        trials=budget - 1,
        minutes=None,
        facts={"score_name": problem.quality},
        memo={},
        seconds=0.0,
        owner="",
        claimed_at=0.0,
        lease_until=0.0,
        created_at=0.0,
        updated_at=0.0,
    )
