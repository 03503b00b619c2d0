"""Optuna's samplers by their names in a config: options, capabilities, and how each is fed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.samplers import (
    BruteForceSampler,
    GPSampler,
    GridSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
)

from .base import Capabilities
from .options import OptionChecks, flag, one_of, real_number, whole_number
from .optuna_cma import POSITION, ReplayedCmaEsSampler
from .optuna_space import FlatParameters, ListedParameters, Parameters, TreeParameters
from .optuna_tpe import UnseenTpeSampler
from .space import Space

Check = Callable[[str, object], object]


@dataclass(frozen=True, slots=True)
class SamplerKind:
    """One of Optuna's samplers.

    Args:
        sampler: Its class.
        options: Those of its arguments that a config may give, with what checks them.
        refused: The other ones, with the reason.
        defaults: Ours where they differ from Optuna's, and arguments that are always the same.
        experimental: Options at which Optuna warns that they may change.
        capabilities: What it can take.
        parameters: How candidates look to it.
        unmeasured: What it is shown of trials without a measurement; see `Trials`.
        keeps: The attributes that it must find again, by the beginnings of their names.
        generation: The attribute of a trial that holds its generation, for genetic samplers.
        asks: How often it is asked before a repeated candidate is moved.
        one_seed: Whether all proposals of a study share its seed.
        starts_blind: Whether it needs no complete trial to sample all parameters at once.
    """

    sampler: type
    options: Mapping[str, Check]
    refused: Mapping[str, str]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    experimental: frozenset[str] = frozenset()
    capabilities: Capabilities = field(default_factory=Capabilities)
    parameters: Callable[[Space], Parameters] = FlatParameters
    unmeasured: str = "ignored"
    keeps: tuple[str, ...] = ()
    generation: str = ""
    asks: int = 5
    one_seed: bool = False
    starts_blind: bool = False

    @property
    def is_grid(self) -> bool:
        return self.sampler is GridSampler


def whole(low: int) -> Check:
    return lambda name, value: whole_number(name, value, low)


def probability(name: str, value: object) -> float:
    return real_number(name, value, 0.0, 1.0)


def words(*known: str) -> Check:
    return lambda name, value: one_of(name, value, known)


_SEED = {"seed": "it follows from the seed of the study"}
_CONSTRAINTS = {"constraints_func": "the constraints of the study are passed on"}
_INDEPENDENT = {
    "independent_sampler": "it is a Python object; the space is sampled as a whole",
    "warn_independent_sampling": "the space is sampled as a whole",
}
_DEPRECATED = "Optuna is going to remove it"
_GENETIC_OPTIONS = {
    "population_size": whole(2),
    "mutation_prob": lambda name, value: None if value is None else probability(name, value),
    "crossover_prob": probability,
    "swapping_prob": probability,
}
_GENETIC_REFUSED = {
    **_SEED,
    **_CONSTRAINTS,
    **dict.fromkeys(
        (
            "mutation",
            "crossover",
            "elite_population_selection_strategy",
            "child_generation_strategy",
            "after_trial_strategy",
        ),
        "it is a Python object",
    ),
}
_BLIND = Capabilities(adaptive=False)

SAMPLERS: dict[str, SamplerKind] = {
    "tpe": SamplerKind(
        UnseenTpeSampler,
        options={
            "n_startup_trials": whole(0),
            "n_ei_candidates": whole(1),
            "multivariate": flag,
            "constant_liar": flag,
        },
        refused={
            **_SEED,
            **_CONSTRAINTS,
            "group": "every trial has all knobs, so there is one group",
            **dict.fromkeys(
                (
                    "consider_prior",
                    "prior_weight",
                    "consider_magic_clip",
                    "consider_endpoints",
                    "gamma",
                    "weights",
                    "warn_independent_sampling",
                ),
                _DEPRECATED,
            ),
        },
        defaults={"multivariate": True},
        unmeasured="infeasible",
    ),
    "nsgaii": SamplerKind(
        NSGAIISampler,
        options=_GENETIC_OPTIONS,
        refused=_GENETIC_REFUSED,
        keeps=("NSGAIISampler:",),
        generation="NSGAIISampler:generation",
    ),
    "nsgaiii": SamplerKind(
        NSGAIIISampler,
        options={**_GENETIC_OPTIONS, "dividing_parameter": whole(1)},
        refused={**_GENETIC_REFUSED, "reference_points": "set dividing_parameter instead"},
        keeps=("NSGAIIISampler:",),
        generation="NSGAIIISampler:generation",
    ),
    "gp": SamplerKind(
        GPSampler,
        options={"n_startup_trials": whole(0), "deterministic_objective": flag},
        refused={**_SEED, **_CONSTRAINTS, **_INDEPENDENT},
        defaults={"warn_independent_sampling": False},
        experimental=frozenset({"deterministic_objective"}),
        unmeasured="worst",
        asks=1,  # the same model has the same optimum
    ),
    "cmaes": SamplerKind(
        ReplayedCmaEsSampler,
        options={
            "n_startup_trials": whole(0),
            "popsize": whole(2),
            "use_separable_cma": flag,
            "with_margin": flag,
            "lr_adapt": flag,
        },
        refused={
            **_SEED,
            **_INDEPENDENT,
            "consider_pruned_trials": "no trial has intermediate values",
            "source_trials": "it is a Python object",
            **dict.fromkeys(("x0", "sigma0", "restart_strategy", "inc_popsize"), _DEPRECATED),
        },
        defaults={"warn_independent_sampling": False},
        experimental=frozenset({"use_separable_cma", "with_margin", "lr_adapt"}),
        capabilities=Capabilities(max_objectives=1, constraints=False, unordered=False),
        unmeasured="last",
        keeps=("cma:generation", "sepcma:generation", "cmawm:generation", POSITION),
    ),
    "qmc": SamplerKind(
        QMCSampler,
        options={"qmc_type": words("sobol", "halton"), "scramble": flag},
        refused={
            **_SEED,
            **_INDEPENDENT,
            "warn_asynchronous_seeding": "all proposals share the seed of the study",
        },
        defaults={"warn_independent_sampling": False},
        capabilities=_BLIND,
        keeps=("qmc:",),
        one_seed=True,
        starts_blind=True,
    ),
    "grid": SamplerKind(
        GridSampler,
        options={},
        refused={**_SEED, "search_space": "it is the space of the study"},
        capabilities=Capabilities(adaptive=False, continuous=False, max_candidates=100_000),
        parameters=ListedParameters,
        keeps=("grid_id",),
        one_seed=True,
    ),
    "bruteforce": SamplerKind(
        BruteForceSampler,
        options={},
        refused={
            **_SEED,
            "avoid_premature_stop": "a study ends when every candidate was tried",
        },
        capabilities=Capabilities(adaptive=False, continuous=False),
        parameters=TreeParameters,
    ),
    "random": SamplerKind(RandomSampler, options={}, refused=_SEED, capabilities=_BLIND),
}


def checked_options(sampler: object, options: Mapping[str, object]) -> dict[str, Any]:
    """The arguments for a sampler, ours included, from the options of a config.

    Raises:
        ValueError: An unknown sampler or option, or an option out of its range.
    """
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(_unknown("sampler", sampler, SAMPLERS))
    kind = SAMPLERS[sampler]
    checked = OptionChecks()

    def check(name: str, value: object) -> object:
        if name in kind.refused:
            reason = kind.refused[name]
            raise ValueError(f"{name} of sampler {sampler!r} cannot be set: {reason}")
        if name not in kind.options:
            raise ValueError(_unknown("option", name, kind.options, f" of sampler {sampler!r}"))
        return kind.options[name](name, value)

    given = {name: checked(check, name, value) for name, value in options.items()}
    checked.report()
    return {**kind.defaults, **given}


def _unknown(what: str, name: object, known: Iterable[str], whose: str = "") -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{whose}{hint} known: {', '.join(names) or 'none'}"
