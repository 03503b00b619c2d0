"""Whether Optuna's samplers, fed as strategies are, search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from strategies.base import Observation
from strategies.optuna_samplers import OptunaSearch
from strategies.optuna_space import FlatParameters
from strategies.optuna_tpe import UnseenTpeSampler
from strategies.optuna_view import ViewStorage, frozen
from strategies.space import Candidate, Choice, Float, Int, Space, candidate_key
from strategies.testing import Toy, play

GENERATIONS = {"nsgaii": {"population_size": 10}, "nsgaiii": {"population_size": 10}}
SLOW_GP = pytest.param("gp", marks=pytest.mark.slow)
LEVELS = Space(
    Float(name=f"ratio{i}", low=0.0, high=0.9, step=0.1, neutral=0.0) for i in range(10)
)
SCHEMES = Space(
    [
        Choice(name="scheme", values=("none", "dynamic", "static"), neutral="none"),
        *(Int(name=f"bits{i}", low=2, high=8, neutral=8) for i in range(5)),
    ]
)


@dataclass(frozen=True)
class Problem(Toy):
    """A study of one objective with an optimum that is known.

    Args:
        value: Of the encoded candidate; to be minimised.
        violation: Of the encoded candidate; < 0 if the constraint is met.
        is_refused: Whether a candidate is refused.
    """

    value: Callable[[np.ndarray], float] = lambda units: float(np.mean((units - 0.3) ** 2))
    violation: Callable[[np.ndarray], float] = lambda units: 0.0
    is_refused: Callable[[Candidate], bool] = lambda candidate: False

    def observed(self, number, candidate, memo):
        if number and self.is_refused(candidate):
            return Observation(number, candidate, "refused", memo=memo)
        units = self.space.encode(candidate)
        signed = self.violation(units)
        return Observation(
            number,
            candidate,
            "complete",
            (self.value(units),),
            (max(0.0, signed),) if self.constrained else (),
            {"size_bytes": 1000 * (1 + signed)},  # at most 1000
            memo=memo,
        )


def searched(name: str, problem: Problem) -> list[Observation]:
    steps = play(OptunaSearch(name, **GENERATIONS.get(name, {})), problem)
    return [problem.observed(s.number, s.proposal.candidate, {}) for s in steps]


@pytest.mark.parametrize(
    ("name", "trials", "ratio"),
    [
        ("tpe", 100, 0.5),
        ("nsgaii", 200, 0.5),
        ("nsgaiii", 200, 0.5),
        ("cmaes", 150, 0.5),
        pytest.param("gp", 40, 0.5, marks=pytest.mark.slow),
    ],
)
def test_an_adaptive_sampler_is_much_better_than_chance(name, trials, ratio):
    best = {}
    for each in (name, "random"):
        problems = [Problem(LEVELS, trials, 1, seed=seed, constrained=False) for seed in range(3)]
        best[each] = [min(row.values[0] for row in searched(each, p)) for p in problems]
    assert max(best[name]) < ratio * min(best["random"]), best


@pytest.mark.parametrize("name", ["tpe", "nsgaii", "nsgaiii", SLOW_GP])
def test_constraints_reach_the_sampler(name):
    """The objective pulls to where the constraint is broken; a sixth of the space meets it."""
    trials = 28 if name == "gp" else 150  # later the optimum is found

    def last(constrained: bool) -> list[Observation]:
        problem = Problem(
            LEVELS,
            trials,
            1,
            constrained=constrained,
            value=lambda units: float(units.mean()),
            violation=lambda units: 0.6 - float(units.mean()),
        )
        return searched(name, problem)[-trials // 3 :]

    aware, blind = ([row.values[0] for row in last(constrained)] for constrained in (True, False))
    assert np.mean(aware) > 0.55
    assert sum(value >= 0.6 for value in aware) >= 2
    assert np.mean(blind) < 0.4


@pytest.mark.parametrize("name", ["tpe", "nsgaii", "nsgaiii", SLOW_GP])
def test_refused_regions_are_left(name):
    """A third of the space is refused, and would be as good as the rest."""
    trials = 24 if name == "gp" else 100  # the optimum is found then, and nothing else left
    problem = Problem(
        SCHEMES,
        trials,
        1,
        constrained=False,
        value=lambda units: float(units[1:].mean()),
        is_refused=lambda candidate: candidate["scheme"] == "static",
    )
    rows = searched(name, problem)
    refused = [row.state == "refused" for row in rows[len(rows) // 2 :]]
    assert np.mean(refused) < 0.15


def test_cma_es_goes_on_where_all_trials_of_a_corner_are_refused():
    def broken(candidate: Candidate) -> bool:
        return all(value >= 0.4 for value in candidate.values())

    space = Space(
        Float(name=f"ratio{i}", low=0.0, high=0.9, step=0.1, neutral=0.0) for i in range(3)
    )
    problem = Problem(space, 80, 1, constrained=False, is_refused=broken)
    rows = searched("cmaes", problem)
    assert sum(row.state == "refused" for row in rows[-20:]) < 5
    assert min(row.values[0] for row in rows if row.values) < 0.01


def test_tpe_takes_the_best_of_its_candidates_that_is_not_visible():
    parameters = FlatParameters(LEVELS)
    rng = np.random.default_rng(0)
    trials = []
    for number in range(30):
        numbers = parameters.numbers(LEVELS.sample(rng), {})
        value = float(sum(numbers.values()))
        trials.append(
            frozen(number, TrialState.COMPLETE, [value], numbers, parameters.distributions, {})
        )

    def answer(sampler: TPESampler) -> dict[str, float]:
        asked = frozen(30, TrialState.RUNNING, None, {}, {}, {})
        study = ViewStorage(trials, 1, {}, asked).study(sampler)
        return sampler.sample_relative(study, asked, parameters.searched)

    def unseen(visible: list[dict[str, float]]) -> dict[str, float]:
        sampler = UnseenTpeSampler(seed=1, multivariate=True)
        sampler.searched, sampler.is_visible = len(parameters.searched), visible.__contains__
        return answer(sampler)

    plain = answer(TPESampler(seed=1, multivariate=True))
    answers = [unseen([])]
    for _ in range(10):
        answers.append(unseen(answers))
    assert answers[0] == plain
    assert len({tuple(found.values()) for found in answers}) == 11


def test_a_repetition_is_moved_by_one_knob():
    """Without mutation a genetic sampler soon has nothing but copies of its parents."""
    search = OptunaSearch("nsgaii", population_size=2, mutation_prob=0.0, crossover_prob=0.0)
    problem = Problem(LEVELS, 40, 1, constrained=False)
    steps = play(search, problem)
    for step in steps[10:]:
        visible = step.view.seen_keys()
        near = LEVELS.neighbours(step.proposal.candidate)
        assert any(candidate_key(candidate) in visible for candidate in near)


@pytest.mark.slow
def test_no_sampler_says_anything():
    program = """
from strategies.optuna_table import SAMPLERS
from strategies.optuna_samplers import OptunaSearch
from strategies.testing import SPACES, Toy, play
for name in SAMPLERS:
    for space in ("steps", "three"):
        alone = name == "cmaes"
        toy = Toy(SPACES[space], 16, 1 if alone else 2, lag=3, constrained=not alone)
        if OptunaSearch(name).capabilities.problems(toy.space, toy.objectives, not alone):
            continue
        play(OptunaSearch(name), toy)
play(OptunaSearch("gp", deterministic_objective=True), Toy(SPACES["three with baseline"]))
play(OptunaSearch("cmaes", with_margin=True), Toy(SPACES["huge"], 30, 1, constrained=False))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
