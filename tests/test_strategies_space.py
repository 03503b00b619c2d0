from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.space import (
    Choice,
    Condition,
    Float,
    Int,
    Knob,
    Space,
    SpaceError,
    Value,
    candidate_key,
)

law = settings(deadline=None, max_examples=60)

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def discrete_knobs(draw: st.DrawFn, name: str) -> Knob:
    count = draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["text", "mixed", "int", "grid"]))
    neutral = draw(st.sampled_from(["level", "level in another type", "outside"]))
    if kind in ("text", "mixed"):
        pool: list[Value] = ["x", "y", "z", "w"] if kind == "text" else ["x", 4, 0.5, True]
        values = draw(st.permutations(pool))[:count]
        return Choice(
            name=name,
            values=tuple(values),
            neutral="none" if neutral == "outside" else values[0],
            ordered=draw(st.booleans()),
        )
    low = draw(st.integers(-3, 3))
    if kind == "int":
        return Int(
            name=name,
            low=low,
            high=low + 2 * (count - 1),
            step=2,
            neutral=99 if neutral == "outside" else low,
        )
    return Float(
        name=name,
        low=low,
        high=low + 0.1 * (count - 1),
        step=0.1,
        neutral={"level": float(low), "outside": 99.5}.get(neutral, low),
    )


@st.composite
def conditions(draw: st.DrawFn, parent: Knob) -> Condition:
    assert parent.size is not None
    value = parent.at(draw(st.integers(0, parent.size - 1)))
    ops = ["==", "!=", "in"] + ([] if isinstance(parent, Choice) else ["<", "<=", ">", ">="])
    op = draw(st.sampled_from(ops))
    return Condition(parent.name, op, (value, "gone") if op == "in" else value)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """A forest of discrete knobs: any knob may depend on any earlier one."""
    knobs: list[Knob] = []
    for name in NAMES[: draw(st.integers(0, len(NAMES)))]:
        knob = draw(discrete_knobs(name))
        if knobs and draw(st.booleans()):
            knob = replace(knob, active_when=draw(conditions(draw(st.sampled_from(knobs)))))
        knobs.append(knob)
    return Space(knobs)


@st.composite
def spaces_with_candidate(draw: st.DrawFn) -> tuple[Space, dict[str, Value]]:
    space = draw(spaces())
    assert space.size is not None
    return space, space.at(draw(st.integers(0, space.size - 1)))


def levels(knob: Knob) -> list[Value]:
    assert knob.size is not None
    return [knob.at(i) for i in range(knob.size)]


def enumerated(space: Space) -> list[dict[str, Value]]:
    """All canonical candidates, the slow and obvious way."""
    found: list[dict[str, Value]] = [{}]
    for knob in space:
        when = knob.active_when
        longer = []
        for chosen in found:
            if when is None or (when.knob in chosen and when.holds(chosen[when.knob])):
                longer += [{**chosen, knob.name: value} for value in levels(knob)]
            else:
                longer.append(chosen)
        found = longer
    return found


MODE = Choice(name="mode", values=("none", "prune"), neutral="none")
RATIO = Float(
    name="ratio",
    low=0.0,
    high=0.5,
    step=0.1,
    neutral=0,
    active_when=Condition("mode", "==", "prune"),
)
SCOPE = Choice(
    name="scope",
    values=("global", "uniform"),
    neutral="uniform",
    active_when=Condition("ratio", ">", 0),
)
EPOCHS = Int(name="epochs", low=0, high=4, step=2, neutral=0)
SMALL = Space([MODE, RATIO, SCOPE, EPOCHS])
CONTINUOUS = Space(
    [
        Float(name="width", low=0.25, high=1.0, neutral=1.0),
        Choice(
            name="scope",
            values=("global", "uniform"),
            neutral="uniform",
            active_when=Condition("width", "<", 1.0),
        ),
        Float(name="lr", low=1e-5, high=1e-1, log=True, neutral=1e-3),
    ]
)
HUGE = Space(replace(RATIO, name=f"ratio{i}", high=0.9, active_when=None) for i in range(60))


# Counting and numbering


@law
@given(spaces())
def test_size_and_numbers_agree_with_an_enumeration(space):
    candidates = enumerated(space)
    numbered = [space.at(i) for i in range(len(candidates))]

    assert space.size == space.skeletons == len(candidates)
    assert {candidate_key(c) for c in numbered} == {candidate_key(c) for c in candidates}
    assert len({candidate_key(c) for c in numbered}) == len(candidates)


@law
@given(spaces())
def test_at_and_index_are_inverse(space):
    for i in range(space.size):
        candidate = space.at(i)
        assert space.index(candidate) == i
        assert space.contains(candidate)


def test_counts_of_a_known_space():
    assert SMALL.size == (1 + 1 + 5 * 2) * 3
    assert HUGE.size == 10**60
    assert CONTINUOUS.size is None
    assert Space([]).size == 1
    assert Space([]).at(0) == {}


@law
@given(st.integers(0, 10**60 - 1))
def test_numbers_beyond_64_bits_are_exact(index):
    assert HUGE.index(HUGE.at(index)) == index


def test_the_ends_of_a_huge_space():
    assert set(HUGE.at(0).values()) == {0.0}
    assert set(HUGE.at(10**60 - 1).values()) == {0.9}


@pytest.mark.parametrize(
    ("space", "index"), [(SMALL, 36), (SMALL, -1), (HUGE, 10**60), (CONTINUOUS, 0)]
)
def test_a_number_out_of_range_is_refused(space, index):
    with pytest.raises(
        SpaceError, match=rf"index must be in \[0, size={space.size}\), got {index}"
    ):
        space.at(index)


# Canonical candidates


@law
@given(spaces(), st.randoms(use_true_random=False))
def test_canonical_drops_inactive_knobs_and_is_idempotent(space, random):
    raw = {knob.name: random.choice(levels(knob)) for knob in space}
    candidate = space.canonical(raw)
    keys = {candidate_key(c) for c in enumerated(space)}

    assert candidate_key(candidate) in keys
    assert candidate_key(space.canonical(candidate)) == candidate_key(candidate)
    assert candidate.items() <= raw.items()


def test_canonical_casts_values_and_forgets_the_order_of_names():
    candidate = SMALL.canonical({"epochs": 2, "scope": "global", "ratio": 0, "mode": "prune"})

    assert list(candidate.items()) == [("mode", "prune"), ("ratio", 0.0), ("epochs", 2)]
    assert type(candidate["ratio"]) is float
    assert candidate_key(candidate) == candidate_key(dict(reversed(candidate.items())))


def test_equal_candidates_have_one_key_and_others_another():
    assert candidate_key({"a": 1}) != candidate_key({"a": 1.0})
    assert candidate_key({"a": 1}) != candidate_key({"a": True})
    assert candidate_key({"a": "1"}) != candidate_key({"a": 1})
    assert candidate_key({"a": 1, "b": 2}) == candidate_key({"b": 2, "a": 1})


@pytest.mark.parametrize(
    "candidate",
    [
        {"mode": "none", "epochs": 0},
        {"mode": "prune", "ratio": 0.0, "epochs": 0},
        {"mode": "prune", "ratio": 0.3, "scope": "global", "epochs": 4},
    ],
)
def test_canonical_candidates_are_contained(candidate):
    assert SMALL.contains(candidate)


@pytest.mark.parametrize(
    "candidate",
    [
        {},
        {"mode": "none"},
        {"mode": "none", "epochs": 1},
        {"mode": "none", "epochs": 0.0},
        {"mode": "none", "epochs": False},
        {"mode": "none", "epochs": np.int64(0)},
        {"mode": "none", "epochs": None},
        {"mode": "none", "epochs": 0, "ratio": 0.1},
        {"mode": "prune", "ratio": 0, "epochs": 0},
        {"mode": "prune", "ratio": -0.0, "epochs": 0},
        {"mode": "prune", "ratio": np.float64(0.0), "epochs": 0},
        {"mode": "prune", "ratio": 0.1 + 0.2, "scope": "global", "epochs": 0},
        {"mode": "prune", "ratio": 0.3, "epochs": 0},
        {"mode": "none", "epochs": 0, "gone": 1},
    ],
)
def test_other_candidates_are_not_contained(candidate):
    assert not SMALL.contains(candidate)


def test_a_choice_of_numpy_values_is_not_contained():
    space = Space([Choice(name="bits", values=(4, 8), neutral=8)])

    assert space.contains({"bits": 4})
    assert not space.contains({"bits": np.int64(4)})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"gone": 1}, "unknown knob 'gone'; known: mode, ratio, scope, epochs"),
        ({"mode": "none"}, "the candidate must give 'epochs', got {'mode': 'none'}"),
        (
            {"mode": "prune", "epochs": 0},
            "the candidate must give 'ratio', got {'mode': 'prune', 'epochs': 0}",
        ),
        (
            {"mode": "none", "epochs": 3},
            "knob 'epochs': must be a level of 0 + k x 2, got 3",
        ),
        (
            {"mode": "all", "epochs": 0},
            "knob 'mode': the value must be one of 'none', 'prune', got 'all'",
        ),
    ],
)
def test_a_raw_candidate_that_means_nothing_is_refused(raw, message):
    with pytest.raises(SpaceError) as caught:
        SMALL.canonical(raw)

    assert str(caught.value) == message


# Sampling


@law
@given(spaces(), st.integers(0, 2**32))
def test_samples_lie_in_the_space(space, seed):
    rng = np.random.default_rng(seed)

    assert all(space.contains(space.sample(rng)) for _ in range(5))


def test_samples_of_continuous_and_huge_spaces_lie_in_them():
    rng = np.random.default_rng(0)

    for space in (CONTINUOUS, HUGE):
        samples = [space.sample(rng) for _ in range(50)]
        assert all(space.contains(c) for c in samples)
        assert len({candidate_key(c) for c in samples}) == 50


def test_equal_generators_give_equal_samples():
    for space in (SMALL, CONTINUOUS, HUGE):
        assert space.sample(np.random.default_rng(3)) == space.sample(np.random.default_rng(3))


def test_a_log_range_is_sampled_on_its_scale():
    rng = np.random.default_rng(0)
    logs = [math.log10(CONTINUOUS.sample(rng)["lr"]) for _ in range(400)]

    assert -3.2 < sum(logs) / 400 < -2.8
    assert min(logs) < -4.8
    assert max(logs) > -1.2


def test_a_filled_skeleton_keeps_its_discrete_values():
    space = Space([MODE, *CONTINUOUS, EPOCHS])
    rng = np.random.default_rng(0)

    assert space.skeletons == 2 * 3
    for number in range(6):
        first, second = space.fill(number, rng), space.fill(number, rng)
        assert space.contains(first)
        assert first["width"] != second["width"]
        assert (first["mode"], first["epochs"]) == (second["mode"], second["epochs"])
        assert space.index(first) == number


# Vectors


@law
@given(spaces_with_candidate())
def test_encoding_is_undone_by_decoding(pair):
    space, candidate = pair
    vector = space.encode(candidate)

    assert vector.shape == (len(space),)
    assert vector.dtype == np.float64
    assert ((vector >= 0) & (vector <= 1)).all()
    assert candidate_key(space.decode(vector)) == candidate_key(candidate)


@law
@given(spaces(), st.data())
def test_every_vector_decodes_to_a_canonical_candidate(space, data):
    vector = data.draw(st.lists(st.floats(-1, 2), min_size=len(space), max_size=len(space)))

    assert space.contains(space.decode(np.array(vector)))


def test_continuous_values_survive_encoding_almost_exactly():
    rng = np.random.default_rng(0)
    for _ in range(50):
        candidate = CONTINUOUS.sample(rng)
        decoded = CONTINUOUS.decode(CONTINUOUS.encode(candidate))
        assert decoded.pop("scope", None) == candidate.pop("scope", None)
        assert decoded == pytest.approx(candidate, rel=1e-9)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        SMALL.decode(np.zeros(3))


def test_inactive_knobs_are_encoded_as_zero():
    assert SMALL.encode({"mode": "none", "epochs": 2}).tolist() == [0.0, 0.0, 0.0, 0.5]


# Neighbours


@law
@given(spaces_with_candidate())
def test_neighbours_are_canonical_and_one_move_away(pair):
    space, candidate = pair
    neighbours = space.neighbours(candidate)

    for other in neighbours:
        assert space.contains(other)
        moved = [n for n in candidate.keys() & other.keys() if candidate[n] != other[n]]
        assert len(moved) == 1
        assert other[moved[0]] in space[moved[0]].adjacent(candidate[moved[0]])
    assert len({candidate_key(c) for c in neighbours}) == len(neighbours)
    assert len(neighbours) == sum(len(space[n].adjacent(v)) for n, v in candidate.items())


def test_a_knob_switched_on_by_a_move_starts_neutral():
    assert SMALL.neighbours({"mode": "none", "epochs": 0}) == [
        {"mode": "prune", "ratio": 0.0, "epochs": 0},
        {"mode": "none", "epochs": 2},
    ]
    assert SMALL.neighbours({"mode": "prune", "ratio": 0.0, "epochs": 0})[1] == {
        "mode": "prune",
        "ratio": 0.1,
        "scope": "uniform",
        "epochs": 0,
    }


def test_neighbours_of_a_continuous_candidate_lie_in_the_space():
    neighbours = CONTINUOUS.neighbours({"width": 1.0, "lr": 1e-3})

    assert len(neighbours) == 3
    assert all(CONTINUOUS.contains(c) for c in neighbours)
    assert neighbours[0]["scope"] == "uniform"


# The baseline


def test_the_baseline_is_neutral_in_every_active_knob():
    assert SMALL.baseline() == {"mode": "none", "epochs": 0}
    assert CONTINUOUS.baseline() == {"width": 1.0, "lr": 1e-3}
    assert Space([replace(MODE, neutral="prune"), RATIO]).baseline() == {
        "mode": "prune",
        "ratio": 0.0,
    }


@law
@given(spaces())
def test_the_baseline_is_canonical_where_its_values_are_searched(space):
    baseline = space.baseline()
    searched = all(space[name].contains(value) for name, value in baseline.items())

    assert space.contains(baseline) == searched
    assert space.is_neutral(baseline, "")


def test_the_baseline_exists_where_its_values_are_not_searched():
    space = Space([MODE.fixed("prune"), replace(RATIO, low=0.2), EPOCHS])

    assert space.baseline() == {"mode": "none", "epochs": 0}
    assert not space.contains(space.baseline())


def test_is_neutral_looks_at_the_knobs_of_one_prefix():
    space = Space(
        [
            replace(EPOCHS, name="distillation.epochs"),
            Int(name="quantization.bits", low=4, high=8, step=4, neutral=8),
        ]
    )
    candidate = {"distillation.epochs": 0, "quantization.bits": 4}

    assert space.is_neutral(candidate, "distillation.")
    assert not space.is_neutral(candidate, "quantization.")
    assert not space.is_neutral(candidate, "")
    assert space.is_neutral(candidate, "pruning.")


# Identity


@law
@given(spaces())
def test_json_keeps_a_space(space):
    again = Space.from_json(json.loads(json.dumps(space.to_json())))

    assert again == space
    assert again.knobs == space.knobs
    assert again.fingerprint == space.fingerprint
    assert hash(again) == hash(space)


@pytest.mark.parametrize("space", [SMALL, CONTINUOUS, HUGE, Space([])])
def test_json_keeps_known_spaces(space):
    again = Space.from_json(json.loads(json.dumps(space.to_json())))

    assert again == space
    assert again.fingerprint == space.fingerprint


@pytest.mark.parametrize(
    "knobs",
    [
        [],
        [MODE],
        [EPOCHS, MODE, RATIO],
        [MODE, EPOCHS, RATIO],
        [replace(MODE, name="modes"), replace(RATIO, active_when=None), EPOCHS],
        [replace(MODE, neutral="prune"), RATIO, EPOCHS],
        [replace(MODE, ordered=True), RATIO, EPOCHS],
        [replace(MODE, direction=1), RATIO, EPOCHS],
        [replace(MODE, values=("prune", "none")), RATIO, EPOCHS],
        [replace(MODE, values=("none", "prune", "both")), RATIO, EPOCHS],
        [MODE, replace(RATIO, high=0.4), EPOCHS],
        [MODE, replace(RATIO, step=0.05), EPOCHS],
        [MODE, replace(RATIO, active_when=None), EPOCHS],
        [MODE, replace(RATIO, active_when=Condition("mode", "!=", "prune")), EPOCHS],
        [MODE, replace(RATIO, active_when=Condition("mode", "==", "none")), EPOCHS],
        [MODE, RATIO, replace(EPOCHS, low=2)],
        [MODE, RATIO, replace(EPOCHS, low=1, high=5, step=1, log=True)],
        [MODE, RATIO, Float(name="epochs", low=0, high=4, step=2, neutral=0)],
    ],
)
def test_a_difference_in_any_part_makes_another_space(knobs):
    space = Space([MODE, RATIO, EPOCHS])
    other = Space(knobs)

    assert other != space
    assert other.fingerprint != space.fingerprint


def test_numbers_and_truth_values_make_different_spaces():
    numbers = Space([Choice(name="c", values=(0, 1), neutral=0)])
    truths = Space([Choice(name="c", values=(False, True), neutral=False)])

    assert numbers != truths
    assert len({numbers, truths}) == 2


def test_keys_of_candidates_stay_what_stored_trials_hold():
    key = candidate_key({"mode": "prune", "ratio": 0.3, "epochs": 2, "flag": True})

    assert key == "aa1372f0cbba6dfeebc356785cb3f7c379a2e06fbe8b04b7918b92944902acce"


# Construction


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ([MODE, EPOCHS, MODE], "knob names must differ, got 'mode' twice"),
        ([RATIO, MODE], "knob 'ratio' depends on 'mode', which must stand before it"),
        ([MODE, SCOPE], "knob 'scope' depends on 'ratio', which must stand before it"),
        (
            [replace(SCOPE, active_when=Condition("scope", "==", "global"))],
            "knob 'scope' depends on 'scope', which must stand before it",
        ),
        (
            [
                Int(name="many", low=0, high=10_000, neutral=0),
                replace(SCOPE, active_when=Condition("many", ">", 0)),
            ],
            "knob 'many' switches others on, so it may have at most 10000 levels, got 10001;"
            " set a larger step",
        ),
    ],
)
def test_a_malformed_space_is_refused(knobs, message):
    with pytest.raises(SpaceError) as caught:
        Space(knobs)

    assert str(caught.value) == message


def test_a_parent_may_have_ten_thousand_levels():
    parent = Int(name="many", low=1, high=10_000, neutral=1)
    space = Space([parent, replace(SCOPE, active_when=Condition("many", ">", 9_990))])

    assert space.size == 9_990 + 10 * 2
    assert space.index(space.at(10_009)) == 10_009


def test_knobs_are_found_by_name_and_iterated_in_order():
    assert SMALL["epochs"] is EPOCHS
    assert "epochs" in SMALL
    assert "gone" not in SMALL
    assert list(SMALL) == [MODE, RATIO, SCOPE, EPOCHS]
    assert len(SMALL) == 4
