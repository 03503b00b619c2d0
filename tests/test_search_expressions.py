from __future__ import annotations

import contextlib
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import ExpressionError
from search.expressions import (
    OPERATORS,
    Comparison,
    Expression,
    Joined,
    Not,
    parse,
    parse_constraint,
    shortfall,
    violation,
    violations,
)

names = st.sampled_from(["accuracy", "size_bytes", "onnx_quantization.scheme", "precision@l3.0"])
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
words = st.one_of(  # any text but one with both quotes, which cannot be written
    st.text(st.characters(exclude_characters=quote), max_size=8) for quote in "'\""
)
comparisons = st.builds(Comparison, names, st.sampled_from(list(OPERATORS)), numbers | words)
expressions: st.SearchStrategy[Expression] = st.recursive(
    comparisons,
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(
            Joined,
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3).map(tuple),
        )
    ),
    max_leaves=6,
)
rows = st.dictionaries(names, st.floats(-10, 10) | st.sampled_from(["static", "none"]))


@given(expressions, rows)
def test_what_is_printed_means_the_same_when_read_again(expression, row):
    assert parse(str(expression)).holds(row) == expression.holds(row)


@given(comparisons)
def test_a_comparison_survives_printing_exactly(comparison):
    assert parse(str(comparison)) == comparison


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ExpressionError):  # and nothing else
        assert parse(str(parse(text))) == parse(str(parse(text)))


def test_and_binds_stronger_than_or_and_parentheses_override():
    row = {"a": 1.0, "b": 0.0, "c": 0.0}
    assert parse("a == 1 or b == 1 and c == 1").holds(row)
    assert not parse("(a == 1 or b == 1) and c == 1").holds(row)
    assert parse("not b == 1 and not (c == 1)").holds(row)


def test_a_name_without_a_value_meets_nothing():
    assert not parse("missing <= 1").holds({})
    assert not parse("missing == none").holds({})


def test_words_compare_with_words_only():
    assert parse("scheme == static").holds({"scheme": "static"})
    assert parse("scheme != 'none'").holds({"scheme": "static"})
    assert not parse("scheme <= 3").holds({"scheme": "static"})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "expected a metric at the end"),
        ("accuracy", "expected one of <= < >= > == !="),
        ("accuracy <", "expected a number or a word at the end"),
        ("accuracy < 3 size_bytes < 4", "expected and, or, or the end at 'size_bytes < 4'"),
        ("(accuracy < 3", "expected ) at the end"),
        ("accuracy = 3", "cannot read 'accuracy = 3' at '= 3'"),
        ("3 < accuracy", "expected a metric at '3 < accuracy'"),
        ("__import__('os')", "expected one of"),
        ("and < 3", "expected a metric"),
        ("not < 3", "expected a metric at '< 3' (character 5)"),
        ("a < and", "expected a number or a word at 'and' (character 5)"),
        ("a < 1e999", "expected a finite number at '1e999' (character 5)"),
        ("a < 1 and b $ 2", "cannot read 'a < 1 and b $ 2' at '$ 2' (character 13)"),
        ("a <\n", "expected a number or a word at the end of 'a <\\n'"),
        ("(" * 5000, "expected at most 50 parentheses and nots in each other"),
        ("not " * 5000 + "a < 1", "expected at most 50 parentheses and nots in each other"),
    ],
)
def test_a_malformed_expression_says_where_and_how_to_write_it(text, part):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert part in str(caught.value)


@given(st.text("ab@.()<>=!'\" 01-+eE\n\\andort", max_size=40))
def test_junk_is_an_error_of_one_line(text):
    error = ""
    try:
        parse(text)
    except ExpressionError as caught:
        error = str(caught)
    assert "\n" not in error
    assert not error or repr(text) in error


def test_switches_compare_with_true_and_false():
    assert parse("flag == true").holds({"flag": True})
    assert parse("flag != true").holds({"flag": False})
    assert not parse("flag == true").holds({"flag": False})
    assert parse("flag == 1").holds({"flag": True})


def test_quotes_inside_quotes_are_kept():
    assert parse("""name == "it's" """) == Comparison("name", "==", "it's")
    assert parse("""name == "'x'" """) == Comparison("name", "==", "'x'")


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(ExpressionError, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        parse("acuracy > 0.5", known=["accuracy", "size_bytes"])


@pytest.mark.parametrize("text", ["a <= 1 and b <= 2", "a == 1", "a != 1", "a <= b", "not a < 1"])
def test_a_constraint_is_one_inequality_with_a_number(text):
    with pytest.raises(ExpressionError):
        parse_constraint(text)


def test_violation_is_relative_to_the_bound_and_zero_when_met():
    size = parse_constraint("size_bytes <= 400")
    assert violation(size, 400) == 0
    assert violation(size, 500) == 0.25
    assert violation(parse_constraint("accuracy >= 0.8"), 0.6) == pytest.approx(0.25)
    assert violation(parse_constraint("drop <= 0"), 0.01) == pytest.approx(0.01)
    assert 0 < violation(parse_constraint("drop < 0.5"), 0.5) < 1e-12
    assert violation(parse_constraint("drop > 0.5"), 0.6) == 0.0


@given(numbers, numbers)
def test_a_violation_is_positive_exactly_when_the_constraint_is_broken(bound, value):
    constraint = Comparison("x", "<=", bound)
    off = violation(constraint, value)
    assert (off > 0) == (value > bound)
    assert not math.isnan(off)


@given(
    op=st.sampled_from(["<=", "<", ">=", ">"]),
    bound=st.sampled_from([0.0, 0.5, -2.0]),
    values=st.lists(st.sampled_from([0.0, 0.5, -2.0, 0.25, 1e9]), max_size=5),
)
def test_violations_are_those_of_each_value(op, bound, values):
    constraint = Comparison("m", op, bound)
    expected = [violation(constraint, value) for value in values]
    assert violations(constraint, np.array(values)).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a <= 4 and b <= 10", 0.25 + 1.0),
        ("a <= 4 or b <= 10", 0.25),
        ("not (a > 4 or b > 10)", 0.25 + 1.0),
        ("not (a > 4 and b > 10)", 0.25),
        ("a <= 4 or a <= 9", 0.0),
        ("scheme == static", 1.0),
        ("missing <= 3", 1.0),
        ("a != 5", 1.0),
        ("a == 4", 0.25),
    ],
)
def test_how_far_a_row_falls_short(text, expected):
    row = {"a": 5.0, "b": 20.0, "scheme": "none"}
    assert shortfall(parse(text), row) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("size_bytes < 60 kB", "write sizes in bytes, 60e3 for 60 kB"),
        ("size_bytes < 60kB", "write sizes in bytes, 60e3 for 60 kB"),
        ("size_bytes < 2MB", "write sizes in bytes"),
        ("accuracy_drop < 1%", "write a share as a number, 0.01 for 1 %"),
        ("accuracy_drop < 1 %", "write a share as a number, 0.01 for 1 %"),
        ("accuracy = 0.9", "write == for equal"),
        ("accuracy => 0.9", "write <= or >="),
        ("0.1 < latency_ratio", "METRIC <= NUMBER"),
        ("latency_ratio > 0.1 < 0.2", "write two comparisons, joined by and"),
    ],
)
def test_what_people_type_is_answered_by_what_to_write(text, hint):
    with pytest.raises(ExpressionError, match=re.escape(hint)):
        parse(text)


def test_the_last_part_of_a_knobs_name_is_answered_by_the_whole():
    known = ["accuracy", "depth_pruning.blocks", "onnx_quantization.scheme"]
    with pytest.raises(ExpressionError, match=r"named in full: depth_pruning\.blocks"):
        parse("blocks >= 4", known)
