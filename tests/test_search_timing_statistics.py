"""Intervals of a ratio of times."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.timing_statistics import (
    FEWEST,
    median_interval,
    noise_floor,
    unexplained,
    widened,
)

RATIOS = st.lists(st.floats(0.01, 100), min_size=FEWEST, max_size=40)


@given(RATIOS)
def test_an_interval_holds_its_median_and_lies_within_the_values(values):
    found, low, high = median_interval(values)
    assert found == pytest.approx(float(np.median(values)))
    assert min(values) <= low * (1 + 1e-12)
    assert low <= found <= high
    assert high <= max(values) * (1 + 1e-12)


@given(RATIOS, st.randoms())
def test_the_order_of_rounds_does_not_matter(values, random):
    shuffled = random.sample(values, len(values))
    assert median_interval(shuffled) == median_interval(values)


def test_known_ends():
    """Of 12 values 2 may lie outside on either side: 2 (1 + 12 + 66) / 4096 = 3.9 % <= 4 %."""
    _, low, high = median_interval(range(1, 13))
    assert low == pytest.approx(3, abs=0.05)
    assert low >= 3
    assert low + high == pytest.approx(13)


@pytest.mark.parametrize("n", [6, 9, 12, 20, 30])
@pytest.mark.parametrize("draw", ["normal", "standard_cauchy", "laplace"])
def test_the_median_is_covered_whatever_the_distribution(n, draw):
    rng = np.random.default_rng(0)
    found = [median_interval(list(values)) for values in getattr(rng, draw)(size=(2000, n))]
    covered = np.mean([low <= 0 <= high for _, low, high in found])
    assert 0.94 < covered < 0.98


def test_too_few_values_are_an_error():
    with pytest.raises(ValueError, match="needs 6 values or more, got 5"):
        median_interval([1.0] * 5)


@given(st.floats(0.1, 10), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5))
def test_an_excess_widens_in_quadrature(ratio, below, above, excess):
    low, high = widened(ratio, ratio * math.exp(-below), ratio * math.exp(above), excess)
    assert math.log(ratio / low) == pytest.approx(math.hypot(below, excess), abs=1e-9)
    assert math.log(high / ratio) == pytest.approx(math.hypot(above, excess), abs=1e-9)


def test_only_what_excludes_1_is_unexplained():
    assert unexplained(0.99, 1.02) == 0
    assert unexplained(1.01, 1.03) == pytest.approx(math.log(1.01))
    assert unexplained(0.9, 0.95) == pytest.approx(-math.log(0.95))
    assert noise_floor(0.99, 1.02) == pytest.approx(0.02)
    assert noise_floor(0.97, 1.02) == pytest.approx(0.03)
