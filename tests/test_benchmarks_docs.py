"""docs/benchmarks.md names what there is, and its example works."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY

from benchmarks.catalogue import NOISE, known_problems
from benchmarks.command import command
from benchmarks.peers import PEERS
from benchmarks.problem_file import KnobSpec, ObjectiveSpec, TableSpec
from benchmarks.tables import table_problem

PAGE = (REPOSITORY / "docs" / "benchmarks.md").read_text()


def test_every_key_of_a_problem_file_is_explained():
    keys = list(TableSpec.model_fields)
    keys += [f"knobs.*.{name}" for name in KnobSpec.model_fields]
    keys += [f"objectives.*.{name}" for name in ObjectiveSpec.model_fields]
    assert [key for key in keys if f"| `{key}` |" not in PAGE] == []


def test_every_peer_and_problem_is_named():
    assert [name for name in PEERS if f"| `peer:{name}` |" not in PAGE] == []
    tables = [name for name in known_problems() if not name.startswith("synthetic")]
    assert [name for name in tables if f"`{name.removesuffix(NOISE)}`" not in PAGE] == []
    assert "`synthetic-20-0`" in PAGE


@pytest.fixture
def example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language, name in (("csv", "mine.csv"), ("yaml", "mine.yaml")):
        (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
        (tmp_path / name).write_text(block)
    return tmp_path / "mine.yaml"


def test_the_example_is_a_problem(example):
    problem = table_problem(example, None)
    assert problem.space.baseline() == {"width": 64, "depth": 3, "kind": "residual"}
    assert problem.space.size == 8
    assert problem.refuses  # one row of eight is missing
    assert problem.reference == (15, pytest.approx(1.02 * 960))
    assert len(problem.evaluator.rows) == 7
    (arguments,) = re.findall(r"strategies\.py (--problem mine\.yaml.*?)`", PAGE)
    done = CliRunner().invoke(command, [*arguments.split(), "--jobs", "1", "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert "100.0%" in (example.parent / "build" / "benchmark" / "report.md").read_text()
