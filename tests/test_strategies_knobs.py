from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.knobs import Choice, Condition, SpaceError
from strategies.number_knobs import Float, Int

SCHEME = Choice(name="scheme", values=("none", "dynamic", "static"), neutral="none")
BITS = Choice(name="bits", values=(2, 4, 8), neutral=8, ordered=True, direction=-1)
RATIO = Float(name="ratio", low=0.0, high=0.9, step=0.1, neutral=0.0, direction=1)
LR = Float(name="lr", low=1e-5, high=1e-1, log=True, neutral=1e-3, default=1e-3)
WIDTH = Float(name="width", low=0.25, high=1.0, neutral=1.0)
EPOCHS = Int(name="epochs", low=0, high=100, neutral=0)
ROUND_TO = Int(name="round_to", low=8, high=64, step=8, neutral=8)
CHANNELS = Int(name="channels", low=1, high=1024, log=True, neutral=1024)
ALL = (SCHEME, BITS, RATIO, LR, WIDTH, EPOCHS, ROUND_TO, CHANNELS)
DISCRETE = tuple(knob for knob in ALL if knob.size is not None)
CONTINUOUS = (LR, WIDTH)

law = settings(deadline=None)
by_name = pytest.mark.parametrize("knob", ALL, ids=lambda knob: knob.name)
discrete = pytest.mark.parametrize("knob", DISCRETE, ids=lambda knob: knob.name)
continuous = pytest.mark.parametrize("knob", CONTINUOUS, ids=lambda knob: knob.name)


@st.composite
def grids(draw: st.DrawFn) -> Float | Int:
    """A stepped knob with odd bounds and steps."""
    levels = draw(st.integers(1, 60))
    if draw(st.booleans()):
        low, step = draw(st.integers(-50, 50)), draw(st.integers(1, 9))
        return Int(name="k", low=low, high=low + step * (levels - 1), step=step, neutral=0)
    low = draw(st.floats(-10, 10))
    step = draw(st.sampled_from([0.1, 0.05, 1 / 3, 0.7, 1e-6, 2.0, 1e-8]))
    return Float(name="k", low=low, high=low + step * (levels - 1), step=step, neutral=0.0)


# Levels


@discrete
def test_at_and_index_are_inverse(knob):
    levels = [knob.at(i) for i in range(knob.size)]

    assert [knob.index(level) for level in levels] == list(range(knob.size))
    assert len(set(levels)) == knob.size


@law
@given(grids())
def test_every_level_of_a_grid_is_its_own_normal_value(knob):
    assert knob.size is not None
    levels = [knob.at(i) for i in range(knob.size)]

    assert [knob.normal(level) for level in levels] == levels
    assert [knob.index(level) for level in levels] == list(range(knob.size))
    assert all(knob.low <= level <= knob.high for level in levels)
    assert all(a < b for a, b in pairwise(levels))


def test_levels_of_a_decimal_step_are_exact_decimals():
    assert [RATIO.at(i) for i in range(10)] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert RATIO.normal(0.1 + 0.2) == 0.3


@pytest.mark.parametrize(
    ("knob", "size"),
    [(SCHEME, 3), (RATIO, 10), (LR, None), (EPOCHS, 101), (ROUND_TO, 8), (CHANNELS, 1024)],
)
def test_size_counts_levels(knob, size):
    assert knob.size == size


def test_tiny_steps_keep_their_levels_apart():
    knob = Float(name="decay", low=0.0, high=1e-10, step=1e-11, neutral=0.0)

    assert [knob.at(i) for i in range(4)] == [0.0, 1e-11, 2e-11, 3e-11]
    assert not knob.contains(1.5e-11)


def test_a_range_of_one_point_is_fixed():
    point = Float(name="lr", low=1e-12, high=1e-12, neutral=0.0)

    assert point.size == 1
    assert point.is_fixed
    assert point.at(0) == 1e-12
    assert point.from_unit(0.7) == 1e-12
    assert point.to_unit(1e-12) == 0.0
    assert not LR.is_fixed


# Normal values


@pytest.mark.parametrize(
    ("knob", "value", "normal"),
    [
        (WIDTH, 1, 1.0),
        (Float(name="t", low=1.0, high=8.0, neutral=1.0), 4, 4.0),
        (RATIO, 0, 0.0),
        (EPOCHS, 7, 7),
        (ROUND_TO, 16, 16),
        (BITS, 4.0, 4),
        (Choice(name="c", values=(0.5, 1.0), neutral=1.0), 1, 1.0),
        (Choice(name="c", values=(0, False, 1, True), neutral=0), True, True),
        (Choice(name="c", values=(False, 0, True, 1), neutral=0), 1, 1),
        (SCHEME, "static", "static"),
    ],
)
def test_normal_gives_the_value_in_the_knobs_own_type(knob, value, normal):
    got = knob.normal(value)

    assert got == normal
    assert type(got) is type(normal)


def test_there_is_one_zero():
    for knob in (RATIO, Float(name="t", low=-1.0, high=1.0, neutral=0.0)):
        assert math.copysign(1.0, knob.normal(-0.0)) == 1.0


@pytest.mark.parametrize(
    ("knob", "value", "message"),
    [
        (EPOCHS, True, "must be an integer, got True"),
        (EPOCHS, 2.0, "must be an integer, got 2.0"),
        (EPOCHS, "2", "must be an integer, got '2'"),
        (EPOCHS, 101, "the value must lie in [0, 100], got 101"),
        (EPOCHS, -1, "the value must lie in [0, 100], got -1"),
        (ROUND_TO, 12, "must be a level of 8 + k x 8, got 12"),
        (WIDTH, False, "must be a number, got False"),
        (WIDTH, "1.0", "must be a number, got '1.0'"),
        (WIDTH, None, "must be a number, got None"),
        (WIDTH, math.nan, "must be finite, got nan"),
        (WIDTH, math.inf, "must be finite, got inf"),
        (WIDTH, 1.01, "the value must lie in [0.25, 1.0], got 1.01"),
        (RATIO, 0.25, "must be a level of 0.0 + k x 0.1, got 0.25"),
        (SCHEME, "int8", "the value must be one of 'none', 'dynamic', 'static', got 'int8'"),
        (SCHEME, 0, "the value must be one of 'none', 'dynamic', 'static', got 0"),
        (BITS, True, "the value must be one of 2, 4, 8, got True"),
        (
            Choice(name="c", values=(0, 1), neutral=0),
            True,
            "the value must be one of 0, 1, got True",
        ),
        (
            Choice(name="c", values=(False, True), neutral=False),
            1,
            "the value must be one of False, True, got 1",
        ),
    ],
)
def test_a_value_that_is_not_the_knobs_is_refused(knob, value, message):
    with pytest.raises(SpaceError) as caught:
        knob.normal(value)

    assert str(caught.value) == message
    assert not knob.contains(value)


# Positions in [0, 1]


@discrete
def test_discrete_values_survive_their_position(knob):
    for i in range(knob.size):
        value = knob.at(i)
        assert 0.0 <= knob.to_unit(value) <= 1.0
        assert knob.from_unit(knob.to_unit(value)) == value


@law
@given(st.data())
@continuous
def test_continuous_values_survive_their_position(knob, data):
    value = data.draw(st.floats(knob.low, knob.high))

    assert 0.0 <= knob.to_unit(value) <= 1.0
    assert knob.from_unit(knob.to_unit(value)) == pytest.approx(value, rel=1e-12)


@law
@given(position=st.floats(-2, 3))
@by_name
def test_every_position_is_a_value_of_the_knob(knob, position):
    value = knob.from_unit(position)

    assert knob.contains(value)
    assert knob.contains(knob.from_unit(knob.to_unit(value)))


@by_name
def test_the_ends_of_the_unit_interval_are_the_ends_of_the_knob(knob):
    ends = (knob.from_unit(0.0), knob.from_unit(1.0))

    assert ends == (knob.from_unit(-5.0), knob.from_unit(5.0))
    if isinstance(knob, Choice):
        assert ends == (knob.values[0], knob.values[-1])
    else:
        assert ends == (knob.low, knob.high)


def test_a_log_range_is_halved_in_its_geometric_middle():
    assert LR.from_unit(0.5) == pytest.approx(1e-3)
    assert LR.to_unit(1e-2) == pytest.approx(0.75)
    assert CHANNELS.from_unit(0.5) == 32
    assert CHANNELS.to_unit(32) == pytest.approx(0.5)


# Moves


@pytest.mark.parametrize(
    ("knob", "value", "moves"),
    [
        (SCHEME, "dynamic", ["none", "static"]),
        (SCHEME, "none", ["dynamic", "static"]),
        (BITS, 2, [4]),
        (BITS, 4, [2, 8]),
        (RATIO, 0.0, [0.1]),
        (RATIO, 0.3, [0.2, 0.4]),
        (RATIO, 0.9, [0.8]),
        (EPOCHS, 50, [49, 51]),
        (ROUND_TO, 64, [56]),
        (SCHEME.fixed("static"), "static", []),
        (Float(name="x", low=2.0, high=2.0, neutral=0.0), 2.0, []),
    ],
)
def test_adjacent_values_are_one_move_away(knob, value, moves):
    assert knob.adjacent(value) == moves


def test_a_continuous_knob_moves_by_a_tenth_of_its_range():
    assert WIDTH.adjacent(0.5) == pytest.approx([0.425, 0.575])
    assert LR.adjacent(1e-3) == pytest.approx([10**-3.4, 10**-2.6])
    assert WIDTH.adjacent(0.25) == pytest.approx([0.325])
    assert WIDTH.adjacent(1.0) == pytest.approx([0.925])


@law
@given(st.floats(0, 1))
@by_name
def test_moves_stay_in_the_knob_and_differ(knob, position):
    value = knob.from_unit(position)
    moves = knob.adjacent(value)

    assert moves
    assert value not in moves
    assert len(set(moves)) == len(moves)
    assert all(knob.contains(move) for move in moves)


# Narrowing by a config


@by_name
def test_without_a_default_all_values_are_searched(knob):
    if knob.default is None:
        assert knob.resolve() == knob


def test_without_a_spec_the_default_is_taken():
    assert LR.resolve() == Choice(name="lr", values=(1e-3,), neutral=1e-3, ordered=True)
    assert LR.resolve([1e-2, 1e-4]).values == (1e-4, 1e-2)


@pytest.mark.parametrize(
    ("knob", "spec", "values"),
    [
        (RATIO, 0.3, (0.3,)),
        (RATIO, 0, (0.0,)),
        (RATIO, [0.5, 0.1, 0], (0.0, 0.1, 0.5)),
        (EPOCHS, [6, 2], (2, 6)),
        (SCHEME, "static", ("static",)),
        (SCHEME, ["static", "none"], ("static", "none")),
        (BITS, [8, 2], (2, 8)),
        (CHANNELS, [512, 16, 128], (16, 128, 512)),
    ],
)
def test_a_scalar_or_a_list_makes_a_choice(knob, spec, values):
    narrowed = knob.resolve(spec)

    assert isinstance(narrowed, Choice)
    assert narrowed.values == values
    assert [type(v) for v in narrowed.values] == [type(v) for v in values]
    assert (narrowed.name, narrowed.neutral, narrowed.direction) == (
        knob.name,
        knob.neutral,
        knob.direction,
    )
    assert narrowed.is_fixed == (len(values) == 1)


def test_narrowing_keeps_the_condition():
    when = Condition("scheme", "!=", "none")
    knob = Float(name="x", low=0.0, high=1.0, neutral=0.0, default=0.5, active_when=when)

    for spec in (None, 0.25, [0.25, 0.75], {"high": 0.5}):
        assert knob.resolve(spec).active_when == when


def test_a_list_of_an_ordered_knob_is_ordered_and_of_another_is_not():
    assert RATIO.resolve([0.2, 0.1]).ordered
    assert BITS.resolve([4, 2]).ordered
    assert not SCHEME.resolve(["static", "none"]).ordered


@pytest.mark.parametrize(
    ("knob", "spec", "levels"),
    [
        (WIDTH, {"low": 0.5, "step": 0.25}, [0.5, 0.75, 1.0]),
        (WIDTH, {"low": 0.5, "high": 0.7, "step": 0.1}, [0.5, 0.6, 0.7]),
        (RATIO, {"high": 0.3}, [0.0, 0.1, 0.2, 0.3]),
        (RATIO, {"low": 0.1, "high": 0.7, "step": 0.3}, [0.1, 0.4, 0.7]),
        (EPOCHS, {"low": 2, "high": 4}, [2, 3, 4]),
        (EPOCHS, {"high": 10, "step": 5}, [0, 5, 10]),
        (ROUND_TO, {"high": 24}, [8, 16, 24]),
        (CHANNELS, {"low": 2, "high": 4}, [2, 3, 4]),
    ],
)
def test_a_range_makes_levels(knob, spec, levels):
    narrowed = knob.resolve(spec)

    assert [narrowed.at(i) for i in range(narrowed.size)] == levels


def test_a_range_without_step_stays_continuous_and_keeps_its_scale():
    narrowed = LR.resolve({"low": 1e-4})

    assert narrowed.size is None
    assert (narrowed.low, narrowed.high, narrowed.log) == (1e-4, 1e-1, True)
    assert WIDTH.resolve({"log": True}).from_unit(0.5) == pytest.approx(0.5)
    assert LR.resolve({"log": False}).from_unit(0.5) == pytest.approx(0.050005)


@law
@given(grids(), st.data())
def test_a_narrowed_grid_holds_only_values_of_the_knob(knob, data):
    assert knob.size is not None
    first = data.draw(st.integers(0, knob.size - 1))
    last = data.draw(st.integers(first, knob.size - 1))
    narrowed = knob.resolve({"low": knob.at(first), "high": knob.at(last)})

    assert narrowed.size == last - first + 1
    assert all(knob.contains(narrowed.at(i)) for i in range(narrowed.size))


@pytest.mark.parametrize(
    ("knob", "spec", "path", "message"),
    [
        (
            RATIO,
            {"low": 0.5, "high": 0.2},
            "high",
            "`low <= high` must hold, got low=0.5, high=0.2",
        ),
        (RATIO, {"low": -0.1}, "low", "must lie in [0.0, 0.9], got -0.1"),
        (RATIO, {"high": 1.5}, "high", "must lie in [0.0, 0.9], got 1.5"),
        (RATIO, {"low": "a"}, "low", "must be a number, got 'a'"),
        (RATIO, {"low": 0.05}, "low", "must be a level of 0.0 + k x 0.1, got 0.05"),
        (RATIO, {"step": 0.15}, "step", "must be a multiple of 0.1, got 0.15"),
        (RATIO, {"high": True}, "high", "must be a number, got True"),
        (WIDTH, {"high": math.nan}, "high", "must be finite, got nan"),
        (
            WIDTH,
            {"low": 0.3, "high": 0.95, "step": 0.2},
            "step",
            "`high - low` must be a multiple of step, got low=0.3, high=0.95, step=0.2;"
            " the last level would be 0.9",
        ),
        (WIDTH, {"step": 0}, "step", "`step > 0` must hold, got step=0.0"),
        (WIDTH, {"step": -0.1}, "step", "`step > 0` must hold, got step=-0.1"),
        (WIDTH, {"step": "0.1"}, "step", "must be a number, got '0.1'"),
        (WIDTH, {"log": 1}, "log", "must be true or false, got 1"),
        (LR, {"step": 0.1}, "step", "a log range takes no step; remove `step` or `log`"),
        (EPOCHS, {"log": True}, "low", "a log range needs `low > 0`, got low=0"),
        (EPOCHS, {"low": 1.5}, "low", "must be an integer, got 1.5"),
        (EPOCHS, {"step": 0.5}, "step", "must be an integer, got 0.5"),
        (EPOCHS, {"step": 0}, "step", "`step > 0` must hold, got step=0"),
        (EPOCHS, {"low": 0, "max": 3}, "", "a range takes low, high, step, log; got 'max'"),
        (EPOCHS, {1: 2}, "", "a range takes low, high, step, log; got '1'"),
        (EPOCHS, 101, "", "the value must lie in [0, 100], got 101"),
        (EPOCHS, [1, 2, 101], "", "the value must lie in [0, 100], got 101"),
        (EPOCHS, [], "", "a list must name at least one value, got []"),
        (EPOCHS, [1, 2, 1], "", "the values of a list must differ, got [1, 2, 1]"),
        (WIDTH, [1, 1.0], "", "the values of a list must differ, got [1, 1.0]"),
        (EPOCHS, [[1]], "", "a value must be a number, text or true/false, got [1]"),
        (EPOCHS, [None], "", "a value must be a number, text or true/false, got None"),
        (EPOCHS, "all", "", "must be an integer, got 'all'"),
        (SCHEME, [], "", "a list must name at least one value, got []"),
        (SCHEME, ["none", "none"], "", "the values of a list must differ, got ['none', 'none']"),
        (SCHEME, "int8", "", "the value must be one of 'none', 'dynamic', 'static', got 'int8'"),
        (
            SCHEME,
            {"low": 0},
            "",
            "takes one value or a list of values, not a range; got {'low': 0}",
        ),
    ],
)
def test_a_bad_spec_says_the_rule_the_value_and_the_path(knob, spec, path, message):
    with pytest.raises(SpaceError) as caught:
        knob.resolve(spec)

    assert str(caught.value) == message
    assert caught.value.path == path


# Knobs are valid from birth


@pytest.mark.parametrize(
    ("kind", "arguments", "path", "message"),
    [
        (Float, {"low": 2.0, "high": 1.0}, "high", "`low <= high` must hold"),
        (Float, {"low": 0.0, "high": math.inf}, "", "low and high must be finite"),
        (Float, {"low": math.nan, "high": 1.0}, "", "low and high must be finite"),
        (Float, {"low": 0.0, "high": 1.0, "log": True}, "low", "a log range needs `low > 0`"),
        (Int, {"low": 0, "high": 8, "log": True}, "low", "a log range needs `low > 0`, got low=0"),
        (Float, {"low": 0.0, "high": 1.0, "step": 0.3}, "step", "the last level would be 0.9"),
        (Float, {"low": 0.0, "high": 1.0, "step": -1.0}, "step", "`step > 0` must hold"),
        (Int, {"low": 1, "high": 8, "log": True, "step": 7}, "step", "a log range takes no step"),
        (Choice, {"values": ()}, "", "knob 'k' needs at least one value"),
        (Choice, {"values": (1, 2, 1.0)}, "", "the values of knob 'k' must differ"),
    ],
)
def test_a_malformed_knob_is_refused(kind, arguments, path, message):
    with pytest.raises(SpaceError) as caught:
        kind(name="k", neutral=0, **arguments)

    assert message in str(caught.value)
    assert caught.value.path == path


def test_a_condition_with_an_unknown_operator_is_refused():
    with pytest.raises(SpaceError, match="op must be one of ==, !=, <, <=, >, >=, in, got '~'"):
        Condition("ratio", "~", 1)


@pytest.mark.parametrize(
    ("op", "value", "holds"),
    [
        ("==", 2, [False, True, False]),
        ("!=", 2, [True, False, True]),
        ("<", 2, [True, False, False]),
        ("<=", 2, [True, True, False]),
        (">", 2, [False, False, True]),
        (">=", 2, [False, True, True]),
        ("in", (1, 3), [True, False, True]),
        ("in", [1, 3], [True, False, True]),
    ],
)
def test_conditions_compare_the_parents_value(op, value, holds):
    condition = Condition("parent", op, value)

    assert [condition.holds(v) for v in (1, 2, 3)] == holds
    assert hash(condition) is not None


# JSON


@by_name
def test_a_record_makes_the_resolved_knob_again(knob):
    record: dict[str, Any] = json.loads(json.dumps(knob.to_json()))

    assert record.pop("kind") == type(knob).KIND
    assert type(knob)(**record) == replace(knob, default=None)


def test_a_record_holds_only_what_differs_from_the_defaults():
    assert EPOCHS.to_json() == {
        "kind": "int",
        "name": "epochs",
        "neutral": 0,
        "low": 0,
        "high": 100,
    }
    assert SCHEME.to_json() == {
        "kind": "choice",
        "name": "scheme",
        "neutral": "none",
        "values": ["none", "dynamic", "static"],
    }
