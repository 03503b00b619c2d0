from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from search.agreement import AGREES, DISAGREES, SHOWN, agreements, joint
from storage import Measurement


def test_ratios_timed_beside_other_work_are_not_judged() -> None:
    noisy = replace(ratio(0.5, 0.01), noisy=True)
    assert verdicts([noisy], [ratio(0.9, 0.01)]) == {"latency_ratio": SHOWN}
    assert verdicts([ratio(0.9, 0.01)], [noisy]) == {"latency_ratio": SHOWN}


def ratio(value: float, half: float, name: str = "latency_ratio") -> Measurement:
    return Measurement(name, value, "", value * math.exp(-half), value * math.exp(half), 9)


def verdicts(stored, found, same=True, ratios=1) -> dict[str, str]:
    compared = agreements(stored, found, score_name="f1", is_same_machine=same, ratios=ratios)
    return {m.metric: m.verdict for m in compared}


def test_on_the_same_machine_scores_are_equal_to_the_digit():
    stored = [Measurement("f1", 0.5, "", 0.4, 0.6), Measurement("f1_drop", 0.1)]
    assert verdicts(stored, stored) == {"f1": AGREES, "f1_drop": AGREES}
    other = [Measurement("f1", 0.5 + 1e-12), Measurement("f1_drop", 0.1 - 1e-12)]
    assert verdicts(stored, other) == {"f1": DISAGREES, "f1_drop": DISAGREES}


def test_on_another_machine_a_score_lies_in_the_stored_interval():
    stored = [Measurement("f1", 0.5, "", 0.4, 0.6), Measurement("f1_drop", 0.1)]
    near = [Measurement("f1", 0.59), Measurement("f1_drop", 0.2)]
    assert verdicts(stored, near, same=False) == {"f1": AGREES, "f1_drop": SHOWN}
    assert verdicts(stored, [Measurement("f1", 0.61)], same=False)["f1"] == DISAGREES


@pytest.mark.parametrize("name", ["size_bytes", "parameters", "macs"])
def test_what_the_file_decides_is_equal_anywhere(name):
    for same in (True, False):
        stored = [Measurement(name, 9.0)]
        assert verdicts(stored, stored, same) == {name: AGREES}
        assert verdicts(stored, [Measurement(name, 10.0)], same) == {name: DISAGREES}


def test_times_are_shown_and_not_judged():
    names = (
        "latency_ms",
        "latency_p90_ms_batch8",
        "load_ms",
        "peak_rss_bytes",
        "throughput_per_s",
    )
    stored = [Measurement(name, 1.0) for name in names]
    found = [Measurement(name, 9.0) for name in names]
    assert set(verdicts(stored, found).values()) == {SHOWN}
    zstd = [Measurement("size_zstd_bytes", 1.0)], [Measurement("size_zstd_bytes", 2.0)]
    assert verdicts(*zstd, same=True) == {"size_zstd_bytes": DISAGREES}
    assert verdicts(*zstd, same=False) == {"size_zstd_bytes": SHOWN}


def test_a_metric_that_only_one_of_them_has_is_not_judged():
    assert verdicts([Measurement("audit_f1", 1.0)], [Measurement("f1", 2.0)]) == {
        "audit_f1": SHOWN,
        "f1": SHOWN,
    }


def test_ratios_agree_up_to_the_root_of_the_squared_half_widths():
    stored = ratio(1.0, 0.03)
    just, beyond = math.exp(0.0499), math.exp(0.0501)
    for found, agrees in ((ratio(just, 0.04), True), (ratio(beyond, 0.04), False)):
        assert joint(stored, found) is agrees
        assert joint(found, stored) is agrees
    assert joint(ratio(1.0, 0.0), ratio(1.0, 0.0))  # the baseline against itself
    assert verdicts([stored], [ratio(beyond, 0.04)]) == {"latency_ratio": DISAGREES}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [(0.2, AGREES), (0.23, AGREES), (0.25, AGREES), (0.262, AGREES), (0.29, DISAGREES)],
)
def test_a_ratio_that_was_timed_twice_is_judged_by_the_nearer_timing(found, verdict):
    """However far apart the two are, that widens the judgement beyond neither of them."""
    stored = [
        Measurement("latency_ratio", 0.214, low=0.204, high=0.26),
        Measurement("audit_latency_ratio", 0.25, low=0.24, high=0.26),
    ]
    found = [Measurement("latency_ratio", found, low=found - 0.01, high=found + 0.01)]
    compared = {
        m.metric: m
        for m in agreements(stored, found, score_name="f1", is_same_machine=True, ratios=33)
    }
    assert compared["latency_ratio"].verdict == verdict
    assert compared["latency_ratio"].stored == stored[0], "it is shown as it is stored"


@pytest.mark.parametrize(("found", "verdict"), [(0.375, AGREES), (0.36, DISAGREES)])
def test_the_nearer_timing_judges_by_an_interval_of_its_own(found, verdict):
    stored = [
        Measurement("latency_ratio", 0.39, low=0.34, high=0.45),
        Measurement("audit_latency_ratio", 0.38, low=0.375, high=0.385),
    ]
    again = [Measurement("latency_ratio", found, low=found - 0.004, high=found + 0.004)]
    assert verdicts(stored, again)["latency_ratio"] == verdict


@pytest.mark.parametrize(("found", "verdict"), [(0.38, AGREES), (0.39, DISAGREES)])
def test_a_disturbed_first_timing_leaves_the_judgement_to_the_second(found, verdict):
    stored = [
        Measurement("latency_ratio", 0.40, low=0.36, high=0.45, noisy=True),
        Measurement("audit_latency_ratio", 0.38, low=0.377, high=0.383),
    ]
    again = [Measurement("latency_ratio", found, low=found - 0.003, high=found + 0.003)]
    assert verdicts(stored, again)["latency_ratio"] == verdict


def test_a_second_timing_that_was_noisy_does_not_judge():
    stored = [
        Measurement("latency_ratio", 0.214, low=0.204, high=0.224),
        Measurement("audit_latency_ratio", 0.25, low=0.24, high=0.26, noisy=True),
    ]
    found = [Measurement("latency_ratio", 0.245, low=0.235, high=0.255)]
    (compared, _) = agreements(stored, found, score_name="f1", is_same_machine=True, ratios=1)
    assert compared.verdict == DISAGREES


def test_with_many_ratios_one_false_alarm_in_twenty_runs_is_all():
    rng, many, runs = np.random.default_rng(0), 12, 2000
    false = 0
    for _ in range(runs):
        first, second = rng.normal(0, 0.01, (2, many))
        pairs = zip(np.exp(first), np.exp(second), strict=True)
        false += not all(joint(ratio(a, 0.0196), ratio(b, 0.0196), many) for a, b in pairs)
    assert 0.035 < false / runs < 0.065
