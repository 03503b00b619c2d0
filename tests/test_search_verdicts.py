from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from search.expressions import parse_constraint
from search.sample_records import packed, unpacked
from search.verdicts import NOT_PROVEN, PROVEN, VIOLATED, speed, verdict, verdict_of
from storage import Measurement


@pytest.mark.parametrize(
    ("constraint", "measured", "expected"),
    [
        ("m <= 0.01", Measurement("m", 0.005, "", 0.0, 0.009, 400, level=0.9), "proven"),
        ("m <= 0.01", Measurement("m", 0.005, "", 0.0, 0.01, 400, level=0.9), "proven"),
        ("m <= 0.01", Measurement("m", 0.005, "", 0.0, 0.011, 400, level=0.9), "not proven"),
        ("m <= 0.01", Measurement("m", 0.02, "", 0.0, 0.04, 400, level=0.9), "violated"),
        ("m < 0.01", Measurement("m", 0.005, "", 0.0, 0.01, 400, level=0.9), "not proven"),
        ("m >= 0.9", Measurement("m", 0.95, "", 0.91, 0.99, 400), "proven"),
        ("m >= 0.9", Measurement("m", 0.95, "", 0.89, 0.99, 400), "not proven"),
        ("m > 0.9", Measurement("m", 0.9, "", 0.89, 0.99, 400), "violated"),
        ("size_bytes <= 100", Measurement("size_bytes", 100.0, "B"), "proven"),
        ("size_bytes <= 100", Measurement("size_bytes", 101.0, "B"), "violated"),
        ("m <= 1", Measurement("m", 0.5, "", 0.4, 0.6, 9, noisy=True), "not proven"),
        ("m <= 1", Measurement("m", 1.5, "", 1.4, 1.6, 9, noisy=True), "violated"),
        ("macs <= 100", Measurement("macs", 100.0), "proven"),
        ("load_ms <= 100", Measurement("load_ms", 10.0, "ms"), "not proven"),
        ("peak_rss_bytes <= 100", Measurement("peak_rss_bytes", 10.0, "B"), "not proven"),
        ("throughput_per_s >= 1", Measurement("throughput_per_s", 9.0, "1/s"), "not proven"),
        ("m <= 0.01", Measurement("m", 0.0, n=400), "not proven"),
    ],
)
def test_a_constraint_is_judged_by_the_far_end_of_the_interval(constraint, measured, expected):
    assert verdict(parse_constraint(constraint), measured) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 0.99, "faster"),
        (1.01, 1.5, "slower"),
        (0.99, 1.01, "no difference shown"),
        (1.0, 1.2, "no difference shown"),
        (0.8, 1.0, "no difference shown"),
        (None, None, "no difference shown"),
    ],
)
def test_faster_means_that_the_interval_excludes_1(low, high, expected):
    assert speed(Measurement("latency_ratio", 1.0, "", low, high, 20)) == expected


@given(
    arrays.arrays(float, st.tuples(st.integers(0, 50), st.integers(1, 2)), elements=st.floats())
    | arrays.arrays(float, st.integers(0, 90), elements=st.sampled_from([0.0, 1.0]))
    | arrays.arrays(
        st.sampled_from([bool, np.int8, np.int64, np.uint8, np.float32]), st.integers(0, 50)
    )
)
def test_records_come_back_as_they_were(records):
    back = unpacked(packed(records))
    assert (back.shape, back.dtype) == (records.shape, records.dtype)
    assert (back == records)[back == back].all()
    assert ((back != back) == (records != records)).all()


@pytest.mark.parametrize("records", [np.array([True, False]), np.array([0.5, 2.0])])
def test_records_of_before_types_were_kept_can_be_read(records):
    out = io.BytesIO()
    np.save(out, records)
    back = unpacked(zlib.compress(out.getvalue()))
    assert (back.dtype, back.tolist()) == (np.float64, records.tolist())


def test_ten_thousand_zeros_and_ones_take_little_room():
    records = (np.random.default_rng(0).random(10_000) < 0.9).astype(float)
    assert len(packed(records)) < 1500 * 4


@pytest.mark.parametrize(
    ("first", "again", "expected"),
    [
        ((0.9, 0.95, True), (0.9, 0.95, False), PROVEN),
        ((0.9, 0.95, True), (0.9, 0.95, True), NOT_PROVEN),
        ((0.9, 0.95, True), (0.9, 1.05, False), NOT_PROVEN),
        ((0.9, 0.95, True), (1.1, 1.15, False), NOT_PROVEN),
        ((1.1, 1.2, True), (0.9, 0.95, False), VIOLATED),
        ((0.9, 1.05, False), (0.9, 0.95, False), NOT_PROVEN),
        ((0.9, 0.95, True), None, NOT_PROVEN),
    ],
)
def test_a_disturbed_ratio_is_judged_by_the_timing_after_the_search(first, again, expected):
    timings = {"latency_ratio": first, "audit_latency_ratio": again}
    measured = {
        name: Measurement(name, t[0], low=0.5, high=t[1], noisy=t[2])
        for name, t in timings.items()
        if t is not None
    }
    assert verdict_of(parse_constraint("latency_ratio <= 1"), measured) == expected
