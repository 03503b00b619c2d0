from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

import cmaes
import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from strategies.base import Proposal, Strategy, View
from strategies.optuna_cma import Generations, ReplayedCmaEsSampler
from strategies.optuna_samplers import GpSearch, OptunaSearch, TpeSearch
from strategies.optuna_space import FlatParameters
from strategies.optuna_table import SAMPLERS
from strategies.optuna_view import Trials, ViewStorage, frozen, study_attrs
from strategies.space import Choice, Float, Int, Knob, Space, candidate_key
from strategies.testing import SPACES, StrategyContract, Toy, play
from strategies.testing_toys import Step

# With generations so small that a toy study has several.
MADE: dict[str, Callable[[], OptunaSearch]] = {
    "tpe": lambda: TpeSearch(n_startup_trials=5),
    "nsgaii": lambda: OptunaSearch("nsgaii", population_size=5),
    "nsgaiii": lambda: OptunaSearch("nsgaiii", population_size=5, dividing_parameter=2),
    "gp": lambda: GpSearch(n_startup_trials=5),
    "cmaes": lambda: OptunaSearch("cmaes", popsize=4),
    "cmaes with margin": lambda: OptunaSearch("cmaes", popsize=4, with_margin=True),
    "qmc": lambda: OptunaSearch("qmc"),
    "grid": lambda: OptunaSearch("grid"),
    "bruteforce": lambda: OptunaSearch("bruteforce"),
    "random": lambda: OptunaSearch("random"),
}
SLOW = pytest.mark.slow
KEY = "cma:generation"
EACH = [pytest.param(name, marks=SLOW if name == "gp" else ()) for name in MADE]


@pytest.fixture(autouse=True)
def _studies_of_optuna_are_silent() -> Iterator[None]:
    """Those that tests create; ours never say anything."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


class TestTpe(StrategyContract):
    def make(self) -> Strategy:
        return TpeSearch()


class TestNsgaii(StrategyContract):
    def make(self) -> Strategy:
        return MADE["nsgaii"]()


@SLOW
class TestNsgaiii(StrategyContract):
    def make(self) -> Strategy:
        return MADE["nsgaiii"]()


@SLOW
class TestGp(StrategyContract):
    examples: ClassVar[int] = 15
    long: ClassVar[int] = 24  # later the optimum is found, and it looks elsewhere
    short: ClassVar[int] = 15  # the first ten seen are random; a fit over 60 knobs takes seconds

    def make(self) -> Strategy:
        return GpSearch()


@SLOW
class TestCmaes(StrategyContract):
    def make(self) -> Strategy:
        return MADE["cmaes"]()


@SLOW
class TestCmaesWithMargin(StrategyContract):
    def make(self) -> Strategy:
        return MADE["cmaes with margin"]()


@SLOW
class TestQmc(StrategyContract):
    def make(self) -> Strategy:
        return MADE["qmc"]()


@SLOW
class TestGrid(StrategyContract):
    def make(self) -> Strategy:
        return MADE["grid"]()


@SLOW
class TestBruteforce(StrategyContract):
    def make(self) -> Strategy:
        return MADE["bruteforce"]()


@SLOW
class TestOptunaRandom(StrategyContract):
    def make(self) -> Strategy:
        return MADE["random"]()


class Resumed:
    """A strategy that is made anew for every proposal, as if the study were killed each time."""

    def __init__(self, make: Callable[[], Strategy]) -> None:
        self.make = make

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal | None:
        return self.make().propose(view, number, rng)


def toy_for(name: str, **changes: Any) -> Toy:
    """A conditional toy study without a log scale; with ordered knobs only for CMA-ES."""
    knobs = [knob for knob in SPACES["conditional"] if knob.name != "percentile"]
    if name.startswith("cmaes"):
        knobs = [
            replace(knob, ordered=True) if isinstance(knob, Choice) else knob for knob in knobs
        ]
        changes = {**changes, "objectives": 1, "constrained": False}
    return Toy(Space(knobs), **changes)


@pytest.mark.parametrize("lag", [1, 4])
@pytest.mark.parametrize("name", EACH)
def test_an_interrupted_study_goes_on_as_an_uninterrupted_one(name: str, lag: int) -> None:
    toy = toy_for(name, trials=30, lag=lag)
    whole = [step.proposal for step in play(MADE[name](), toy)]
    resumed = [step.proposal for step in play(Resumed(MADE[name]), toy)]
    assert resumed == whole
    assert len(whole) == 30


@pytest.mark.parametrize("name", EACH)
def test_a_proposal_needs_no_memo_of_the_study(name: str) -> None:
    for step in play(MADE[name](), toy_for(name, trials=15, lag=4)):
        assert not step.view.memo


def generations(steps: list[Step], key: str) -> list[int]:
    return [step.proposal.memo["trial"][key] for step in steps]


@pytest.mark.parametrize("lag", [1, 4, 16])
@pytest.mark.parametrize("name", ["nsgaii", "nsgaiii"])
def test_the_parents_of_a_generation_are_chosen_once(name: str, lag: int) -> None:
    steps = play(MADE[name](), toy_for(name, trials=60, lag=lag))
    class_name = {"nsgaii": "NSGAIISampler", "nsgaiii": "NSGAIIISampler"}[name]
    numbers = generations(steps, f"{class_name}:generation")
    assert numbers == sorted(numbers)
    assert numbers[-1] >= 60 // (5 + lag) - 3
    chosen = [key for step in steps for key in step.proposal.memo.get("study", {})]
    assert len(chosen) == len(set(chosen)) == numbers[-1]


@pytest.mark.parametrize("name", ["cmaes", "cmaes with margin"])
@pytest.mark.parametrize("lag", [1, 4])
def test_cma_es_advances_by_generations_without_storing_its_state(name: str, lag: int) -> None:
    steps = play(MADE[name](), toy_for(name, trials=40, lag=lag))
    key = "cma:generation" if name == "cmaes" else "cmawm:generation"
    numbers = generations(steps[lag:], key)  # the first see no complete trial
    assert numbers == sorted(numbers)
    assert numbers[-1] >= 40 // (4 + lag) - 2
    assert max(len(json.dumps(dict(step.proposal.memo))) for step in steps) < 400


def trials_of(name: str, view: View) -> tuple[FlatParameters, list[FrozenTrial]]:
    """The visible trials as a sampler is shown them."""
    kind, parameters = SAMPLERS[name], FlatParameters(view.space)
    shown = Trials(parameters, kind.unmeasured, kind.capabilities.constraints, kind.generation)
    return parameters, shown.of(view)


def test_cma_es_stands_where_the_library_stands_after_the_same_generations() -> None:
    knobs = [Float(name=f"x{i}", low=0.0, high=1.0, neutral=0.0) for i in range(4)]
    toy = Toy(Space(knobs), trials=25, objectives=1, constrained=False, states=("complete",))
    last = play(OptunaSearch("cmaes", popsize=6), toy)[-1]
    parameters, trials = trials_of("cmaes", last.view)
    sampler = ReplayedCmaEsSampler(popsize=6, seed=0)
    sampler.generations = Generations()
    asked = frozen(25, TrialState.RUNNING, None, {}, {}, {})
    study = ViewStorage(trials, 1, {}, asked).study(sampler)
    sampler.sample_relative(study, asked, parameters.searched)

    library = cmaes.CMA(np.full(4, 0.5), 1 / 6, np.array([[0, 1]] * 4), population_size=6)
    for generation in range(4):
        rows = [t for t in last.view.done if t.memo.get("trial") == {KEY: generation}][:6]
        library.tell([(np.array(list(t.candidate.values())), t.values[0]) for t in rows])
    assert sampler.generations.state.generation == 4
    np.testing.assert_allclose(sampler.generations.state.mean, library.mean, rtol=1e-9)


def plain_answer(name: str, sampler: BaseSampler, view: View) -> dict[str, Any]:
    """What Optuna proposes in a study of its own, in memory, that holds the same trials."""
    parameters, trials = trials_of(name, view)
    study = optuna.create_study(directions=["minimize"] * len(view.objectives), sampler=sampler)
    for trial in trials:
        study.add_trial(trial)
    for key, value in study_attrs(view).items():
        study._storage.set_study_system_attr(study._study_id, key, value)
    return parameters.candidate(study.ask(parameters.distributions).params)


@pytest.mark.parametrize(
    ("name", "plain", "options"),
    [
        ("tpe", TPESampler, {"multivariate": True}),
        ("tpe", TPESampler, {"multivariate": False, "n_startup_trials": 5}),
        ("nsgaii", NSGAIISampler, {"population_size": 6}),
        ("random", RandomSampler, {}),
        pytest.param("gp", GPSampler, {}, marks=SLOW),
    ],
)
def test_the_answer_is_that_of_plain_optuna_unless_that_is_a_repetition(
    name: str, plain: Callable[..., BaseSampler], options: dict[str, Any]
) -> None:
    knobs: list[Knob] = [Float(name=f"x{i}", low=0.0, high=1.0, neutral=0.0) for i in range(3)]
    knobs += [Choice(name=f"c{i}", values=("a", "b", "c"), neutral="a") for i in range(3)]
    knobs += [Int(name="n", low=1, high=64, log=True, neutral=1)]
    toy = Toy(Space(knobs), trials=20, states=("complete",))
    repeated = 0
    for step in play(OptunaSearch(name, **options), toy):
        seed = int(toy.rng(step.number).integers(2**32))
        answer = plain_answer(name, plain(seed=seed, **options), step.view)
        if candidate_key(answer) in step.view.seen_keys():
            repeated += 1
        else:
            assert answer == step.proposal.candidate
    assert repeated < 5
