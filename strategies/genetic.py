"""NSGA-II in steady state: every proposal is bred from the best of all that is visible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import moocore
import numpy as np
from deap import base, tools

from .base import Observation, Proposal, View
from .knobs import Knob, Value
from .options import OptionChecks, real_number, whole_number
from .random_search import unseen_candidate
from .space import Candidate, Space, candidate_key

TRIES = 32
MATES = 4  # tournament winners among which the most similar one becomes the second parent
CONCENTRATION = 8.0  # of the levels in an initial candidate around its degree of compression
GOLDEN = (5**0.5 - 1) / 2


class Fitness(base.Fitness):  # type: ignore[misc]
    """Objective values, all minimised; made without DEAP's `creator`, which is global."""

    def __init__(self, values: Sequence[float]) -> None:
        self.weights = (-1.0,) * len(values)
        super().__init__(values)


class Parent:
    """A visible trial as DEAP sees it, with its place in the population."""

    __slots__ = ("candidate", "fitness", "rank", "trial")

    def __init__(self, trial: Observation) -> None:
        self.trial = trial
        self.candidate = trial.candidate
        self.fitness = Fitness(trial.values)
        self.rank = 0


class GeneticSearch:
    """NSGA-II with constraint domination, one child at a time, without duplicates.

    Begins with the extremes of the space and candidates of every degree of compression. Then a
    parent wins a binary tournament among the `population` best of ALL visible trials (so nothing
    good is forgotten), the second is the most similar in its outcome of four winners, and uniform
    crossover and mutation make a child: a neighbouring level of an ordered knob, any other level
    of an unordered one, a polynomial step of a continuous one.

    Sources: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE TEVC
    2002 (ranking, crowding, constraints in section VI); Durillo et al., "On the Effect of the
    Steady-State Selection Scheme in Multi-Objective Genetic Algorithms", EMO 2009; Ishibuchi and
    Shibata, "Mating Scheme for Controlling the Diversity-Convergence Balance for Multiobjective
    Optimization", GECCO 2004; Deb and Agrawal, "Simulated Binary Crossover for Continuous Search
    Space", 1995 (polynomial mutation).

    Args:
        population: Parents are the best of so many trials, >= 4.
        initial: Trials before breeding begins, extremes included, >= 2; None = `population`.
        crossover: Probability that a child has two parents, in [0, 1].
        mutation: Expected number of knobs that a mutation changes, >= 0; one at least is.
        eta: Distribution index of the polynomial mutation, >= 0; greater = smaller steps.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(
        self,
        population: int = 20,
        initial: int | None = None,
        crossover: float = 0.9,
        mutation: float = 1.0,
        eta: float = 20.0,
    ) -> None:
        checked = OptionChecks()
        self.population = checked(whole_number, "population", population, 4)
        self.initial = (
            population if initial is None else checked(whole_number, "initial", initial, 2)
        )
        self.crossover = checked(real_number, "crossover", crossover, 0.0, 1.0)
        self.mutation = checked(real_number, "mutation", mutation, 0.0)
        self.eta = checked(real_number, "eta", eta, 0.0)
        checked.report()
        self._known: dict[int, Parent] = {}

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal:
        seen = view.seen_keys()
        for candidate in self._candidates(view, len(seen), rng):
            if candidate_key(candidate) not in seen:
                return Proposal(candidate)
        return Proposal(unseen_candidate(view, rng))

    def _candidates(
        self, view: View, known: int, rng: np.random.Generator
    ) -> Iterator[dict[str, Value]]:
        """What might come next, the best idea first."""
        space = view.space
        if known < self.initial:
            yield space.origin()
            yield space.extreme()
            degree = (view.seed % 1009 / 1009 + known * GOLDEN) % 1
            for _ in range(TRIES):
                yield compressed(space, degree, rng)
            return
        if len(self._known) > 2 * len(view.done):  # of other studies
            self._known.clear()
        parents = best_parents(view.done, self.population, self._known)
        if not parents:
            return
        for _ in range(TRIES):
            yield self._child(space, parents, rng)
        near = space.neighbours(parents[int(rng.integers(len(parents)))].candidate)
        for i in rng.permutation(len(near)):
            yield near[i]

    def _child(
        self, space: Space, parents: Sequence[Parent], rng: np.random.Generator
    ) -> dict[str, Value]:
        mother = _tournament(parents, rng)
        if rng.random() < self.crossover:
            father = _mate(mother, parents, rng)
            child = crossed(space, mother.candidate, father.candidate, rng)
        else:
            child = dict(mother.candidate)
        return self._mutated(space, child, rng)

    def _mutated(
        self, space: Space, child: dict[str, Value], rng: np.random.Generator
    ) -> dict[str, Value]:
        names = [name for name in child if not space[name].is_fixed]
        if names:
            hits = rng.random(len(names)) < self.mutation / len(names)
            if not hits.any():
                hits[int(rng.integers(len(names)))] = True
            for i in np.flatnonzero(hits):
                knob = space[names[i]]
                value = child[knob.name]
                if not knob.contains(value):  # of the baseline
                    value = knob.least_compressed()
                child[knob.name] = mutated(knob, value, self.eta, rng)
        return space.complete(child)


def compressed(space: Space, degree: float, rng: np.random.Generator) -> dict[str, Value]:
    """A random candidate of a degree of compression in [0, 1].

    Positions of knobs with a direction are drawn from a beta distribution with this mean, those
    of others uniformly. Uniform candidates would all be compressed about alike: their costs are
    sums over many knobs.
    """
    a, b = CONCENTRATION * max(degree, 1e-3), CONCENTRATION * max(1 - degree, 1e-3)
    drawn = rng.beta(a, b, len(space))
    uniform = rng.random(len(space))
    chosen = {}
    for knob, along, free in zip(space, drawn, uniform, strict=True):
        if knob.direction:
            chosen[knob.name] = knob.from_unit(along if knob.direction > 0 else 1 - along)
        else:
            size = knob.size
            chosen[knob.name] = knob.at(int(free * size)) if size else knob.from_unit(free)
    return space.complete(chosen)


def best_parents(
    done: Sequence[Observation], count: int, known: dict[int, Parent] | None = None
) -> list[Parent]:
    """The best complete trials by constraint domination, then by crowding distance.

    A feasible trial beats an infeasible one, and of two infeasible ones that with less violation;
    equals in this are ranked by `selNSGA2`. `Parent.rank` counts the fronts over all groups.

    Args:
        known: Parents that were made before, by the `id` of their trials; new ones join it.
    """
    known = {} if known is None else known
    broken = [(sum(t.violations), t.number, t) for t in done if t.state == "complete"]
    broken.sort(key=itemgetter(0, 1))
    chosen: list[Parent] = []
    fronts = 0
    for _, group in groupby(broken, key=itemgetter(0)):
        trials = [trial for _, _, trial in group]
        ranks = moocore.pareto_rank(np.array([trial.values for trial in trials]))
        wanted = count - len(chosen)
        last = np.sort(ranks)[min(wanted, len(ranks)) - 1]  # later fronts cannot be chosen
        parents = []
        for trial, rank in zip(trials, ranks, strict=True):
            if rank <= last:
                parent = known.get(id(trial))
                if parent is None or parent.trial is not trial:
                    parent = known[id(trial)] = Parent(trial)
                parent.rank = fronts + int(rank)
                parents.append(parent)
        # DEAP's fast sort needs two objectives; with one, little is left to sort.
        sort = "log" if len(trials[0].values) > 1 else "standard"
        chosen += tools.selNSGA2(parents, wanted, nd=sort)
        fronts += int(last) + 1
        if len(chosen) >= count:
            break
    return chosen


def crossed(
    space: Space, mother: Candidate, father: Candidate, rng: np.random.Generator
) -> dict[str, Value]:
    """Uniform crossover; a knob that only one parent has comes from that one."""
    from_father = (rng.random(len(space)) < 0.5).tolist()
    child = {}
    for knob, other in zip(space, from_father, strict=True):
        first, second = (father, mother) if other else (mother, father)
        if knob.name in first:
            child[knob.name] = first[knob.name]
        elif knob.name in second:
            child[knob.name] = second[knob.name]
    return space.complete(child)


def mutated(knob: Knob, value: Value, eta: float, rng: np.random.Generator) -> Value:
    """Another value of the knob: a neighbour where it is ordered, else any of the others."""
    if knob.size is None:
        return knob.from_unit(_polynomial(knob.to_unit(value), eta, rng))
    others = knob.adjacent(value)
    return others[int(rng.integers(len(others)))]


def _polynomial(x: float, eta: float, rng: np.random.Generator) -> float:
    """Polynomial mutation of a position in [0, 1] (Deb and Agrawal 1999, with bounds)."""
    u, power = rng.random(), 1 / (eta + 1)
    if u < 0.5:
        inner = 2 * u + (1 - 2 * u) * (1 - x) ** (eta + 1)
        return float(x + inner**power - 1)
    inner = 2 * (1 - u) + (2 * u - 1) * x ** (eta + 1)
    return float(x + 1 - inner**power)


def _tournament(parents: Sequence[Parent], rng: np.random.Generator) -> Parent:
    """The better of two: the lower front, then the greater crowding distance."""
    i, j = rng.integers(len(parents), size=2)
    better: Parent = min(parents[i], parents[j], key=_standing)
    return better


def _mate(mother: Parent, parents: Sequence[Parent], rng: np.random.Generator) -> Parent:
    """Of some tournament winners the one most like the mother in its outcome."""
    values = np.array([parent.fitness.values for parent in parents])
    spread = np.ptp(values, axis=0)
    spread[spread == 0] = 1.0
    winners = [_tournament(parents, rng) for _ in range(MATES)]
    others = [winner for winner in winners if winner is not mother] or winners
    apart = [
        float(np.sum(np.abs(np.subtract(w.fitness.values, mother.fitness.values)) / spread))
        for w in others
    ]
    return others[int(np.argmin(apart))]


def _standing(parent: Parent) -> tuple[int, float]:
    return parent.rank, -parent.fitness.crowding_dist
