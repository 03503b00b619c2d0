"""The commands: from a table and YAML to CSV, Markdown and PNG."""

from __future__ import annotations

import csv
import inspect
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from benchmark_tables import grid, tiny
from click.testing import CliRunner
from conftest import REPOSITORY

from benchmarks import cost
from benchmarks.command import DEFAULTS, command
from benchmarks.contestants import PEER, Contestant
from benchmarks.peers import PEERS
from benchmarks.problem import Problem
from benchmarks.race import race
from search.errors import NasliteError

PLUGIN = '''
"""A strategy of somebody else: the knob's levels in order."""

from strategies.base import Exhausted, Proposal


class InOrder:
    def __init__(self, first=1):
        self.first = first

    def propose(self, view, number, rng):
        if number + self.first > view.space.size:
            raise Exhausted("all levels were tried")
        return Proposal(view.space.at(number + self.first - 1))
'''


def run(*arguments: object, main: click.Command = command, exit_code: int = 0) -> str:
    """What a command prints; its errors are raised."""
    result = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result.output


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(path: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows_of(path)]


def test_the_script_runs_in_many_processes_as_in_one(tmp_path, monkeypatch):
    path = grid(tmp_path)
    plugin = tmp_path / "theirs.py"
    plugin.write_text(PLUGIN)
    arguments = [
        *("--problem", path, "--problem", f"{path}+noise", "--seeds", 3, "--budget", 30),
        *("--strategy", "random", "--strategy", "genetic", "--strategy", "theirs.py:InOrder"),
        *("--strategy", "peer:optuna-random"),
    ]
    script = REPOSITORY / "benchmarks" / "strategies.py"
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments), "--jobs", "2", "--out", "many"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning"},
    )
    assert done.returncode == 0, done.stderr
    assert "24/24" in done.stderr  # the progress bar
    monkeypatch.chdir(tmp_path)
    run(*arguments, "--jobs", 1, "--out", "one")
    for name in ("runs.csv", "curves.csv"):
        assert timeless(tmp_path / "many" / name) == timeless(tmp_path / "one" / name)
    written = {path.name for path in (tmp_path / "many").iterdir()}
    assert written == {"runs.csv", "curves.csv", "report.md", "grid.png", "grid+noise.png"}
    for name in ("grid.png", "grid+noise.png"):
        assert (tmp_path / "many" / name).read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text(PLUGIN)
    return tmp_path


def test_a_report_says_what_was_found(here):
    printed = run(
        *("--problem", tiny(here), "--strategy", "theirs.py:InOrder", "--seeds", 2),
        *("--strategy", "{name: 'theirs.py:InOrder', first: 2, label: 'later | other'}"),
        *("--budget", 4, "--out", "out", "--jobs", 1, "--no-plot"),
    )
    assert "tiny, budget 4" in printed
    report = (here / "out" / "report.md").read_text()
    assert "true front: 3 distinct points below the reference, by brute force" in report
    assert "reference: err 40, size 10" in report
    # The baseline, 1 (81 %), 2 (all), 3; and without 1: (60 + 20 * 6) / 212 = 85 %.
    first = "| theirs.py:InOrder" + 4 * " | 3 (3 to 3)" + " | 100.0% | 0.0% | 0.0% |"
    assert first in report
    assert (
        "| later \\| other | ended at 3 | ended at 3 | ended at 3 | ended at 3 | 84.9% |" in report
    )
    runs = timeless(here / "out" / "runs.csv")
    assert [row["to_95"] for row in runs] == ["3", "3", "", ""]
    assert [row["evaluations"] for row in runs] == ["4", "4", "3", "3"]
    curves = rows_of(here / "out" / "curves.csv")
    assert [(row["evaluations"], float(row["share"])) for row in curves[:3]] == [
        ("1", pytest.approx(60 / 212)),
        ("2", pytest.approx(172 / 212)),
        ("3", pytest.approx(1)),
    ]
    assert not (here / "out" / "tiny.png").exists()


def test_a_quick_run(here):
    printed = run("--problem", grid(here), "--quick", "--out", "out", "--jobs", 1)
    runs = rows_of(here / "out" / "runs.csv")
    assert [row["evaluations"] for row in runs] == ["60"] * 2 * len(DEFAULTS)
    assert "mean ranks over 1 problem, the best first" in printed
    assert (here / "out" / "grid.png").stat().st_size > 5000


def test_without_data_the_synthetic_problems_of_20_layers_are_run(here, monkeypatch):
    monkeypatch.delenv("NASLITE_BENCH_DATA", raising=False)
    some = ["--strategy", "random", "--seeds", 1, "--budget", 2, "--jobs", 1, "--no-plot"]
    run(*some, "--out", "out")
    names = [row["problem"] for row in rows_of(here / "out" / "runs.csv")]
    assert names == ["synthetic-20-0", "synthetic-20-0.6", "synthetic-20-1.2"]
    message = "path: no file 'nas_bench_macro.csv.gz' in .*; give --data DIR or set NASLITE_BENCH"
    for arguments in (["--data", here], ["--problem", "macro-flops"]):
        with pytest.raises(NasliteError, match=message):
            run(*some, *arguments)


def resolved(contestant: Contestant, problem: Problem) -> str:
    """What takes part, with all its options, as text."""
    if contestant.is_peer:
        factory = PEERS[contestant.name.removeprefix(PEER)]
        given = inspect.signature(factory).bind(problem, 0, **contestant.options)
        given.apply_defaults()
        return f"{contestant.name} {[*given.arguments.items()][2:]}"
    strategy = contestant.strategy()
    options = {k: v for k, v in vars(strategy).items() if not hasattr(v, "fits")}
    return f"{type(strategy).__mro__[-2]} {options}"  # `tpe` is a name for a sampler of `optuna`


@pytest.mark.parametrize("defaults", [DEFAULTS, cost.DEFAULTS])
def test_no_two_defaults_are_the_same(defaults):
    """A name's own defaults may change, and two names be one strategy then."""
    problem = cost.layerwise_problem(4)
    chosen = [Contestant.parse(text) for text in defaults]
    assert len({contestant.label for contestant in chosen}) == len(chosen)
    assert len({resolved(contestant, problem) for contestant in chosen}) == len(chosen)
    for pair in (
        ("greedy", "{name: greedy, step: once}"),
        ("tpe", "{name: optuna, sampler: tpe}"),
        ("peer:optuna-tpe", "{name: 'peer:optuna-tpe', n_startup_trials: 10}"),
    ):
        assert len({resolved(Contestant.parse(text), problem) for text in pair}) == 1


def test_peers_cannot_lag(here):
    with pytest.raises(NasliteError, match="peers are asked one at a time; leave --lag at 1"):
        run("--problem", tiny(here), "--strategy", "peer:optuna-random", "--lag", 2)


def test_what_a_strategy_cannot_search_is_left_out_and_said(here):
    arguments = ["--problem", tiny(here), "--strategy", "{name: optuna, sampler: cmaes}"]
    rest = ["--out", "out", "--jobs", 1, "--seeds", 1, "--no-plot"]
    printed = run(*arguments, "--strategy", "random", *rest)
    assert "leaves tiny out: takes at most 1 objective(s), got 2" in printed
    assert len(rows_of(here / "out" / "runs.csv")) == 1
    with pytest.raises(NasliteError, match="no strategy can search any of the problems"):
        run(*arguments, *rest)


def test_the_list_of_what_can_be_run():
    printed = run("--list")
    for name in ("macro-flops+noise", "synthetic-20-0.6", "random", "peer:pymoo-nsga2"):
        assert f" {name}" in printed


def test_names_must_differ(here):
    with pytest.raises(NasliteError, match="'random' is given twice; add `label:` to one"):
        run("--problem", tiny(here), "--strategy", "random", "--strategy", "random")
    again = here / "again"
    again.mkdir()
    with pytest.raises(NasliteError, match="'tiny' is given twice"):
        run("--problem", tiny(here), "--problem", tiny(again))


BROKEN = """
from strategies.base import Proposal


class Breaks:
    def propose(self, view, number, rng):
        if view.seed == 1 and number == 3:
            raise ValueError("no" + chr(10) + "more")
        return Proposal(view.space.at(number % view.space.size))
"""
DEADLY = BROKEN.replace("raise ValueError", "__import__('os')._exit(3) or ")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_breaks_off_takes_no_other_with_it(here, jobs):
    (here / "broken.py").write_text(BROKEN)
    arguments = ["--problem", tiny(here), "--strategy", "broken.py:Breaks", "--strategy"]
    arguments += ["random", "--seeds", 3, "--budget", 6, "--out", "out", "--jobs", jobs]
    printed = run(*arguments, "--no-plot", exit_code=1)
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert line == (
        "error: broken.py:Breaks on tiny, seed 1: strategy 'broken.py:Breaks' failed at trial 3:"
        " ValueError: no more (broken.py, line 8)"
    )
    report = (here / "out" / "report.md").read_text()
    assert line.removeprefix("error: ") in report
    (row,) = [row for row in report.splitlines() if row.endswith("| 1 of 3 |")]
    assert row.startswith("| broken.py:Breaks | ")
    runs = rows_of(here / "out" / "runs.csv")
    assert [(row["strategy"], row["seed"]) for row in runs if row["error"]] == [
        ("broken.py:Breaks", "1")
    ]
    assert len(runs) == 6


def test_a_worker_that_dies_takes_no_other_run_with_it(here):
    (here / "deadly.py").write_text(DEADLY)
    arguments = ["--problem", tiny(here), "--strategy", "deadly.py:Breaks", "--strategy", "random"]
    rest = ["--seeds", 4, "--budget", 4, "--out", "out", "--jobs", 2, "--no-plot"]
    printed = run(*arguments, *rest, exit_code=1)
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: deadly.py:Breaks on tiny, seed 1: its process died twice")
    assert sum(row["error"] == "" for row in rows_of(here / "out" / "runs.csv")) == 7


@pytest.mark.parametrize("script", ["strategies.py", "proposal_cost.py"])
def test_an_error_of_the_user_is_one_line(tmp_path, script):
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / script, "--strategy", "gentic"]
        + (["--problem", str(tiny(tmp_path))] if script == "strategies.py" else []),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: gentic: strategy.name: unknown strategy 'gentic'; did you mean")


def test_the_cost_of_a_proposal_is_measured_beside_plain_optuna(here):
    printed = run(
        *("--strategy", "greedy", "--strategy", "{name: optuna, sampler: nsgaii}"),
        *("--strategy", "peer:optuna-nsgaii", "--knobs", 4, "--knobs", 6),
        *("--trials", 25, "--repetitions", 4, "--out", "cost.md"),
        main=cost.command,
    )
    assert "written: cost.md" in printed
    header, _, *rows = [r for r in (here / "cost.md").read_text().splitlines() if r[:1] == "|"]
    assert header.count("of plain") == header.count("first, cold") == 2
    cells = {row.split(" | ")[0][2:]: row.split(" | ") for row in rows}
    mine = ["greedy", "optuna (sampler=nsgaii)", "peer:optuna-nsgaii", "greedy, after its path"]
    assert list(cells) == mine
    for label, row in cells.items():
        assert all(float(row[i].split()[0]) > 0 for i in (1, 3, 4)), row
        assert row[2].endswith("x") == label.startswith("optuna")


@pytest.mark.parametrize("step", ["once", "best"])
@pytest.mark.parametrize("knobs", [4, 20, 200])
def test_a_greedy_path_ends_before_it_is_timed_after_its_path(step, knobs):
    problem = cost.layerwise_problem(knobs, narrow=True)
    contestant = Contestant.parse(f"{{name: greedy, step: {step}, restarts: false}}")
    made = race(problem, contestant.player(problem, budget=1000, seed=0), 1000, 0).evaluations
    assert made < (20 if knobs == 4 else 700)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: optuna, sampler: cmaes}", "takes at most 1"),
        ("peer:pymoo-nsga2", "proposes whole generations"),
    ],
)
def test_what_cannot_be_timed(text, message):
    with pytest.raises(NasliteError, match=message):
        run("--strategy", text, main=cost.command)


def test_the_ratio_is_that_of_medians_to_the_plain_sampler():
    times = {"tpe": [30.0, 3.0, 4.0], "{name: optuna, sampler: nsgaii}": [1.0, 1.0, 1.0]}
    times |= {"peer:optuna-tpe": [2.0, 2.0, 9.0], "peer:optuna-nsgaii": [4.0, 4.0, 4.0]}
    problem = cost.layerwise_problem(4)
    clocked = []
    for text, warm in times.items():
        contestant = Contestant.parse(text)
        player = contestant.player(problem, budget=2, seed=0)
        clocked.append(cost.Clocked(text, contestant, problem, player, warm, [5.0]))
    _, *rows = cost.table({4: clocked})
    assert [row[2] for row in rows] == ["2.00x", "0.25x", "", ""]
    assert [row[1] for row in rows][:2] == ["4.00 (3.50 to 17.00)", "1.00 (1.00 to 1.00)"]
    assert {row[3] for row in rows} == {"5.00"}


def test_a_cold_proposal_is_the_warm_one():
    """A restart changes nothing but the time."""
    for text in ("random", "genetic", "tpe"):
        contestant = Contestant.parse(text)
        problem = cost.layerwise_problem(6)
        player = contestant.player(problem, budget=40, seed=0)
        clocked = cost.Clocked("one", contestant, problem, player)
        for _ in range(20):
            clocked.step()
        cold = player.resumed(contestant.strategy())
        assert cold.ask() == player.ask()
        assert clocked.cold_step() > 0
