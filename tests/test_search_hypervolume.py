from __future__ import annotations

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from search.goals import Goals
from search.hypervolume import progress, searched_seconds
from search.results import Row
from storage import Measurement, Trial
from storage.records import Session

NAMES = ("a", "b", "c")


def rows_of(values, feasible=None):
    rows = []
    for number, line in enumerate(values.tolist()):
        found = tuple(Measurement(n, v) for n, v in zip(NAMES, line, strict=False))
        trial = Trial(number, "complete", {}, measurements=found, seconds=2.0)
        met = feasible is None or feasible[number]
        rows.append(Row(trial, {}, {"a <= 1": 0.0 if met else 0.5}, on_front=False))
    return rows


@settings(deadline=None, max_examples=60)
@given(
    arrays.arrays(
        float, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 6)
    ),
    st.data(),
)
def test_the_curves_are_what_brute_force_says(values, data):
    count, width = values.shape
    ways = {n: data.draw(st.sampled_from(("minimize", "maximize"))) for n in NAMES[:width]}
    feasible = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    found = progress(Goals(ways), rows_of(values, feasible), ())
    if not any(feasible):
        assert found is None
        return
    signs = np.array([-1.0 if way == "maximize" else 1.0 for way in ways.values()])
    kept = signs * values[feasible]
    low, high = kept.min(axis=0), kept.max(axis=0)
    reference = high + 0.1 * np.where(high > low, high - low, 1.0)
    assert list(found.reference.values()) == pytest.approx(list(signs * reference))
    for i in range(count):
        seen = (signs * values[: i + 1])[feasible[: i + 1]]
        volume = 0.0
        if len(seen) and width > 1:
            volume = moocore.hypervolume(seen, ref=reference) / np.prod(reference - low)
        elif len(seen):
            volume = ((reference - seen.min()) / (reference - low))[0]
        assert found.hypervolume[i] == pytest.approx(volume)
        for j, name in enumerate(ways):
            expected = signs[j] * seen[:, j].min() if len(seen) else None
            assert found.best[name][i] == expected


def ended(*times):
    return [Trial(i, "complete", {}, seconds=5.0, finished_at=t) for i, t in enumerate(times)]


def test_pauses_between_sessions_do_not_count():
    sessions = [Session(100.0, 0, {}), Session(1000.0, 2, {})]
    found = searched_seconds(ended(110.0, 130.0, 1004.0, 1010.0), sessions)
    assert found == (10.0, 30.0, 34.0, 40.0)


def test_a_session_that_ended_no_trial_adds_nothing():
    sessions = [Session(100.0, 0, {}), Session(500.0, 1, {}), Session(1000.0, 1, {})]
    assert searched_seconds(ended(110.0, 1004.0), sessions) == (10.0, 14.0)


def test_without_sessions_the_seconds_of_the_trials_are_added():
    assert searched_seconds(ended(110.0, 9000.0), ()) == (5.0, 10.0)
