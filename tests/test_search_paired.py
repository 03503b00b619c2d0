"""Bounds of scores and drops: against brute force, by their laws, and by how often they err."""

from __future__ import annotations

import math
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.paired import drop_bounds, score_interval
from search.tango import drop_interval, gain_rate, upper_bound, wilson

mean = np.mean
bounds = partial(drop_bounds, higher_is_better=True, seed=0)


def correlation(records):
    x, y = (records - records.sum(0) / len(records)).T
    return x @ y / math.sqrt((x @ x) * (y @ y))


def f1(records):
    """Of predictions and labels, columns 0 and 1; undefined without a positive."""
    hits = (records.sum(1) == 2).sum()
    return 2 * hits / records.sum()


def paired(losses, gains, both, neither=0):
    """Records of a baseline and a candidate with such counts."""
    kinds = [(1, 0)] * losses + [(0, 1)] * gains + [(1, 1)] * both + [(0, 0)] * neither
    return tuple(np.array(kinds, dtype=float).T)


@st.composite
def counts(draw, most=300):
    n = draw(st.integers(2, most))
    losses = draw(st.integers(0, n))
    return losses, draw(st.integers(0, n - losses)), n


@given(counts())
def test_bounds_hold_the_drop_between_them_and_are_apart(found):
    losses, gains, n = found
    low, high = drop_interval(losses, gains, n, 0.05)
    assert -1 <= low <= (losses - gains) / n <= high <= 1
    assert low < high


@given(counts(), st.floats(0.001, 0.2))
def test_bounds_are_nested_by_their_level_and_mirrored_by_the_side(found, alpha):
    losses, gains, n = found
    low, high = drop_interval(losses, gains, n, alpha)
    wider = drop_interval(losses, gains, n, alpha / 2)
    assert wider[0] <= low <= high <= wider[1]
    assert drop_interval(gains, losses, n, alpha) == (-high, -low)


@given(counts(100), st.floats(-0.9, 0.9))
def test_the_rate_of_gains_is_the_likeliest(found, drop):
    losses, gains, n = found

    def likelihood(rate):
        cells = ((gains, rate), (losses, rate + drop), (n - losses - gains, 1 - 2 * rate - drop))
        return sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    rates = np.linspace(max(0.0, -drop), (1 - drop) / 2, 400)
    best = max(map(likelihood, rates))
    assert likelihood(gain_rate(losses, gains, n, drop)) >= best - 1e-6


@pytest.mark.parametrize(("losses", "gains", "n"), [(12, 2, 50), (5, 0, 256), (0, 0, 100)])
def test_the_uncorrected_bound_is_tangos(losses, gains, n):
    """The drop at which his statistic, with the rate found by search, is the quantile."""

    def statistic(drop):
        def unlikelihood(rate):
            cells = (gains, rate), (losses, rate + drop), (n - losses - gains, 1 - 2 * rate - drop)
            return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

        rates = np.linspace(max(0.0, -drop), (1 - drop) / 2, 20_001)
        rate = min(rates, key=unlikelihood)
        return (losses - gains - n * drop) / math.sqrt(n * (2 * rate + drop * (1 - drop)))

    found = upper_bound(losses, gains, n, 0.025, corrected=False)
    assert statistic(found) == pytest.approx(-NormalDist().inv_cdf(0.975), abs=1e-3)


def test_without_discordant_pairs_the_bound_is_about_four_in_n():
    for n in (100, 1000):
        low, high = drop_interval(0, 0, n, 0.05)
        assert -low == high == pytest.approx(3.2 / n, rel=0.05)


def test_wilsons_interval_is_the_published_one():
    """Newcombe 1998, Statistics in Medicine 17:857-872, table I: 81 of 263, 15 of 148, 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_zeros_and_ones_are_compared_by_counts():
    reference, records = paired(7, 2, 80, 11)
    assert bounds(mean, reference, records) == drop_interval(7, 2, 100, 0.05)
    errors = partial(drop_bounds, higher_is_better=False, seed=0)
    assert errors(mean, 1 - reference, 1 - records) == drop_interval(7, 2, 100, 0.05)
    assert score_interval(mean, records, 0) == wilson(82, 100)


def test_a_score_that_is_no_mean_is_bootstrapped_even_of_zeros_and_ones():
    def doubled(records):
        return 2 * records.mean()

    reference, records = paired(40, 10, 140, 10)
    low, high = bounds(doubled, reference, records)
    exact = drop_interval(40, 10, 200, 0.05)
    assert (low, high) == pytest.approx((2 * exact[0], 2 * exact[1]), abs=0.02)
    assert low < 0.3 < high


def test_bounds_are_those_of_the_seed():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=300)
    records = reference - 0.2 + rng.normal(size=300)
    assert bounds(mean, reference, records) == bounds(mean, reference, records)
    assert bounds(mean, reference, records) != bounds(mean, reference, records, seed=1)


def test_the_bootstrap_of_a_mean_is_that_of_any_score():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=400)
    records = reference - 0.2 + rng.normal(size=400)

    def other(values):  # the same, but nobody can know
        return values.mean() + (1e-5 if len(np.unique(values)) < 350 else 0.0)

    fast, slow = bounds(mean, reference, records), bounds(other, reference, records)
    assert fast == pytest.approx(slow, abs=0.02)
    spread = (records - reference).std() / 20 * 1.645
    drop = (reference - records).mean()
    assert fast == pytest.approx((drop - spread, drop + spread), abs=0.02)


@pytest.mark.parametrize(
    ("reference", "records"),
    [
        (np.ones(10), np.ones(11)),
        (np.ones((10, 2)), np.ones(10)),
        (np.arange(50.0), np.arange(50.0)),
        (np.arange(50.0), np.arange(50.0) + (np.arange(50) < 9)),
    ],
)
def test_what_cannot_be_compared_has_no_bounds(reference, records):
    assert bounds(mean, reference, records) is None


def test_a_score_that_many_resamples_lack_has_no_bounds():
    labels = np.zeros((200, 2))
    labels[0] = 1  # a third of all resamples are without it
    assert score_interval(f1, labels, 0) is None
    assert bounds(f1, labels, 1 - labels) is None

    def strict(records):
        if not records.any():
            raise ValueError("no positive")
        return f1(records)

    assert score_interval(strict, labels, 0) is None


def test_structured_and_text_records_are_resampled_too():
    words = np.array(["yes", "no"] * 100)
    low, high = score_interval(lambda records: float((records == "yes").mean()), words, 0)
    assert 0.4 < low < 0.5 < high < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "correlation"])
def test_bootstrap_bounds_err_about_as_often_as_they_say(kind):
    rng, n, times = np.random.default_rng(1), 256, 100
    below = above = 0
    for seed in range(times):
        truth = rng.normal(size=n)
        reference = truth + 0.3 * rng.normal(size=n)
        records = truth + 0.5 * rng.normal(size=n)
        if kind == "mean":
            score, drop = mean, 0.2
            records = records - drop
        else:
            score, drop = correlation, 1 / math.sqrt(1.09) - 1 / math.sqrt(1.25)
            reference, records = (np.column_stack([x, truth]) for x in (reference, records))
        low, high = bounds(score, reference, records, seed=seed)
        below += drop < low
        above += drop > high
    assert max(below, above) / times <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)
