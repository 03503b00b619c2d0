from __future__ import annotations

import math

import numpy as np
import pytest
from doubles import CONFIG, FACTS, FormulaBench, control, new_study
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.errors import ExpressionError, UnknownName
from search.expressions import conjuncts, parse, shortfall
from search.goals import parse_objectives
from search.nearest import nearest
from search.results import StudyResults
from storage import Measurement, NewStudy, Outcome, Store
from storage.lease import new_owner
from strategies.space import Choice, Float, Space

METRICS = ("accuracy", "accuracy_drop", "size_bytes", "latency_ratio", "load_ms")
SPACE = Space(
    [
        Float(name="prune.ratio", low=0, high=1, neutral=0, direction=1),
        Choice(name="quantize.scheme", values=("none", "int8", "uint8"), neutral="none"),
    ]
)


@pytest.fixture(scope="module")
def random_study(tmp_path_factory) -> StudyResults:
    """120 trials whose figures are drawn from few values, so that there are ties; some have no
    `load_ms`, and some did not complete."""
    rng = np.random.default_rng(7)
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('questions') / 'a.db'}")
    owner = new_owner()
    new = NewStudy("s", CONFIG, SPACE.to_json(), "f" * 64, 0, 119, None, FACTS)
    study = store.create_study(new, owner)
    for number in range(120):
        scheme = str(rng.choice(["none", "int8", "uint8"]))
        candidate = {"prune.ratio": float(rng.integers(11)) / 10, "quantize.scheme": scheme}
        store.propose(study, owner, number, candidate, f"key{number}")
        known = METRICS if rng.random() < 0.9 else METRICS[:-1]
        measured = [Measurement(name, float(rng.integers(-3, 9)) / 4, n=9) for name in known]
        state = "complete" if rng.random() < 0.9 else "failed"
        outcome = Outcome(state, "" if state == "complete" else "no", measurements=tuple(measured))
        store.finish(study, owner, number, outcome)
    return StudyResults(store, "s")


literals = st.integers(-3, 9).map(lambda n: n / 4)
comparisons = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from([*METRICS, "number", "prune.ratio"]),
              st.sampled_from(["<=", "<", ">", ">=", "==", "!="]), literals),
    st.builds("quantize.scheme {} {}".format, st.sampled_from(["==", "!="]),
              st.sampled_from(["none", "int8", "'uint8'"])),
)  # fmt: skip
wheres = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=4,
)
objective_lists = st.dictionaries(
    st.sampled_from(METRICS), st.sampled_from(["max", "min"]), min_size=1, max_size=3
)


def facts_of(row) -> dict:
    trial = row.trial
    return {**trial.candidate, **trial.metrics, "number": row.number, "seconds": trial.seconds}


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.none() | wheres, st.none() | objective_lists, st.none() | st.sampled_from(METRICS))
def test_every_question_is_answered_as_brute_force_would(random_study, where, objectives, sort):
    asked = objectives and ", ".join(f"{name}: {way}" for name, way in objectives.items())
    fresh = StudyResults(random_study.store, "s")
    got = [row.number for row in fresh.best(where, sort, objectives=asked)]

    rows = [facts_of(row) for row in random_study.rows() if row.trial.state == "complete"]
    used = {sort, *(objectives or CONFIG["objectives"])} - {None}
    used |= {"accuracy_drop"} if objectives is None or where is None else set()
    expression = None if where is None else parse(where)
    used |= expression.names() if expression else set()
    rows = [row for row in rows if used & set(METRICS) <= row.keys()]
    rows = [row for row in rows if expression is None or expression.holds(row)]
    ways = objectives or {"accuracy": "max", "size_bytes": "min"}

    def violation(row) -> float:
        if objectives is not None and where is not None:
            return 0.0
        return max(0.0, (row["accuracy_drop"] - 0.3) / 0.3)

    def dominates(a, b) -> bool:
        if violation(a) != violation(b):
            return violation(a) < violation(b)
        x, y = ([r[n] * (-1 if w == "max" else 1) for n, w in ways.items()] for r in (a, b))
        return x != y and all(i <= j for i, j in zip(x, y, strict=True))

    if where is None or objectives is not None:
        rows = [b for b in rows if not any(dominates(a, b) for a in rows)]
    assert sorted(got) == [row["number"] for row in rows]

    by = sort or next((n for n in ways if not n.startswith("accuracy")), next(iter(ways)))
    sign = -1 if ways.get(by, "max" if by == "accuracy" else "min") == "max" else 1
    rows.sort(key=lambda row: (violation(row) > 0, sign * row[by], row["number"]))
    assert got == [row["number"] for row in rows]


@settings(max_examples=60, deadline=None)
@given(wheres, st.data())
def test_a_row_meets_an_expression_exactly_when_nothing_falls_short(where, data):
    names = [*METRICS, "number", "prune.ratio"]
    row = {name: data.draw(literals) for name in names} | {"quantize.scheme": "int8"}
    expression = parse(where)
    assert (shortfall(expression, row) == 0) == expression.holds(row)
    assert all(part.holds(row) for part in conjuncts(expression)) == expression.holds(row)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(wheres)
def test_there_is_always_an_answer(random_study, where):
    answer = StudyResults(random_study.store, "s").answer(where)
    assert answer.rows
    expression = parse(where)
    parts = list(dict.fromkeys([*conjuncts(expression), *random_study.goals.constraints]))
    names = {*METRICS[:-1], *expression.names()} & set(METRICS)
    facts = {n: facts_of(row) for n, row in enumerate(random_study.rows())
             if row.trial.state == "complete"}  # fmt: skip
    facts = {n: f for n, f in facts.items() if names <= f.keys()}
    meeting = [n for n, f in facts.items() if all(x.holds(f) for x in parts)]
    assert (answer.ranking.nearest is None) == bool(meeting)
    if meeting:
        return
    asked = [f for f in facts.values() if expression.holds(f)] or list(facts.values())
    least = min(sum(shortfall(x, f) for x in parts) for f in asked)
    first = facts[answer.rows[0].number]
    assert math.isclose(sum(shortfall(x, first) for x in parts), least)
    for i, gap in enumerate(answer.ranking.nearest.gaps):
        others = [x for j, x in enumerate(parts) if j != i]
        assert gap.without == sum(all(x.holds(f) for x in others) for f in facts.values())
        assert gap.meeting == sum(parts[i].holds(f) for f in facts.values())
    assert answer.ranking.nearest.binding


def test_what_is_nearest_is_judged_by_the_constraints_as_well(random_study):
    answer = random_study.answer("accuracy_drop >= 1")
    limits = [gap.limit for gap in answer.ranking.nearest.gaps]
    assert limits == ["accuracy_drop >= 1", "accuracy_drop <= 0.3"]


def test_rows_that_meet_the_question_but_no_constraint_come_first_among_the_nearest(random_study):
    """However far beyond the constraint they are."""
    expression = parse("accuracy_drop >= 1.75")
    answer = random_study.answer(str(expression), limit=3)
    assert answer.ranking.nearest is not None
    assert len(answer.rows) == 3
    assert all(expression.holds(facts_of(row)) for row in answer.rows)


def test_a_limit_binds_if_the_others_would_leave_rows():
    facts = {1: {"a": 5.0, "b": 1.0}, 2: {"a": 6.0, "b": 9.0}, 3: {"a": 1.0, "b": 30.0}}
    found = nearest(conjuncts(parse("a <= 4 and b <= 10")), facts, 2)
    assert found.numbers == (1, 2)
    first, second = found.gaps
    assert (first.limit, first.value, first.bound, first.shortfall) == ("a <= 4", 5.0, 4.0, 0.25)
    assert (first.meeting, first.without, first.binds) == (1, 2, True)
    assert (second.meeting, second.without, second.binds) == (2, 1, True)
    assert second.shortfall == 0


def test_where_every_single_limit_may_go_the_one_that_is_broken_most_binds():
    facts = {1: {"a": 5.0, "b": 20.0}, 2: {"a": 6.0, "b": 90.0}}
    found = nearest(conjuncts(parse("a <= 4 and b <= 10")), facts, 5)
    assert [gap.binds for gap in found.gaps] == [False, True]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("prune.ratio <= big", "prune.ratio is a number, so it takes a number, got 'big'"),
        ("accuracy == good", "accuracy is a number, so it takes a number, got 'good'"),
        ("quantize.scheme == 3", "unknown value '3'"),
        ("quantize.scheme == int9", "unknown value 'int9'"),
        ("state == failed", "only complete trials are ranked"),
    ],
)
def test_what_can_hold_of_no_trial_is_an_error(random_study, where, message):
    with pytest.raises(ExpressionError, match=message):
        random_study.answer(where)


def test_all_ranked_trials_are_not_failed(random_study):
    complete = sum(row.trial.state == "complete" for row in random_study.rows())
    assert random_study.answer("state != failed").found == complete


def test_other_objectives_rank_all_trials_and_where_are_their_limits(random_study):
    answer = random_study.answer("accuracy_drop <= 2", objectives="latency_ratio: min")
    assert {tuple(row.values) for row in answer.rows} == {("latency_ratio",)}
    assert all(row.on_front for row in answer.rows)
    assert {tuple(row.verdicts) for row in answer.rows} == {("accuracy_drop <= 2",)}
    plain = random_study.answer(objectives="latency_ratio: min")
    assert {tuple(row.verdicts) for row in plain.rows} == {("accuracy_drop <= 0.3",)}


def test_trials_without_a_metric_are_left_out_and_counted(random_study):
    complete = [row for row in random_study.rows() if row.trial.state == "complete"]
    without = [row.number for row in complete if "load_ms" not in row.metrics]
    assert without
    answer = random_study.answer("number >= 0", sort="load_ms")
    assert answer.ranking.lacking == {"load_ms": len(without)}
    assert answer.found == len(complete) - len(without)
    nothing = random_study.answer(objectives="macs: min")
    assert (nothing.rows, nothing.ranking.lacking) == ((), {"macs": len(complete)})


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy: best", "a: max, a: min", ": min", ","]
)
def test_malformed_objectives_say_how_to_write_them(text):
    with pytest.raises(ExpressionError) as caught:
        parse_objectives(text)
    assert "\n" not in str(caught.value)


def test_objectives_are_written_as_in_a_config():
    assert parse_objectives(" accuracy:max,size_bytes: minimize ") == {
        "accuracy": "maximize",
        "size_bytes": "minimize",
    }
    with pytest.raises(ExpressionError, match="at most 3 objectives can be ranked, got 4"):
        parse_objectives("a: max, b: max, c: max, d: min")


def test_unknown_objectives_offer_the_nearest(random_study):
    with pytest.raises(UnknownName, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        random_study.best(objectives="acuracy: max")


def test_reading_everything_first_changes_no_answer(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'a.db'}")
    new_study(store, trials=19)
    control(store, bench=FormulaBench())
    read = StudyResults(store, "s")
    read.rows()
    for where, objectives in ((None, None), ("prune.level > 3 and number != 2", None),
                              ("size_bytes < 500", "accuracy: max, macs: min")):  # fmt: skip
        fresh = StudyResults(store, "s").answer(where, objectives=objectives)
        assert fresh.rows == read.answer(where, objectives=objectives).rows
