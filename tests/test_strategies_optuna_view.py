from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from strategies.base import Observation, View
from strategies.optuna_space import FlatParameters, ListedParameters, TreeParameters
from strategies.optuna_view import Trials, ViewStorage, frozen, study_attrs
from strategies.space import Choice, Condition, Float, Int, Space
from strategies.testing_histories import spaces

SPACE = Space(
    [
        Choice(name="scheme", values=("none", "static"), neutral="none"),
        Int(
            name="bits", low=2, high=8, neutral=8, active_when=Condition("scheme", "==", "static")
        ),
        Float(name="ratio", low=0.3, high=0.9, step=0.1, neutral=0.0, direction=1),
    ]
)
BASELINE = {"scheme": "none", "ratio": 0.0}  # not in the space
ONE, TWO, THREE = ({"scheme": "none", "ratio": ratio} for ratio in (0.3, 0.4, 0.5))


def view_of(done: list[Observation], pending: tuple[Observation, ...] = ()) -> View:
    return View(SPACE, ("drop", "size"), ("size <= 1",), done=done, pending=pending)


def shown(view: View, unmeasured: str = "ignored", **options):
    return Trials(FlatParameters(SPACE), unmeasured, constrained=True, **options).of(view)


def complete(number, candidate, values=(0.5, 0.5), violation=0.0, memo={}):
    return Observation(number, candidate, "complete", values, (violation,), memo=memo)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(space=spaces(), seed=st.integers(0, 2**32 - 1))
def test_a_candidate_survives_the_way_to_parameters_and_back(space, seed):
    candidate = space.sample(np.random.default_rng(seed))
    kinds = [FlatParameters] if space.size is None else [FlatParameters, TreeParameters]
    for kind in kinds if space.size is None else [*kinds, ListedParameters]:
        parameters = kind(space)
        numbers = parameters.numbers(candidate, {})
        assert all(type(number) in (int, float) for number in numbers.values())
        assert parameters.candidate(numbers) == candidate
        assert set(numbers) <= set(parameters.distributions)
        assert not set(parameters.searched) & set(parameters.fixed)
        for name, number in numbers.items():
            distribution = parameters.distributions[name]
            assert distribution._contains(distribution.to_internal_repr(number))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(space=spaces(), seed=st.integers(0, 2**32 - 1))
def test_whatever_optuna_samples_is_a_candidate(space, seed):
    parameters = FlatParameters(space)
    asked = frozen(0, TrialState.RUNNING, None, {}, {}, {})
    sampler = RandomSampler(seed)
    study = ViewStorage([], 1, {}, asked).study(sampler)
    numbers = {
        name: parameters.fixed.get(name, sampler.sample_independent(study, asked, name, kind))
        for name, kind in parameters.distributions.items()
    }
    assert space.contains(parameters.candidate(numbers))


def test_levels_that_floating_point_cannot_step_through_are_exact():
    third = 1 / 3
    space = Space([Float(name="x", low=0.0, high=1.0, step=third, neutral=0.0)])
    parameters = FlatParameters(space)
    levels = [parameters.candidate({"x": number})["x"] for number in range(4)]
    assert levels == [space.at(i)["x"] for i in range(4)]
    assert levels[-1] == 1.0


def test_choices_that_are_equal_in_python_stay_apart():
    space = Space([Choice(name="x", values=(True, 1, "1", False, 0), neutral=1)])
    parameters = FlatParameters(space)
    back = [parameters.candidate(parameters.numbers({"x": v}, {}))["x"] for v in space["x"].values]
    assert [repr(value) for value in back] == ["True", "1", "'1'", "False", "0"]


def test_states_values_and_violations_are_translated():
    view = view_of(
        [
            complete(0, BASELINE),
            complete(1, ONE, (0.1, 0.9)),
            complete(2, TWO, (0.2, 0.4), violation=0.7),
            Observation(3, THREE, "refused"),
        ],
        pending=(Observation(4, {"scheme": "none", "ratio": 0.6}, "running"),),
    )
    trials = shown(view)
    assert [t.number for t in trials] == [1, 2, 3, 4]  # the baseline is outside the space
    complete_, fail, running = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING
    assert [t.state for t in trials] == [complete_, complete_, fail, running]
    assert [t.values for t in trials] == [[0.1, 0.9], [0.2, 0.4], None, None]
    assert [list(t.constraints.values()) for t in trials] == [[0.0], [0.7], [], []]
    assert trials[0].params == {"scheme": 0, "bits": 6, "ratio": 0}


@pytest.mark.parametrize(
    ("constraint", "size", "violation", "signed"),
    [
        ("size <= 4", 3.0, 0.0, -0.25),
        ("size < 4", 1.0, 0.0, -0.75),
        ("size >= 4", 5.0, 0.0, -0.25),
        ("size > -4", -3.0, 0.0, -0.25),
        ("size <= 0", -3.0, 0.0, -3.0),
        ("size <= 4", 5.0, 0.25, 0.25),
        ("size == 4", 4.0, 0.0, 0.0),
        ("other <= 4", 3.0, 0.0, 0.0),
    ],
)
def test_a_constraint_that_is_met_says_by_how_much(constraint, size, violation, signed):
    row = Observation(1, ONE, "complete", (1.0,), (violation,), {"size": size})
    (trial,) = shown(View(SPACE, ("drop",), (constraint,), done=[row]))
    assert list(trial.constraints.values()) == [signed]


def test_an_inactive_knob_has_the_value_that_was_sampled():
    trials = shown(view_of([complete(1, ONE, memo={"inactive": {"bits": 3}}), complete(2, TWO)]))
    assert [t.params["bits"] for t in trials] == [3, 6]


def test_a_trial_without_a_measurement_breaks_a_constraint_for_tpe():
    rows = [complete(1, ONE, violation=2.0), Observation(2, TWO, "failed")]
    measured, other = shown(view_of(rows), "infeasible")
    assert other.state is TrialState.COMPLETE
    assert sum(other.constraints.values()) > sum(measured.constraints.values())


@pytest.mark.parametrize("measured", [0, 1, 2])
def test_tpe_sees_nine_trials_without_a_measurement_per_measured_one(measured):
    rows = [Observation(n, ONE, "refused") for n in range(1, 31)]
    rows += [complete(40 + n, TWO) for n in range(measured)]
    trials = shown(view_of(rows), "infeasible")
    bad = [t.number for t in trials if not t.number >= 40]
    assert bad == list(range(31 - 9 * measured, 31))


def test_a_trial_without_a_measurement_has_the_worst_values_for_models():
    rows = [
        complete(1, ONE, (0.1, 0.9), violation=0.3),
        complete(2, TWO, (0.6, 0.2)),
        Observation(3, THREE, "stopped"),
    ]
    last = shown(view_of(rows), "worst")[-1]
    assert (last.state, last.values) == (TrialState.COMPLETE, [0.6, 0.9])
    assert last.constraints == {"0": 0.3}
    (alone,) = shown(view_of([Observation(3, THREE, "stopped")]), "worst")
    assert alone.state is TrialState.FAIL


def test_a_model_is_shown_violations_as_long_as_no_trial_is_feasible():
    rows = [
        complete(1, ONE, (0.1, 0.9), violation=0.3),
        complete(2, TWO, (0.6, 0.2), violation=0.1),
        Observation(3, THREE, "stopped"),
    ]
    trials = shown(view_of(rows), "worst")
    assert [t.values for t in trials] == [[0.3], [0.1], [0.3]]
    assert [t.constraints for t in trials] == [{}, {}, {}]
    study = ViewStorage(trials, 2, {}, trials[0]).study(RandomSampler(0))
    assert len(study.directions) == 1
    feasible = shown(view_of([*rows, complete(4, ONE)]), "worst")
    assert [t.values for t in feasible] == [[0.1, 0.9], [0.6, 0.2], [0.6, 0.9], [0.5, 0.5]]


def test_a_trial_without_a_measurement_ranks_last():
    last = shown(view_of([complete(1, ONE), Observation(2, TWO, "refused")]), "last")[-1]
    assert last.values == [math.inf, math.inf]


def test_trials_that_were_not_proposed_belong_to_the_generation_before_them():
    def bred(number: int, generation: int) -> Observation:
        return complete(number, ONE, memo={"trial": {"key": generation}})

    rows = [complete(0, TWO), bred(1, 0), bred(2, 3), complete(3, THREE), bred(4, 4)]
    trials = shown(view_of(rows), generation="key")
    assert [t.system_attrs["key"] for t in trials] == [0, 0, 3, 3, 4]


def test_a_trial_is_translated_once_and_again_when_it_ended():
    running = Observation(2, TWO, "running")
    rows = [complete(1, ONE)]
    trials = Trials(FlatParameters(SPACE), "ignored", constrained=True)
    first = trials.of(view_of(rows, (running,)))
    second = trials.of(view_of([*rows, complete(2, TWO)]))
    assert first[0] is second[0]
    assert (first[1].state, second[1].state) == (TrialState.RUNNING, TrialState.COMPLETE)


def test_what_is_kept_with_the_study_is_found_in_the_memos_of_pending_trials_too():
    def keeping(number: int, **attrs: int) -> Observation:
        return Observation(number, ONE, "running", memo={"study": attrs})

    view = view_of([keeping(1, a=1, b=1), keeping(4, a=4)], (keeping(2, b=2), keeping(3, a=3)))
    assert study_attrs(view) == {"a": 4, "b": 2}


def test_a_sampler_cannot_change_what_is_visible():
    visible = frozen(1, TrialState.RUNNING, None, {}, {}, {})
    asked = frozen(2, TrialState.RUNNING, None, {}, {}, {})
    storage = ViewStorage([visible], 1, {}, asked)
    storage.set_trial_system_attr(2, "key", "value")
    assert asked.system_attrs == {"key": "value"}
    for change in (
        lambda: storage.set_trial_system_attr(1, "key", "value"),
        lambda: storage.create_new_trial(0),
        lambda: storage.set_trial_state_values(2, TrialState.FAIL),
    ):
        with pytest.raises(TypeError, match="may read this study"):
            change()
