"""What is said of many runs: medians that were missed, ranks, and runs that failed."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from benchmark_tables import tiny

from benchmarks.race import Run
from benchmarks.ranking import best_first, overall, ranks
from benchmarks.report import markdown, problem_table
from benchmarks.summary import Failure, Mark, Result, marks_text, quantile, table, write_csv
from benchmarks.tables import table_problem

BUDGET = 60
MISSED = Mark(1, BUDGET)
ENDED = Mark(2, 12)


def reached(*evaluations: float) -> list[Mark]:
    return [Mark(0, count) for count in evaluations]


def run_to(evaluations: int | None, final: float = 1.0, made: int = BUDGET) -> Run:
    """A run that reached all shares at once, or none of them."""
    steps = ((1, 0.1), (evaluations, final)) if evaluations else ((1, final),)
    return Run(steps, made, 0, 0, 0.0)


def results_of(problem: str, **runs: list[Run]) -> list[Result]:
    return [Result(problem, s, i, run) for s, own in runs.items() for i, run in enumerate(own)]


def test_a_row_of_the_report():
    runs = [Run(((1, 0.5), (8, 0.96)), 10, 3, 1, 0.02), Run(((1, 0.5),), 10, 2, 0, 0.04)]
    results = [Result("tiny", "a", seed, run) for seed, run in enumerate(runs)]
    header, row = table(results, [], 10, ["a"])
    assert header == ["strategy", "90%", "95%", "98%", "99%", "at 10", "repeats", "refused", "ms"]
    assert row[3:5] == ["> 10", "> 10"]
    assert row[5:] == ["73.0%", "25.0%", "5.0%", "3.00"]


def test_marks_of_a_run():
    run = Run(((1, 0.5), (8, 0.96)), 10, 0, 0, 0.0)
    assert Mark.of(run, 0.95, 10) == Mark(0, 8)
    assert Mark.of(run, 0.98, 10) == Mark(1, 10)
    assert Mark.of(run, 0.98, 11) == Mark(2, 10)  # it had nothing left to propose
    assert Mark.of(run, 0.95, 11) == Mark(0, 8)


def test_quantiles_of_runs_of_which_some_did_not_get_there():
    assert quantile(reached(3, 1, 2), 0.5) == Mark(0, 2)
    low = quantile(reached(1, 2, 3, 4), 0.25)
    assert low.evaluations == pytest.approx(np.quantile([1, 2, 3, 4], 0.25))
    assert quantile([MISSED, *reached(1)], 0.5) == MISSED
    assert quantile([MISSED, *reached(1, 2)], 0.5) == Mark(0, 2)
    assert quantile([MISSED, MISSED], 0.25) == MISSED
    assert quantile([ENDED, MISSED, *reached(1)], 0.5) == MISSED  # it might have got there
    assert quantile([ENDED, MISSED, *reached(1)], 0.75) == ENDED


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        (reached(10, 20, 30, 40, 50), "30 (20 to 40)"),
        ([*reached(10, 20, 30), MISSED, MISSED], "30 (20 to > 60)"),
        ([*reached(10, 20), MISSED, MISSED, MISSED], "> 60 (20 to > 60)"),
        ([*reached(10), MISSED, MISSED, MISSED, MISSED], "> 60"),
        (reached(10, 21), "15.5 (13 to 18)"),
        ([MISSED], "> 60"),
        ([ENDED, ENDED], "ended at 12"),
        ([*reached(10, 20, 30), ENDED, ENDED], "30 (20 to ended at 12)"),
        ([MISSED, MISSED, ENDED], "> 60"),
    ],
)
def test_medians_that_are_missed_are_said_so(marks, text):
    assert marks_text(marks) == text


def test_the_best_comes_first_and_equal_ones_share_a_rank():
    results = results_of(
        "p",
        poor=[run_to(None, 0.6)],
        slow=[run_to(50)],
        equal=[run_to(20)],
        short=[run_to(None, 0.8, made=12)],
        fast=[run_to(20)],
        first=[run_to(5), run_to(9), run_to(None, 0.2)],  # the median counts
    )
    assert best_first(results, BUDGET) == ["first", "equal", "fast", "slow", "short", "poor"]
    assert ranks(results, BUDGET, 0.95) == {
        "first": 1,
        "equal": 2.5,
        "fast": 2.5,
        "slow": 4,
        "short": 5,
        "poor": 6,
    }


def test_ties_at_95_percent_are_broken_at_98():
    to_98 = Run(((1, 0.5), (10, 0.96), (30, 0.99)), BUDGET, 0, 0, 0.0)
    sooner = Run(((1, 0.5), (10, 0.96), (20, 0.985)), BUDGET, 0, 0, 0.0)
    assert best_first(results_of("p", a=[to_98], b=[sooner]), BUDGET) == ["b", "a"]


def test_mean_ranks_over_the_problems():
    to_95 = Run(((1, 0.5), (10, 0.96)), BUDGET, 0, 0, 0.0)
    results = [
        *results_of("p", a=[run_to(10)], b=[run_to(20)], c=[to_95], d=[run_to(1)]),
        *results_of("q", a=[run_to(30)], b=[run_to(20)], c=[run_to(40)]),
    ]
    # At 95 %: p d, then a and c alike, then b; q b, a, c. At 98 %: p d, a, b, c; q b, a, c.
    assert overall(results, BUDGET) == [
        ["strategy", "mean rank", "at 95%", "at 98%", "problems"],
        ["a", "2.12", "2.25", "2.00", "2 of 2"],
        ["b", "2.25", "2.50", "2.00", "2 of 2"],
        ["c", "3.12", "2.75", "3.50", "2 of 2"],
        ["d", "1.00", "1.00", "1.00", "1 of 2"],  # it left the other problem out
    ]


def test_failed_runs_are_counted_beside_the_rest(tmp_path):
    results = results_of("tiny", good=[run_to(5), run_to(5)], mixed=[run_to(3)])
    failures = [Failure("tiny", name, 7, "ValueError: | no") for name in ("mixed", "broken")]
    rows = problem_table("tiny", results, failures, BUDGET)
    assert [(row[0], row[2], row[-1]) for row in rows] == [
        ("strategy", "95%", "failed"),
        ("mixed", "3 (3 to 3)", "1 of 2"),
        ("good", "5 (5 to 5)", ""),
        ("broken", "-", "1 of 1"),
    ]
    write_csv(results, failures, tmp_path)
    with (tmp_path / "runs.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    assert (last["strategy"], last["seed"], last["to_95"]) == ("broken", "7", "")
    assert last["error"] == "ValueError: | no"


@pytest.fixture
def problem(tmp_path):
    goals = {"size": {"goal": "min", "reference": 10}, "acc": "max"}
    content = {"derived": {"acc": "100 - err"}, "objectives": goals, "quality": "acc"}
    return table_problem(tiny(tmp_path, **content), None)


def test_the_report_says_how_it_is_read(problem):
    results = results_of("tiny", b=[run_to(9)], a=[run_to(5)])
    failures = [Failure("tiny", "c", 0, "ValueError: no")]
    text = markdown({"tiny": problem}, results, failures, BUDGET, "the command")
    assert "    the command\n" in text
    assert "size 10, acc 70" in text
    ranked, rows = text.split("## Mean ranks")[1].split("## tiny")
    assert ranked.index("| a |") < ranked.index("| b |")
    assert rows.index("| a |") < rows.index("| b |") < rows.index("| c |")
    assert "- c on tiny, seed 0: ValueError: no" in rows
    joined = " ".join(text.split())
    for note in (
        "`ended at 80` that it ended after 80 evaluations because it had nothing left",
        "but not in which direction a knob compresses",
        "does not depend on the seed where measurements have no noise",
        "is a lower bound of the true one: shares may exceed 100%",
        "does not breed from the enqueued baseline",
        "equal strategies share the mean of their ranks",
    ):
        assert note in joined


def test_one_strategy_alone_has_no_ranks(problem):
    text = markdown({"tiny": problem}, results_of("tiny", a=[run_to(5)]), [], BUDGET, "")
    assert "Mean ranks are" in text
    assert "## Mean ranks" not in text
    assert "## Failed runs" not in text
    assert "| failed |" not in text
