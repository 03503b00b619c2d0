from __future__ import annotations

import numpy as np
import optuna
import pytest

from search.knob_importance import FEWEST, MOST, SCREENED, SHOWN, importance
from search.results import Row
from storage import Measurement, Trial
from strategies.knobs import Condition
from strategies.space import Choice, Float, Int, Space

SPACE = Space(
    [
        Float(name="p.ratio", low=0, high=0.8, neutral=0, direction=1),
        Choice(name="q.scheme", values=("none", "int8"), neutral="none"),
        Int(name="q.bits", low=2, high=8, neutral=8, direction=-1),
        Choice(name="q.only", values=("one",), neutral="one"),
    ]
)


def rows_of(space, count, value, seed=0):
    """Random candidates, measured by a formula; trial 0 is a baseline outside the space."""
    rng = np.random.default_rng(seed)
    rows = [Row(Trial(0, "complete", {"p.ratio": -9}), {}, {}, False)]
    for number in range(1, count + 1):
        candidate = space.sample(rng)
        found = tuple(Measurement(name, v) for name, v in value(candidate).items())
        rows.append(Row(Trial(number, "complete", candidate, measurements=found), {}, {}, False))
    return rows


def shares_of(space, rows, metric="m", seed=0):
    (found,) = importance(space.to_json(), rows, [metric], seed)
    assert not found.note
    return found.shares


def test_the_knob_that_decides_a_metric_is_found():
    rows = rows_of(SPACE, 60, lambda c: {"m": c["p.ratio"], "k": float(c["q.scheme"] == "int8")})
    shares = shares_of(SPACE, rows)
    assert next(iter(shares)) == "p.ratio"
    assert shares["p.ratio"] > 0.9
    assert "q.only" not in shares, "a knob with one value is not searched"
    assert shares_of(SPACE, rows, "k")["q.scheme"] > 0.9


def test_shares_are_of_the_whole_variance():
    # An exclusive or: neither knob explains anything alone.
    space = Space([Choice(name=n, values=("x", "y"), neutral="x") for n in ("a.one", "a.two")])
    rows = rows_of(space, 200, lambda c: {"m": float(c["a.one"] == c["a.two"])})
    assert sum(shares_of(space, rows).values()) < 0.2


def test_an_inactive_knob_counts_as_neutral():
    space = Space(
        [
            Choice(name="q.scheme", values=("none", "static"), neutral="none"),
            Int(
                name="q.bits",
                low=2,
                high=8,
                neutral=8,
                direction=-1,
                active_when=Condition("q.scheme", "==", "static"),
            ),
        ]
    )
    rows = rows_of(space, 60, lambda c: {"m": 5.0 * (c["q.scheme"] == "static")})
    assert {"q.bits" in row.trial.candidate for row in rows[1:]} == {True, False}
    shares = shares_of(space, rows)
    assert shares["q.scheme"] > shares["q.bits"]


def test_the_seed_decides_everything():
    rows = rows_of(SPACE, MOST + 20, lambda c: {"m": c["p.ratio"] * c["q.bits"]})
    first, again = (shares_of(SPACE, rows, seed=3) for _ in range(2))
    assert first == again
    assert first != shares_of(SPACE, rows, seed=4)


def test_of_many_knobs_those_that_matter_are_looked_at():
    names = [f"s.k{i}" for i in range(2 * SCREENED)]
    space = Space([Float(name=n, low=0, high=1, neutral=0, direction=1) for n in names])
    rows = rows_of(space, 150, lambda c: {"m": c["s.k31"]})
    shares = shares_of(space, rows)
    assert next(iter(shares)) == "s.k31"
    assert len(shares) == SHOWN


@pytest.mark.parametrize(
    ("count", "value", "note"),
    [
        (FEWEST - 1, lambda c: {"m": c["p.ratio"]}, "7 complete candidates; at least 8"),
        (FEWEST, lambda c: {"m": 3.0}, "the same in every trial"),
        (FEWEST, lambda c: {"other": 3.0}, "some trials have not got it"),
        (FEWEST, lambda c: {"m": 0.0}, "the same in every trial"),
    ],
)
def test_too_little_to_say_is_said(count, value, note):
    (found,) = importance(SPACE.to_json(), rows_of(SPACE, count, value), ["m"], 0)
    assert found.shares == {}
    assert note in found.note


def test_a_space_without_a_choice_has_nothing_to_tell():
    space = Space([Choice(name="q.only", values=("one",), neutral="one")])
    (found,) = importance(space.to_json(), [], ["m"], 0)
    assert found.note == "no knob is searched"


def test_optunas_log_stays_as_it_was():
    before = optuna.logging.get_verbosity()
    shares_of(SPACE, rows_of(SPACE, 10, lambda c: {"m": c["p.ratio"]}))
    assert optuna.logging.get_verbosity() == before
