"""Optuna's CMA-ES with its state computed from the trials, so that nothing need be unpickled."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

POSITION = "x_for_tell"  # a trial's attribute: where CMA-ES with margin stood before rounding


class Generations:
    """What was told last, to go on from; dropping it changes nothing."""

    def __init__(self) -> None:
        self.told: list[list[FrozenTrial]] = []
        self.state: Any = None

    def starts(self, count: int, told: list[FrozenTrial]) -> bool:
        """Whether generation `count` consisted of the same trial objects."""
        known = self.told[count] if count < len(self.told) else []
        return len(known) == len(told) and all(a is b for a, b in zip(known, told, strict=True))


class ReplayedCmaEsSampler(CmaEsSampler):
    """Tells the optimizer all finished generations again instead of loading it.

    Optuna pickles the optimizer into the attributes of a trial, a megabyte at 200 knobs. Here a
    trial keeps the number of its generation, and the first `popsize` complete trials of each, by
    number, are told in turn. A trial whose candidate was moved is told where it was moved to.

    Attributes:
        generations: What the sampler of another proposal told, if any.
    """

    generations: Generations | None = None
    _searched: dict[str, BaseDistribution] = {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._searched = search_space
        if len(search_space) == 1:  # a diagonal of one: Optuna warns and does this
            self._use_separable_cma = False
        return super().sample_relative(study, trial, search_space)

    def move(self, trial: FrozenTrial) -> None:
        """Note that the trial's parameters are not those that were sampled."""
        if POSITION in trial.system_attrs:
            position = self._transform().transform(trial.params)
            trial.system_attrs[POSITION] = position.tolist()

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        transform = self._transform()
        # Drawn from even where it is not used: the generator must stand at the same place.
        state = self._init_optimizer(transform, StudyDirection.MINIMIZE)
        past = self.generations or Generations()
        told: list[list[FrozenTrial]] = []
        while True:
            trials = self._get_solution_trials(completed_trials, len(told))
            trials = trials[: state.population_size]
            if len(trials) < state.population_size:
                break
            told.append(trials)
        known = len(past.told)
        if known > len(told) or not all(past.starts(i, told[i]) for i in range(known)):
            known = 0
        elif known:
            state = past.state
        for trials in told[known:]:
            state = copy.deepcopy(state)  # also rounds the covariance to a symmetric matrix
            state.tell([(self._told_position(t, transform), float(t.values[0])) for t in trials])
        past.told, past.state = told, copy.deepcopy(state)
        return copy.deepcopy(past.state)

    def _transform(self) -> _SearchSpaceTransform:
        return _SearchSpaceTransform(
            self._searched, transform_step=not self._with_margin, transform_0_1=True
        )

    def _told_position(self, trial: FrozenTrial, transform: _SearchSpaceTransform) -> Any:
        if POSITION in trial.system_attrs:
            return np.array(trial.system_attrs[POSITION])
        return transform.transform(trial.params)
