from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from strategies.pareto import front, non_dominated

law = settings(deadline=None)

# Few distinct numbers, so that ties and equal rows are common; and some of any size.
numbers = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(-1e9, 1e9)
breaches = st.sampled_from([0.0, 0.0, 0.25, 0.5, 2.0])


@st.composite
def tables(draw: DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rows = draw(st.integers(0, 12))
    objectives, constraints = draw(st.integers(1, 3)), draw(st.integers(0, 3))
    values = draw(st.lists(numbers, min_size=rows * objectives, max_size=rows * objectives))
    violations = draw(st.lists(breaches, min_size=rows * constraints, max_size=rows * constraints))
    return (
        np.array(values).reshape(rows, objectives),
        np.array(violations).reshape(rows, constraints),
    )


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def constraint_dominates(values: np.ndarray, violations: np.ndarray, a: int, b: int) -> bool:
    """Deb et al. 2002, definition 1."""
    feasible_a, feasible_b = not violations[a].any(), not violations[b].any()
    if feasible_a and feasible_b:
        return dominates(values[a], values[b])
    if feasible_a or feasible_b:
        return feasible_a
    if violations[a].sum() != violations[b].sum():
        return violations[a].sum() < violations[b].sum()
    return dominates(values[a], values[b])


@law
@given(tables())
def test_non_dominated_rows_are_those_of_a_brute_force(table):
    values, _ = table
    rows = range(len(values))
    expected = [not any(dominates(values[j], values[i]) for j in rows) for i in rows]

    assert non_dominated(values).tolist() == expected


@law
@given(tables())
def test_the_front_is_that_of_constraint_domination(table):
    values, violations = table
    rows = range(len(values))
    expected = [
        not any(constraint_dominates(values, violations, j, i) for j in rows) for i in rows
    ]

    assert front(values, violations).tolist() == expected


@law
@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(table, random):
    values, violations = table
    order = list(range(len(values)))
    random.shuffle(order)

    assert (
        front(values[order], violations[order]).tolist()
        == front(values, violations)[order].tolist()
    )


def test_equal_rows_all_stay():
    values = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]])

    assert non_dominated(values).tolist() == [True, True, True, False]
    assert front(values, np.zeros((4, 2))).tolist() == [True, True, True, False]


def test_one_objective_keeps_all_minima():
    assert non_dominated(np.array([[3.0], [1.0], [2.0], [1.0]])).tolist() == [
        False,
        True,
        False,
        True,
    ]


def test_a_feasible_row_dominates_a_better_infeasible_one():
    values = np.array([[9.0, 9.0], [0.0, 0.0]])

    assert front(values, np.array([[0.0], [1e-12]])).tolist() == [True, False]


def test_without_a_feasible_row_the_least_total_violation_wins():
    values = np.array([[0.0], [5.0], [4.0], [9.0]])
    violations = np.array([[1.0, 1.0], [0.5, 0.25], [0.75, 0.0], [0.0, 0.75]])

    assert front(values, violations).tolist() == [False, False, True, False]


def test_without_constraints_the_front_is_what_is_not_dominated():
    values = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 3.0]])

    assert front(values, np.zeros((3, 0))).tolist() == [True, True, False]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_no_rows_have_an_empty_front(objectives):
    empty = np.zeros((0, objectives))

    assert non_dominated(empty).tolist() == []
    assert front(empty, np.zeros((0, 2))).tolist() == []
    assert front(empty, np.zeros((0, 0))).tolist() == []


def test_the_inputs_are_not_changed():
    values, violations = np.array([[2.0], [1.0]]), np.array([[0.0], [1.0]])
    front(values, violations)

    assert values.tolist() == [[2.0], [1.0]]
    assert violations.tolist() == [[0.0], [1.0]]
