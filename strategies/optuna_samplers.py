"""Every sampler of Optuna as a strategy: used as a library, on a private view of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import repeat
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler, GridSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from .base import Proposal, View, trial_rng
from .optuna_cma import Generations, ReplayedCmaEsSampler
from .optuna_quiet import new_sampler, quiet
from .optuna_space import ListedParameters, Number
from .optuna_table import SAMPLERS, SamplerKind, checked_options
from .optuna_tpe import UnseenTpeSampler
from .optuna_view import Trials, ViewStorage, frozen, study_attrs
from .random_search import unseen_candidate
from .space import Candidate, Space, candidate_key

GRID_ID = "grid_id"  # the trial attribute of Optuna's grid sampler


class OptunaSearch:
    """Any sampler of Optuna, as a function of the visible trials.

    Each proposal takes a new sampler, seeded from the proposal's generator, and shows it the
    visible trials as a study that exists for this proposal only. What the sampler keeps (the
    generation of a trial, the parents of a generation) goes into the memo of the trial that it
    was asked for, and is found again in the memos of all visible trials.

    - `tpe`: Tree-structured Parzen Estimator, multivariate (Watanabe 2023, arXiv 2304.11127),
      constraints as in arXiv 2606.09889. Pending trials count as bad (`constant_liar`), which
      keeps parallel proposals apart and changes nothing where none is pending.
    - `nsgaii`, `nsgaiii`: genetic, in generations of `population_size` (Deb et al. 2002; Deb and
      Jain 2014). The baseline and enqueued trials are bred from, too.
    - `gp`: Gaussian processes with log EI or log EHVI, constraints included; loads torch. Pending
      trials are fantasies.
    - `cmaes`: CMA-ES (Hansen 2016), for one objective and ordered knobs, without constraints.
    - `qmc`: a Sobol' or Halton sequence without its repetitions.
    - `grid`: all candidates in an order shuffled by the study's seed; `bruteforce`: all
      candidates, drawn knob by knob; `random`: each knob uniform, inactive ones included.

    A sampler that repeats a visible candidate is asked again a few times. Then the answer of an
    adaptive one is moved to an unseen neighbour, and at last any unseen candidate is drawn.

    Args:
        sampler: tpe, nsgaii, nsgaiii, gp, cmaes, qmc, grid, bruteforce or random.
        options: Arguments of Optuna's class that a config can hold, with Optuna's defaults except
            that `multivariate` of tpe is true.

    Raises:
        ValueError: An unknown sampler or option, or an option out of its range.
    """

    def __init__(self, sampler: str = "tpe", **options: Any) -> None:
        self._arguments = checked_options(sampler, options)
        self._kind = SAMPLERS[sampler]
        self._experimental = any(options.get(name) for name in self._kind.experimental)
        self.capabilities = replace(self._kind.capabilities, name=f"sampler {sampler}")
        self._cache = _Cache(View(Space([]), ()), self._kind)
        if not self._kind.is_grid:
            self._new_sampler(0)  # Optuna checks how options go together

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal:
        if not self._cache.fits(view):
            self._cache = _Cache(view, self._kind)
        parameters = self._cache.parameters
        trials = self._cache.trials.of(view)
        known = study_attrs(view) if self._kind.keeps else {}
        attrs = dict(known)
        seen = view.seen_keys()
        sampler = self._sampler_for(view, seen, rng)
        asked: FrozenTrial | None = None
        candidate: Candidate = {}
        with quiet():
            for asked in self._attempts(trials, number):
                study = ViewStorage(trials, len(view.objectives), attrs, asked).study(sampler)
                self._ask(sampler, study, asked)
                candidate = parameters.candidate(asked.params)
                if candidate_key(candidate) not in seen:
                    break
            else:
                candidate = self._unseen(view, candidate, seen, rng)
                if asked is None:
                    return Proposal(candidate)
                asked.params = parameters.numbers(candidate, asked.params)
                if isinstance(sampler, ReplayedCmaEsSampler):
                    sampler.move(asked)
        return Proposal(candidate, self._memo(view.space, candidate, asked, known, attrs))

    def _sampler_for(self, view: View, seen: set[str], rng: np.random.Generator) -> BaseSampler:
        if self._kind.one_seed:
            seed = int(trial_rng(view.seed, "optuna", 0).integers(2**32))
        else:
            seed = int(rng.integers(2**32))
        if self._kind.is_grid:
            return self._cache.grid_sampler(seed)
        sampler = self._new_sampler(seed)
        if isinstance(sampler, ReplayedCmaEsSampler):
            sampler.generations = self._cache.generations
        if isinstance(sampler, UnseenTpeSampler):
            parameters = self._cache.parameters

            def is_visible(numbers: Mapping[str, Number]) -> bool:
                candidate = parameters.candidate({**parameters.fixed, **numbers})
                return candidate_key(candidate) in seen

            sampler.searched, sampler.is_visible = len(parameters.searched), is_visible
        return sampler

    def _new_sampler(self, seed: int) -> BaseSampler:
        sampler: BaseSampler = new_sampler(
            self._kind.sampler,
            {**self._arguments, "seed": seed},
            experimental=self._experimental,
        )
        return sampler

    def _attempts(self, trials: list[FrozenTrial], number: int) -> Iterator[FrozenTrial]:
        """Trials to ask for, one after the other until the answer is no repetition."""
        numbers: Iterable[int] = repeat(number, self._kind.asks)
        if self._kind.is_grid:  # its sampler takes the candidates in the order of the numbers
            taken = [t.system_attrs[GRID_ID] for t in trials if GRID_ID in t.system_attrs]
            numbers = range(max(taken, default=-1) + 1, self._cache.space.skeletons)
        for asked_number in numbers:
            yield frozen(asked_number, TrialState.RUNNING, None, {}, {}, {})

    def _ask(self, sampler: BaseSampler, study: Study, asked: FrozenTrial) -> None:
        """Sample all parameters as `Trial.suggest_*` would, into the trial.

        Optuna's samplers infer from the trials which parameters they sample together. Here that
        is the whole space once a trial is complete, unless TPE is to look at each on its own.
        """
        parameters = self._cache.parameters
        joint = self._arguments.get("multivariate", True) and (
            self._kind.starts_blind
            or any(t.state is TrialState.COMPLETE for t in study.get_trials(deepcopy=False))
        )
        sampler.before_trial(study, asked)
        together = sampler.sample_relative(study, asked, parameters.searched if joint else {})
        for name, distribution in parameters.distributions.items():
            if not parameters.is_asked(name, asked.params):
                continue
            if name in parameters.fixed:
                number = parameters.fixed[name]
            elif name in together and distribution._contains(together[name]):
                number = together[name]
            else:
                number = sampler.sample_independent(study, asked, name, distribution)
            asked.params[name] = float(number) if isinstance(number, float) else int(number)
            asked.distributions[name] = distribution

    def _unseen(
        self, view: View, candidate: Candidate, seen: set[str], rng: np.random.Generator
    ) -> Candidate:
        """A neighbour that is not visible, in random order; else any such candidate."""
        near = view.space.neighbours(candidate) if self.capabilities.adaptive else []
        for position in rng.permutation(len(near)):
            if candidate_key(near[position]) not in seen:
                return dict(near[position])
        return unseen_candidate(view, rng)

    def _memo(
        self,
        space: Space,
        candidate: Candidate,
        asked: FrozenTrial,
        known: dict[str, Any],
        attrs: dict[str, Any],
    ) -> dict[str, Any]:
        """What this proposal's trial must give back: see `Trials` and `study_attrs`."""
        keeps = self._kind.keeps
        searched = self._cache.parameters.searched
        memo = {
            "inactive": {
                name: number
                for name, number in asked.params.items()
                if name in searched and name in space and name not in candidate
            },
            "trial": {k: v for k, v in asked.system_attrs.items() if k.startswith(keeps)},
            "study": {k: v for k, v in attrs.items() if k.startswith(keeps) and known.get(k) != v},
        }
        return {name: part for name, part in memo.items() if part}


class TpeSearch(OptunaSearch):
    """Optuna's TPE: short for `optuna` with `sampler: tpe`.

    Args:
        options: `n_startup_trials` (10), `n_ei_candidates` (24), `multivariate` (true) and
            `constant_liar` (true).
    """

    def __init__(self, **options: Any) -> None:
        checked_options("tpe", options)  # `sampler` is none of them
        super().__init__("tpe", **options)


class GpSearch(OptunaSearch):
    """Optuna's Gaussian processes: short for `optuna` with `sampler: gp`.

    Args:
        options: `n_startup_trials` (10) and `deterministic_objective` (false).
    """

    def __init__(self, **options: Any) -> None:
        checked_options("gp", options)
        super().__init__("gp", **options)


class _Cache:
    """What is derived from a space and from rows; dropping it changes no proposal."""

    def __init__(self, view: View, kind: SamplerKind) -> None:
        self.space = view.space
        self._goals = view.objectives, view.constraints
        self.parameters = kind.parameters(view.space)
        constrained = kind.capabilities.constraints
        self.trials = Trials(self.parameters, kind.unmeasured, constrained, kind.generation)
        self.generations = Generations()
        self._grid: tuple[int, BaseSampler] | None = None

    def fits(self, view: View) -> bool:
        """Whether it is of the same study."""
        return view.space is self.space and self._goals == (view.objectives, view.constraints)

    def grid_sampler(self, seed: int) -> BaseSampler:
        if self._grid is None or self._grid[0] != seed:
            numbers = {ListedParameters.NAME: list(range(self.space.skeletons))}
            self._grid = seed, GridSampler(numbers, seed)
        return self._grid[1]
