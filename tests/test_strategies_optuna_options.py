from __future__ import annotations

import inspect
from pathlib import Path

import optuna
import pytest

from search.errors import Problem
from search.strategy import make_strategy
from strategies.base import capabilities
from strategies.optuna_samplers import GpSearch, OptunaSearch, TpeSearch
from strategies.optuna_table import SAMPLERS
from strategies.space import Choice, Float, Int, Space

BITS = Int(name="bits", low=2, high=8, neutral=8)
SCHEME = Choice(name="scheme", values=("none", "static"), neutral="none")
RATE = Float(name="rate", low=1e-4, high=1e-1, log=True, neutral=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_argument_of_optunas_class_is_taken_or_refused_with_a_reason(name):
    kind = SAMPLERS[name]
    ours = {"tpe": optuna.samplers.TPESampler, "cmaes": optuna.samplers.CmaEsSampler}
    arguments = inspect.signature(inspect.unwrap(ours.get(name, kind.sampler).__init__)).parameters
    known = {*kind.options, *kind.refused}
    assert set(arguments) - {"self"} == known
    assert not set(kind.options) & set(kind.refused)
    assert set(kind.defaults) <= known
    assert kind.experimental <= set(kind.options)


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (
            "tpi",
            {},
            "unknown sampler 'tpi'; did you mean 'tpe'? known: bruteforce, cmaes, gp, grid,"
            " nsgaii, nsgaiii, qmc, random, tpe",
        ),
        (["tpe"], {}, "unknown sampler ['tpe']"),
        (
            "tpe",
            {"n_startup": 3},
            "unknown option 'n_startup' of sampler 'tpe'; did you mean 'n_startup_trials'?"
            " known: constant_liar, multivariate, n_ei_candidates, n_startup_trials",
        ),
        ("random", {"x": 1}, "unknown option 'x' of sampler 'random'; known: none"),
        ("gp", {"seed": 1}, "seed of sampler 'gp' cannot be set: it follows from the seed of"),
        ("nsgaii", {"constraints_func": 1}, "the constraints of the study are passed on"),
        ("tpe", {"gamma": 1}, "gamma of sampler 'tpe' cannot be set: Optuna is going to remove"),
        ("grid", {"search_space": {}}, "it is the space of the study"),
        ("nsgaii", {"population_size": 1}, "population_size must be an integer >= 2, got 1"),
        ("nsgaiii", {"mutation_prob": 2}, "mutation_prob must be a number in [0, 1], got 2"),
        ("tpe", {"multivariate": "yes"}, "multivariate must be true or false, got 'yes'"),
        ("qmc", {"qmc_type": "x"}, "qmc_type must be one of sobol, halton, got 'x'"),
        ("cmaes", {"lr_adapt": True, "with_margin": True}, "It is prohibited to pass"),
    ],
)
def test_a_wrong_sampler_or_option_is_named(sampler, options, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        OptunaSearch(sampler, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("short", [TpeSearch, GpSearch])
def test_a_short_name_has_its_sampler(short):
    with pytest.raises(ValueError, match="unknown option 'sampler'"):
        short(sampler="nsgaii")


@pytest.mark.parametrize(
    ("name", "options", "problems"),
    [
        ("optuna", {"sampler": "nsgaii", "population_size": 8}, []),
        ("optuna", {}, []),
        ("tpe", {"n_ei_candidates": 48}, []),
        ("gp", {"deterministic_objective": True}, []),
        ("tpe", {"n_ei_candidates": 0}, ["strategy.n_ei_candidates"]),
        ("optuna", {"sampler": "nsgaii", "populaton_size": 8}, ["strategy.populaton_size"]),
        ("optuna", {"sampler": "qmc", "seed": 8}, ["strategy.seed"]),
    ],
)
def test_a_config_names_the_strategy_and_its_options(name, options, problems):
    found: list[Problem] = []
    strategy = make_strategy(name, options, Path(), found)
    assert [problem.path for problem in found] == problems
    assert (strategy is None) == bool(problems)


@pytest.mark.parametrize(
    ("sampler", "knobs", "objectives", "constraints", "problem"),
    [
        ("cmaes", [BITS, RATE], 1, 0, ""),
        ("cmaes", [BITS], 2, 0, "takes at most 1 objective(s), got 2"),
        ("cmaes", [BITS], 1, 1, "takes no constraints, got 1"),
        ("cmaes", [BITS, SCHEME], 1, 0, "needs ordered knobs, got 'scheme'"),
        ("grid", [RATE], 1, 0, "needs knobs with levels, got 'rate' without"),
        ("grid", [BITS, SCHEME], 3, 2, ""),
        (
            "grid",
            [Int(name=f"bits{i}", low=1, high=100, neutral=1) for i in range(3)],
            1,
            0,
            "takes a space of at most 100,000 candidates, got 1,000,000",
        ),
        ("bruteforce", [RATE], 1, 0, "needs knobs with levels"),
        ("bruteforce", [SCHEME], 1, 1, ""),
        *((name, [BITS, SCHEME, RATE], 3, 2, "") for name in ("tpe", "nsgaii", "nsgaiii", "gp")),
        *((name, [BITS, SCHEME, RATE], 3, 2, "") for name in ("qmc", "random")),
    ],
)
def test_a_study_that_a_sampler_cannot_take_is_refused(
    sampler, knobs, objectives, constraints, problem
):
    found = OptunaSearch(sampler).capabilities.problems(Space(knobs), objectives, constraints)
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_what_steers_by_outcomes_says_so():
    adaptive = {name for name in SAMPLERS if capabilities(OptunaSearch(name)).adaptive}
    assert adaptive == {"tpe", "nsgaii", "nsgaiii", "gp", "cmaes"}
