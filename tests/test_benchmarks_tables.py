"""Tables and the YAML that explains them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmark_tables import (
    grid,
    grid_rows,
    swept_hypervolume,
    tiny,
)
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.catalogue import FOLDER, known_problems, load_problem
from benchmarks.formulas import Affine, parse_formula
from benchmarks.problem import Archive, hypervolume_of, true_front
from benchmarks.tables import table_problem
from search.errors import NasliteError


@pytest.fixture
def grid_problem(tmp_path):
    return table_problem(grid(tmp_path), None)


def test_the_true_hypervolume_is_that_of_all_rows(grid_problem):
    rows = grid_rows()
    worst = max(row["size"] for row in rows)
    assert grid_problem.reference == (60.0, pytest.approx(1.02 * worst))
    points = [(100 - row["acc"], row["size"]) for row in rows]
    area = swept_hypervolume(points, grid_problem.reference)
    assert grid_problem.hypervolume == pytest.approx(area, rel=1e-12)


def test_every_row_is_an_outcome_and_every_other_candidate_is_refused(grid_problem):
    rows = {(r["width0"], r["width1"], r["kind"]): r for r in grid_rows()}
    space = grid_problem.space
    assert space.size == 75
    refused = 0
    for index in range(75):
        candidate = space.at(index)
        outcome = grid_problem.exact(candidate)
        row = rows.get(tuple(candidate.values()))
        refused += row is None
        if row is None:
            assert outcome.is_refused
            assert not outcome.is_feasible
        else:
            assert outcome.values == (pytest.approx(100 - row["acc"]), row["size"])
            assert grid_problem.measured(candidate, 0, 0) == outcome
    assert refused == 5
    assert grid_problem.refuses


def test_knobs_are_what_the_yaml_and_the_columns_say(grid_problem):
    width, _, kind = grid_problem.space
    assert (width.values, width.neutral, width.ordered) == ((8, 16, 24, 32, 40), 40, True)
    assert width.direction == -1  # compression leads away from the neutral end
    assert (kind.values, kind.ordered, kind.direction) == (
        ("plain", "residual", "dense"),
        False,
        0,
    )
    assert grid_problem.costs == (1,)


@pytest.mark.parametrize(
    ("knob", "direction", "neutral"),
    [
        ({"neutral": 0}, 1, 0),
        ({"neutral": 3}, -1, 3),
        ({"neutral": 1}, 0, 1),
        ({"neutral": 1, "direction": "down"}, -1, 1),
        ({"neutral": 0, "direction": "none"}, 0, 0),
        ({"neutral": 3, "levels": [3, 1, 2, 0]}, 1, 3),
        ({"neutral": 0, "ordered": False}, 0, 0),
    ],
)
def test_the_direction_of_compression(tmp_path, knob, direction, neutral):
    (found,) = table_problem(tiny(tmp_path, knobs={"x": knob}), None).space
    assert (found.direction, found.neutral) == (direction, neutral)
    assert found.values == tuple(knob.get("levels", (0, 1, 2, 3)))


def test_a_bare_value_is_the_neutral_level(tmp_path):
    short = table_problem(tiny(tmp_path, knobs={"x": 0}), None)
    assert short.space == table_problem(tiny(tmp_path), None).space


@pytest.mark.parametrize(
    ("goal", "corner"),
    [
        ("min", 1.02 * 30),
        ({"goal": "min", "reference": "worst"}, 30),
        ({"goal": "min", "reference": "worst * 1.5"}, 45),
        ({"goal": "max", "reference": 5}, -5),
        ("max", -10),
        ("minimize", 1.02 * 30),
        ({"goal": "maximize", "reference": 5}, -5),
    ],
)
def test_reference_points(tmp_path, goal, corner):
    problem = table_problem(tiny(tmp_path, objectives={"err": goal, "size": "min"}), None)
    assert problem.reference[0] == pytest.approx(corner)


def test_what_breaks_a_limit_counts_nothing(tmp_path):
    problem = table_problem(tiny(tmp_path, limits=["err <= 15"]), None)
    assert problem.hypervolume == pytest.approx(172)  # without row 2
    outcome = problem.exact({"x": 2})
    assert outcome.violations == (pytest.approx(5 / 15),)
    assert not outcome.is_feasible


def test_an_empty_metric_is_a_refusal(tmp_path):
    path = tiny(tmp_path)
    text = (tmp_path / "tiny.csv").read_text().replace("2,20,2", "2,,2")
    (tmp_path / "tiny.csv").write_text(text)
    problem = table_problem(path, None)
    assert problem.exact({"x": 2}).is_refused
    assert problem.hypervolume == pytest.approx(172)


def test_a_table_may_have_to_be_complete(tmp_path):
    assert not table_problem(tiny(tmp_path, missing="error"), None).refuses
    with pytest.raises(NasliteError, match="missing: 5 of 75 candidates have no row"):
        table_problem(grid(tmp_path, missing="error"), None)


def test_where_keeps_some_rows(tmp_path):
    path = tiny(tmp_path, where={"data": "a"})
    (tmp_path / "tiny.csv").write_text("data,x,err,size\nb,0,99,9\na,0,10,8\na,1,12,4\n")
    problem = table_problem(path, None)
    assert problem.exact({"x": 0}).values == (10, 8)


def test_noise_draws_one_training_by_seed_row_and_visit(tmp_path):
    problem = table_problem(grid(tmp_path), None, noisy=True)
    row = grid_rows()[10]
    candidate = {name: row[name] for name in ("width0", "width1", "kind")}
    possible = {round(100 - row[f"acc_{i}"], 9) for i in range(3)}
    draws = [problem.measured(candidate, seed, visit) for seed in range(10) for visit in range(3)]
    assert {round(draw.values[0], 9) for draw in draws} == possible
    assert any(len({draw.values for draw in draws[i : i + 3]}) > 1 for i in range(0, 30, 3))
    assert {draw.values[1] for draw in draws} == {row["size"]}
    again = [problem.measured(candidate, seed, visit) for seed in range(10) for visit in range(3)]
    assert again == draws
    assert problem.exact(candidate).values[0] == pytest.approx(100 - row["acc"])
    plain = table_problem(grid(tmp_path), None)
    assert (problem.name, problem.hypervolume) == ("grid+noise", plain.hypervolume)


def test_the_table_is_looked_for_in_the_data_folder_first(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    path = tiny(tmp_path)
    (data / "tiny.csv").write_text("x,err,size\n0,11,8\n")
    assert table_problem(path, data).exact({"x": 0}).values == (11, 8)
    assert table_problem(path, None).exact({"x": 0}).values == (10, 8)


def test_true_and_false_are_levels_of_their_own(tmp_path):
    path = tiny(tmp_path, knobs={"x": {"neutral": True, "levels": [False, True]}})
    (tmp_path / "tiny.csv").write_text("x,err,size\nTrue,10,8\nfalse,12,4\n")
    problem = table_problem(path, None)
    (knob,) = problem.space
    assert (knob.values, knob.neutral, knob.direction) == ((False, True), True, -1)
    assert problem.exact({"x": False}).values == (12, 4)
    path = tiny(tmp_path, knobs={"x": 0}, where={"y": True})
    (tmp_path / "tiny.csv").write_text("y,x,err,size\nfalse,0,99,9\nTRUE,0,10,8\ntrue,1,12,4\n")
    assert table_problem(path, None).exact({"x": 0}).values == (10, 8)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100 - a", 97),
        ("-(a + 2 * b) / 4", -11.75),
        ("1e1*a - b/2 + .5", 19.5),
        ("2 * (3 - 1) - `odd name`", -96),
        ("a - a", 0),
    ],
)
def test_affine_formulas(text, value):
    row = {"a": 3.0, "b": 22.0, "odd name": 100.0}
    known = {name: Affine(factors={name: 1.0}) for name in row}
    assert parse_formula(text, known)(row) == pytest.approx(value)
    columns = {name: np.array([number, 2 * number]) for name, number in row.items()}
    assert np.broadcast_to(parse_formula(text, known)(columns), 2)[0] == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "100 -", "(a", "a b", "2 / a", "a / 0", "a ** 2", "a; b"])
def test_malformed_formulas(text):
    with pytest.raises(NasliteError, match="formula"):
        parse_formula(text, {"a": Affine(factors={"a": 1.0}), "b": Affine(factors={"b": 1.0})})


POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=12)


@given(POINTS)
def test_an_archive_knows_the_hypervolume_at_any_time(points):
    archive = Archive((10, 10))
    for count, point in enumerate(points, 1):
        before = archive.hypervolume
        grew = archive.add(point)
        assert archive.hypervolume == pytest.approx(swept_hypervolume(points[:count], (10, 10)))
        assert grew == (archive.hypervolume > before)
    inside = [p for p in points if max(p) < 10]
    if inside:
        assert hypervolume_of(true_front(np.array(points, float)), (10, 10)) == pytest.approx(
            archive.hypervolume
        )


def test_every_problem_of_ours_is_listed_and_an_unknown_one_is_named():
    names = known_problems()
    assert {p.stem.replace("_", "-") for p in FOLDER.glob("*.yaml")} <= set(names)
    assert {"macro-flops+noise", "synthetic-50-1.2"} <= set(names)
    with pytest.raises(NasliteError, match="unknown problem 'macro-flop'; did you mean 'macro-f"):
        load_problem("macro-flop", None, Path("unused"))
    for text, message in [
        ("{name: table}", "the name must be synthetic, got 'table'"),
        ("{name: synthetic, layer: 3}", "unknown key 'layer'; did you mean 'layers'"),
        ("{name: synthetic, cache: here}", "unknown key 'cache'; known: interaction, "),
        ("{name: synthetic, layers: 0}", "layers must be an integer >= 1, got 0"),
        ("{name: synthetic, layers: x}", "layers must be an integer >= 1, got 'x'"),
        ("{name: synthetic, levels: 1}", "levels must be an integer >= 2, got 1"),
        ("{name: synthetic, seed: -1}", "seed must be an integer >= 0, got -1"),
        ("{name: synthetic, interaction: [1]}", r"a number in \[0, 1.25\], got \[1\]"),
    ]:
        with pytest.raises(NasliteError, match=message):
            load_problem(text, None, Path("unused"))
