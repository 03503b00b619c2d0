"""What a strategy sees, as the study and the trials that Optuna's samplers read."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .base import Observation, View
from .optuna_space import Number, Parameters

STUDY_ID = 0
UNMEASURED = "unmeasured"  # the constraint that a trial without a measurement breaks
_START = datetime(2000, 1, 1)  # samplers never look at times


class Trials:
    """Translates observations; an observation is translated once, however often it is seen.

    A complete trial is COMPLETE, a pending one RUNNING. Optuna's samplers ignore a FAIL trial, so
    what becomes of a trial that ended without a measurement (refused, stopped or failed) is the
    choice of the sampler:

    - `ignored`: FAIL. Fits samplers that breed from the best: such a trial is no parent.
    - `infeasible`: COMPLETE, breaking a constraint of its own beyond all measure. TPE models such
      trials as bad ones, and never reads their values. Of them the latest nine per measured trial
      are shown: more would make TPE take the earliest of them for good ones, as it calls a tenth
      of all trials good.
    - `worst`: COMPLETE with the worst value of each objective and constraint so far. A model over
      values cannot learn from anything else. As long as no trial is feasible, all trials have one
      value, their total violation: the probability of meeting the constraints would be greatest
      where least is known.
    - `last`: COMPLETE with infinite values. Fits samplers that look at ranks only.

    A candidate that does not lie in the space (the baseline may not) is left out.

    Args:
        constrained: Whether constraints are passed on: how far each is broken (> 0) or met (< 0).
        generation: The trial attribute in which a genetic sampler keeps its generation; trials
            that it did not propose (the baseline, enqueued ones) get the one before theirs.
    """

    def __init__(
        self, parameters: Parameters, unmeasured: str, constrained: bool, generation: str = ""
    ) -> None:
        self.parameters = parameters
        self.unmeasured = unmeasured
        self.constrained = constrained
        self.generation = generation
        self._known: dict[int, tuple[Observation, bool, FrozenTrial | None]] = {}

    def of(self, view: View) -> list[FrozenTrial]:
        """The trials of a view by number."""
        rows = [(row, False) for row in view.done] + [(row, True) for row in view.pending]
        rows.sort(key=lambda pair: pair[0].number)
        known, self._known = self._known, {}
        found: list[FrozenTrial] = []
        generation = 0
        for row, pending in rows:
            entry = known.get(id(row))
            if entry is None or entry[0] is not row or entry[1] is not pending:
                entry = (row, pending, self._trial(view, row, pending, generation))
            self._known[id(row)] = entry
            trial = entry[2]
            if trial is None:
                continue
            if self.generation:
                generation = trial.system_attrs[self.generation]
            found.append(trial)
        return self._with_unmeasured(found)

    def _trial(
        self, view: View, row: Observation, pending: bool, generation: int
    ) -> FrozenTrial | None:
        if not view.space.contains(row.candidate):
            return None
        kind = self.parameters
        numbers = kind.numbers(row.candidate, row.memo.get("inactive", {}))
        attrs = dict(row.memo.get("trial", {}))
        if self.generation:
            attrs.setdefault(self.generation, generation)
        if len(numbers) == len(kind.distributions):
            distributions = kind.distributions
        else:
            distributions = {name: kind.distributions[name] for name in numbers}
        state, values = TrialState.FAIL, None
        if pending:
            state = TrialState.RUNNING
        elif row.state == "complete":
            state, values = TrialState.COMPLETE, row.values
        elif self.unmeasured in ("infeasible", "last"):
            state, values = TrialState.COMPLETE, (math.inf,) * len(view.objectives)
        trial = frozen(row.number, state, values, numbers, distributions, attrs)
        if row.state == "complete" and self.constrained:
            for position, (text, violation) in enumerate(
                zip(view.constraints, row.violations, strict=True)
            ):
                signed = violation or -_slack(text, row.metrics)
                trial.set_constraint(str(position), signed)
        elif state is TrialState.COMPLETE and self.unmeasured == "infeasible":
            trial.set_constraint(UNMEASURED, math.inf)
        return trial

    def _with_unmeasured(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        if self.unmeasured == "infeasible":
            return _latest_unmeasured(trials)
        if self.unmeasured == "worst":
            return _for_models(trials)
        return trials


def _slack(constraint: str, metrics: Mapping[str, float]) -> float:
    """How far a constraint that is met could still tighten, relative to its bound, >= 0.

    Only Gaussian processes look at it: a constraint that is 0 wherever it is met would have them
    believe that every such place may as well break it. 0 where the text is no inequality.
    """
    name, _, rest = constraint.partition(" ")
    order, _, literal = rest.partition(" ")
    if name not in metrics or order not in ("<", "<=", ">", ">="):
        return 0.0
    bound = float(literal)
    slack = (bound - metrics[name]) / (abs(bound) or 1.0)
    return max(0.0, slack if order.startswith("<") else -slack)


def _latest_unmeasured(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    bad = [t for t in trials if UNMEASURED in t.constraints]
    measured = sum(t.state is TrialState.COMPLETE for t in trials) - len(bad)
    hidden = {t.number for t in bad[: max(0, len(bad) - 9 * measured)]}
    return [t for t in trials if t.number not in hidden] if hidden else trials


def _for_models(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    measured = [t for t in trials if t.state is TrialState.COMPLETE]
    if not measured:
        return trials
    if all(any(v > 0 for v in t.constraints.values()) for t in measured):
        broken = {t.number: sum(max(0.0, v) for v in t.constraints.values()) for t in measured}
        trials = [_valued(t, [broken[t.number]], ()) if t.number in broken else t for t in trials]
        measured = [t for t in trials if t.state is TrialState.COMPLETE]
    if len(measured) == len(trials):
        return trials
    values = [max(column) for column in zip(*(t.values for t in measured), strict=True)]
    columns = zip(*(t.constraints.values() for t in measured), strict=True)
    violations = [max(column) for column in columns]
    return [_valued(t, values, violations) if t.state is TrialState.FAIL else t for t in trials]


def _valued(
    trial: FrozenTrial, values: Sequence[float], violations: Sequence[float]
) -> FrozenTrial:
    """The same parameters, as if they had been measured so."""
    state, shown = TrialState.COMPLETE, trial.distributions
    changed = frozen(trial.number, state, values, trial.params, shown, {})
    for position, violation in enumerate(violations):
        changed.set_constraint(str(position), violation)
    return changed


def frozen(
    number: int,
    state: TrialState,
    values: Sequence[float] | None,
    numbers: Mapping[str, Number],
    distributions: Mapping[str, Any],
    attrs: Mapping[str, Any],
) -> FrozenTrial:
    """A trial whose identifier is its number."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=state,
        value=None,
        values=values,
        datetime_start=_START,
        datetime_complete=_START if state.is_finished() else None,
        params=dict(numbers),
        distributions=distributions,  # type: ignore[arg-type]
        user_attrs={},
        system_attrs=dict(attrs),
        intermediate_values={},
    )


class ViewStorage(BaseStorage):
    """The visible trials and one that is being asked for, where a sampler keeps its attributes.

    Args:
        trials: By number; they are never changed.
        objectives: How many there are where no trial has values.
        attrs: Of the study; what a sampler sets is added here.
        asked: The trial that is being asked for; what a sampler sets is added to it.
    """

    def __init__(
        self,
        trials: Sequence[FrozenTrial],
        objectives: int,
        attrs: dict[str, Any],
        asked: FrozenTrial,
    ) -> None:
        self.trials = [*trials, asked]
        objectives = next((len(t.values) for t in trials if t.values is not None), objectives)
        self.directions = [StudyDirection.MINIMIZE] * objectives
        self.attrs = attrs
        self.asked = asked

    def study(self, sampler: BaseSampler) -> Study:
        return Study("view", self, sampler, NopPruner())

    def get_study_id_from_name(self, study_name: str) -> int:
        return STUDY_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        return "view"

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.directions

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.attrs

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id != self.asked._trial_id:
            self._refuse()
        self.asked.system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return next(trial for trial in self.trials if trial._trial_id == trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if states is None:
            return list(self.trials)
        return [trial for trial in self.trials if trial.state in states]

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a sampler may read this study and keep attributes in it, nothing else")

    create_new_study = delete_study = create_new_trial = _refuse
    set_study_user_attr = set_trial_user_attr = get_study_user_attrs = _refuse
    set_trial_param = set_trial_state_values = set_trial_intermediate_value = _refuse
    get_all_studies = _refuse


def study_attrs(view: View) -> dict[str, Any]:
    """What a sampler kept with the study, folded out of the memos of all its trials."""
    found: dict[str, Any] = {}
    for row in _by_number(view):
        found.update(row.memo.get("study", {}))
    return found


def _by_number(view: View) -> Iterator[Observation]:
    return iter(sorted((*view.done, *view.pending), key=lambda row: row.number))
