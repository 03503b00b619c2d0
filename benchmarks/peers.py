"""Other libraries as their documentation says to use them, to compare ours with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from strategies.base import Exhausted
from strategies.space import Candidate, Knob

from .problem import Outcome, Problem
from .race import Player

POPULATION = 20  # as in ours: the libraries' 50 and 100 suit larger budgets


def optuna_distribution(knob: Knob) -> Any:
    """An ordered knob as the integers of its levels, an unordered one as categories."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    assert knob.size is not None
    if knob.ordered:
        return IntDistribution(0, knob.size - 1)
    return CategoricalDistribution([knob.at(i) for i in range(knob.size)])


class OptunaPlayer:
    """One sampler kept for the whole study in memory; `study.ask`, `study.tell`.

    The baseline is enqueued as the first trial. A limit is a constraint of the trial, and a
    refused candidate breaks one more: as a failed trial it would be ignored by TPE, which then
    proposes its like again and again.

    Args:
        baseline_attrs: Instead of being enqueued, the baseline is added as a finished trial with
            these attributes of the sampler.
    """

    def __init__(
        self,
        problem: Problem,
        make_sampler: Callable[[], Any],
        baseline_attrs: Mapping[str, Any] | None = None,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.problem = problem
        self.make_sampler = make_sampler
        self.seconds = 0.0
        self.knobs = list(problem.space)
        self.distributions = {knob.name: optuna_distribution(knob) for knob in self.knobs}
        self.baseline_attrs = baseline_attrs
        self.study = self._new_study()
        if baseline_attrs is None:
            self.study.enqueue_trial(self._levels(problem.space.baseline()))
        self._trial: Any = None

    def ask(self) -> Candidate:
        if self.baseline_attrs is not None and not self.study.get_trials(deepcopy=False):
            return self.problem.space.baseline()
        begun = time.perf_counter()
        self._trial = self.study.ask(self.distributions)
        self.seconds += time.perf_counter() - begun
        drawn = self._trial.params
        return {
            knob.name: knob.at(drawn[knob.name]) if knob.ordered else drawn[knob.name]
            for knob in self.knobs
        }

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        values, violations = answer(self.problem, outcome)
        if self._trial is None:
            self._add_baseline(candidate, values)
            return
        for position, violation in enumerate(violations):
            self._trial.set_constraint(f"constraint{position}", violation)
        self.study.tell(self._trial, values)

    def resumed(self) -> OptunaPlayer:
        """The same study with a new sampler."""
        other = OptunaPlayer(self.problem, self.make_sampler, self.baseline_attrs)
        other.study = other._new_study()
        other.study.add_trials(self.study.get_trials(deepcopy=False))
        return other

    def _add_baseline(self, candidate: Candidate, values: list[float]) -> None:
        from optuna.trial import create_trial

        finished = create_trial(
            values=values,
            params=self._levels(candidate),
            distributions=self.distributions,
            system_attrs=dict(self.baseline_attrs or {}),
        )
        self.study.add_trial(finished)

    def _levels(self, candidate: Candidate) -> dict[str, Any]:
        """The candidate as Optuna knows it: see `optuna_distribution`."""
        return {
            knob.name: knob.index(candidate[knob.name]) if knob.ordered else candidate[knob.name]
            for knob in self.knobs
        }

    def _new_study(self) -> Any:
        import optuna
        from optuna.study import StudyDirection

        directions = [StudyDirection.MINIMIZE] * len(self.problem.objectives)
        return optuna.create_study(sampler=self.make_sampler(), directions=directions)


def answer(problem: Problem, outcome: Outcome) -> tuple[list[float], list[float]]:
    """Values and violations for a library that knows no refusal: a refused candidate is as bad as
    the reference and breaks a constraint of its own, where the problem refuses at all.
    """
    limits = len(problem.goals.constraints)
    if outcome.is_refused:
        return list(problem.reference), [1.0] + [0.0] * limits
    return list(outcome.values), [0.0] * problem.refuses + list(outcome.violations)


class PymooPlayer:
    """pymoo's NSGA-II, asked and told one generation at a time.

    Ordered knobs alone are integers with the operators that pymoo's guide gives for them (SBX and
    polynomial mutation, eta 3, rounded); with an unordered knob it is `MixedVariableGA` with
    NSGA-II's survival. The baseline is the first individual. A limit is a constraint, and a
    refused candidate breaks one more.
    """

    def __init__(self, problem: Problem, population: int, seed: int) -> None:
        from pymoo.core.termination import NoTermination

        self.knobs = list(problem.space)
        self.problem = problem
        self.seconds = 0.0
        self.integers = all(knob.ordered for knob in self.knobs)
        self.baseline = [knob.index(knob.neutral) for knob in self.knobs]
        self.algorithm = self._algorithm(population)
        self.algorithm.setup(self._problem(), termination=NoTermination(), seed=seed)
        self._generation: Any = None
        self._answers: list[tuple[list[float], list[float]]] = []

    def ask(self) -> Candidate:
        if self._generation is None or len(self._answers) == len(self._generation):
            begun = time.perf_counter()
            self._next_generation()
            self.seconds += time.perf_counter() - begun
        drawn = self._generation[len(self._answers)].X
        levels = drawn if self.integers else [drawn[knob.name] for knob in self.knobs]
        return {k.name: k.at(int(i)) for k, i in zip(self.knobs, levels, strict=True)}

    def tell(self, candidate: Candidate, outcome: Outcome) -> None:
        self._answers.append(answer(self.problem, outcome))

    def _next_generation(self) -> None:
        from pymoo.core.evaluator import Evaluator
        from pymoo.problems.static import StaticProblem

        if self._generation is not None:
            values, limits = (np.array(column) for column in zip(*self._answers, strict=True))
            answered = StaticProblem(self.algorithm.problem, F=values, G=limits)
            Evaluator().eval(answered, self._generation)
            self.algorithm.tell(infills=self._generation)
        self._generation, self._answers = self.algorithm.ask(), []
        if self._generation is None or len(self._generation) == 0:
            raise Exhausted("pymoo finds no candidate that its population does not hold")

    def _problem(self) -> Any:
        from pymoo.core.problem import Problem as PymooProblem
        from pymoo.core.variable import Choice, Integer

        constraints = self.problem.refuses + len(self.problem.goals.constraints)
        counts = {"n_obj": len(self.problem.objectives), "n_ieq_constr": constraints}
        sizes = [knob.size or 0 for knob in self.knobs]
        if self.integers:
            upper = [size - 1 for size in sizes]
            return PymooProblem(n_var=len(sizes), xl=0, xu=np.array(upper), vtype=int, **counts)
        variables = {
            knob.name: Integer(bounds=(0, size - 1))
            if knob.ordered
            else Choice(options=range(size))
            for knob, size in zip(self.knobs, sizes, strict=True)
        }
        return PymooProblem(vars=variables, **counts)

    def _algorithm(self, population: int) -> Any:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.mixed import MixedVariableGA, MixedVariableSampling
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

        if not self.integers:
            return MixedVariableGA(
                pop_size=population,
                sampling=self._baseline_first(MixedVariableSampling),
                survival=RankAndCrowding(),
            )
        rounded = {"prob": 1.0, "eta": 3.0, "vtype": float, "repair": RoundingRepair()}
        return NSGA2(
            pop_size=population,
            sampling=self._baseline_first(IntegerRandomSampling),
            crossover=SBX(**rounded),
            mutation=PM(**rounded),
            eliminate_duplicates=True,
        )

    def _baseline_first(self, sampling: type[Any]) -> Any:
        baseline, knobs, integers = self.baseline, self.knobs, self.integers

        class BaselineFirst(sampling):  # type: ignore[misc]
            def _do(self, *arguments: Any, **options: Any) -> Any:
                drawn = super()._do(*arguments, **options)
                named = {k.name: i for k, i in zip(knobs, baseline, strict=True)}
                drawn[0] = baseline if integers else named
                return drawn

        return BaselineFirst()


def optuna_random(problem: Problem, seed: int) -> Player:
    """Optuna's RandomSampler; it repeats itself."""
    return _optuna(problem, "RandomSampler", seed=seed)


def optuna_tpe(
    problem: Problem,
    seed: int,
    multivariate: bool | None = True,
    n_startup_trials: int = 10,
    n_ei_candidates: int = 24,
    constant_liar: bool = True,
) -> Player:
    """Optuna's TPESampler with its defaults, but multivariate, as ours is."""
    return _optuna(
        problem,
        "TPESampler",
        seed=seed,
        multivariate=multivariate,
        n_startup_trials=n_startup_trials,
        n_ei_candidates=n_ei_candidates,
        constant_liar=constant_liar,
    )


def optuna_nsgaii(
    problem: Problem,
    seed: int,
    population_size: int = POPULATION,
    mutation_prob: float | None = None,
    crossover_prob: float = 0.9,
    swapping_prob: float = 0.5,
    breed_baseline: bool = False,
) -> Player:
    """Optuna's NSGAIISampler with its defaults but for the population.

    It does not breed from enqueued trials, so the baseline is lost to it; `breed_baseline` makes
    the baseline part of the first generation, by the attribute that the sampler itself sets.
    """
    return _optuna(
        problem,
        "NSGAIISampler",
        {"NSGAIISampler:generation": 0} if breed_baseline else None,
        seed=seed,
        population_size=population_size,
        mutation_prob=mutation_prob,
        crossover_prob=crossover_prob,
        swapping_prob=swapping_prob,
    )


def optuna_gp(problem: Problem, seed: int, n_startup_trials: int = 10) -> Player:
    """Optuna's GPSampler; a proposal takes a second or more after some hundred trials."""
    return _optuna(problem, "GPSampler", seed=seed, n_startup_trials=n_startup_trials)


def _optuna(
    problem: Problem,
    sampler: str,
    baseline_attrs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Player:
    import optuna.samplers

    make = getattr(optuna.samplers, sampler)
    return OptunaPlayer(problem, lambda: make(**options), baseline_attrs)


def pymoo_nsga2(problem: Problem, seed: int, population: int = POPULATION) -> Player:
    """pymoo's NSGA-II with the operators of its guide but for the population."""
    return PymooPlayer(problem, population, seed)


# Name after `peer:` -> factory(problem, seed, **options).
PEERS: dict[str, Callable[..., Player]] = {
    "optuna-random": optuna_random,
    "optuna-tpe": optuna_tpe,
    "optuna-nsgaii": optuna_nsgaii,
    "optuna-gp": optuna_gp,
    "pymoo-nsga2": pymoo_nsga2,
}
