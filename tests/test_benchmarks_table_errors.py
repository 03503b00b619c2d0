"""What is wrong with a table or its YAML, in one line."""

from __future__ import annotations

import pytest
from benchmark_tables import GRID_YAML, grid, tiny

from benchmarks.tables import table_problem
from search.errors import NasliteError

ERRORS = [
    ({"knob": {}}, "knob: unknown key 'knob'; did you mean 'knobs'?"),
    ({"knobs": {}}, "knobs: must not be empty, got {}"),
    ({"knobs": ["x"]}, "knobs: must be keys and values, got ['x']"),
    ({"knobs": {"x": [0, 1]}}, "knobs.x: must be keys and values (neutral, levels, ordered, dir"),
    ({"knobs": {"x": [0, 1]}}, ") or the neutral level alone, got [0, 1]"),
    (
        {"knobs": {"x": {"neutral": [0]}}},
        ".neutral: must be a number, a text, true or false, got",
    ),
    ({"knobs": {"x": {"neutral": 0, "levels": 3}}}, "knobs.x.levels: must be a list, got 3"),
    ({"knobs": {"x": {"neutral": 0, "ordered": "yes"}}}, "must be true or false, got 'yes'"),
    ({"knobs": {"x": True}}, "knobs.x.neutral: must be one of 0, 1, 2, 3, got True"),
    ({"knobs": {"x": {"neutral": 0, "levels": [0, True, 2, 3]}}}, "got 1 in row 2; levels: 0, T"),
    ({"objectives": {"err": ["min"]}}, "(goal, reference) or `min` or `max` alone, got ['min']"),
    ({"objectives": dict.fromkeys("abcd", "min")}, "objectives: must be three at most, got"),
    ({"path": 3, "where": 4}, "path: must be a text, got 3 (and 1 more)"),
    ({"knobs": {"x": {"neutral": 0, "order": True}}}, "knobs.x.order: unknown key 'order'; did"),
    ({"knobs": {"x": {"ordered": True}}}, "knobs.x.neutral: this key is required"),
    ({"knobs": {"x": {"neutral": 7}}}, "knobs.x.neutral: must be one of 0, 1, 2, 3, got 7"),
    ({"knobs": {"y": 0}}, "knobs: unknown column 'y'; known: err, size, x"),
    ({"knobs": {"z*": 0}}, "knobs: unknown column 'z*'"),
    ({"knobs": {"x": 0, "?": 0}}, "knobs: column 'x' must be meant once, got '?'"),
    ({"knobs": {"x": {"neutral": 0, "levels": [0, 1]}}}, "got 2 in row 3; levels: 0, 1"),
    ({"objectives": {"error": "min"}}, "objectives.error: unknown column 'error'; did you mean"),
    ({"objectives": {"err": "low"}}, "objectives.err.goal: input should be 'min' or 'max', got"),
    (
        {"objectives": {"err": {"goal": "min", "reference": "best"}}},
        "or `worst * 1.02`, got 'best'",
    ),
    (
        {"objectives": {"err": {"goal": "min", "reference": []}}},
        "objectives.err.reference: must be a number, `worst` or `worst * 1.02`, got []",
    ),
    ({"objectives": {"err": {"goal": "min", "reference": 5}}}, "no row is better than the ref"),
    ({"quality": "er"}, "quality must be one of the objectives: unknown objective 'er'; did"),
    ({"limits": ["err"]}, "limits.0: expected one of <= "),
    ({"limits": ["erk <= 3"]}, "limits.0: unknown column 'erk'; did you mean 'err'?"),
    ({"limits": ["err <= 3"]}, "limits: no row meets them"),
    ({"derived": {"acc": "100 - er"}}, "derived.acc: unknown column 'er'; did you mean 'err'?"),
    ({"derived": {"acc": "err * size"}}, "derived.acc: columns cannot be multiplied"),
    ({"derived": {"acc": "__import__('os')"}}, "derived.acc: cannot read"),
    ({"derived": {"err": "2 * size"}}, "derived.err: must not be the name of a column, got 'err'"),
    ({"where": {"x": True}}, "path: the table has no row that `where` keeps"),
    ({"where": {"y": 1}}, "where: unknown column 'y'"),
    ({"where": {"x": 9}}, "path: the table has no row that `where` keeps"),
    ({"where": {"x": 1}, "knobs": {"x": {"neutral": 0, "levels": [0, 1]}}}, "has no row"),
    ({"path": "none.csv"}, "give --data DIR or set NASLITE_BENCH_DATA"),
]


@pytest.mark.parametrize(("changes", "message"), ERRORS)
def test_what_is_wrong_is_said_in_one_line(tmp_path, changes, message):
    path = tiny(tmp_path, **changes)
    with pytest.raises(NasliteError) as caught:
        table_problem(path, None)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "\n" not in text


def test_a_text_column_is_reported_where_it_is_used(tmp_path):
    changes = {"derived": {"sum": "size + word"}, "objectives": {"err": "min", "sum": "min"}}
    path = tiny(tmp_path, **changes, noise={"err": ["word"]})
    (tmp_path / "tiny.csv").write_text("x,err,size,word\n0,10,8,a\n1,12,4,b\n")
    with pytest.raises(NasliteError, match=r"derived\.sum: column 'word' must hold numbers, got"):
        table_problem(path, None)
    path = tiny(tmp_path, noise={"err": ["word"]})
    (tmp_path / "tiny.csv").write_text("x,err,size,word\n0,10,8,a\n1,12,4,b\n")
    with pytest.raises(NasliteError, match=r"noise\.err: column 'word' must hold numbers"):
        table_problem(path, None, noisy=True)
    (tmp_path / "tiny.csv").write_text("x,err,size,word\n0,10,8,\n1,12,4,\n")
    with pytest.raises(NasliteError, match=r"noise\.err: no row has a finite number in column 'w"):
        table_problem(path, None, noisy=True)
    path = tiny(tmp_path, limits=["word <= 3"])
    (tmp_path / "tiny.csv").write_text("x,err,size,word\n0,10,8,a\n1,12,4,b\n")
    with pytest.raises(NasliteError, match=r"limits\.0: column 'word' must hold numbers"):
        table_problem(path, None)


def test_noise_must_be_explained(tmp_path):
    with pytest.raises(NasliteError, match="noise: this key is required"):
        table_problem(tiny(tmp_path), None, noisy=True)
    for noise, message in [
        ({"err": ["er"]}, "column 'er'; did you"),
        ({"err": []}, "at least one"),
    ]:
        with pytest.raises(NasliteError, match=message):
            table_problem(tiny(tmp_path, noise=noise), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path: [", "line 1, column"),
        ("", "must be keys and values, got None"),
        ("- path", "must be keys and values, got"),
    ],
)
def test_yaml_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "problem.yaml"
    path.write_text(text)
    with pytest.raises(NasliteError, match=message):
        table_problem(path, None)
    with pytest.raises(NasliteError, match="cannot read the problem"):
        table_problem(tmp_path / "none.yaml", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "path: the table has no row"),
        ("x,err,size\n0,1\n", "path: row 1 has 2 cells, the header 3"),
        ("x,err,size\n0,1,high\n", "objectives.size: column 'size' must hold numbers, got 'high'"),
        ("x,err,size\n0,1,2\n1,NA,3\n", "got 'NA' in row 2; an empty cell means that a value is"),
        ("x,err,size\n0,,2\n1,,3\n", "objectives.err: no row has a finite number for 'err'"),
        ("x,err,size\n0,2,inf\n1,3,nan\n", "objectives.size: no row has a finite number for"),
        ("x,err,size\n0,2,\n1,,3\n", "no row has a finite number for all of err, size"),
        ("x,err,size\n0,1,2\n0,1,3\n", "knobs: rows 1 and 2 have the same knobs"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    path = tiny(tmp_path)
    (tmp_path / "tiny.csv").write_text(text)
    with pytest.raises(NasliteError, match=message):
        table_problem(path, None)


def test_words_have_no_order_of_their_own(tmp_path):
    knobs = {**GRID_YAML["knobs"], "kind": {"neutral": "plain", "ordered": True}}
    with pytest.raises(NasliteError, match=r"knobs\.kind\.levels: needed, as words"):
        table_problem(grid(tmp_path, knobs=knobs), None)
    knobs["kind"] = {"neutral": "plain", "direction": "up"}
    with pytest.raises(NasliteError, match=r"knobs\.kind\.direction: needs an ordered knob"):
        table_problem(grid(tmp_path, knobs=knobs), None)
