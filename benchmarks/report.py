"""The report of a benchmark as Markdown: who is best, on which problem, and what it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .problem import Problem
from .ranking import best_first, overall
from .summary import Failure, Result, table
from .terminal import markdown_table

HOW_TO_READ = """\
- 90% to 99%: evaluations until this share of the true hypervolume, as median (quartiles) of the
  runs of {seeds} seeds. The baseline is the first evaluation of everybody. Where the run of that
  rank did not get there, `> {budget}` says that it used up its budget, and `ended at 80` that it
  ended after 80 evaluations because it had nothing left to propose.
- `at {budget}`: median share at the end. `repeats`: proposals equal to an earlier one of the run;
  they count as evaluations. `refused`: evaluations that gave no result. `ms`: mean time of a
  proposal. `failed`: runs that broke off with an error; the other columns are of the rest.
- Rows stand from the best to the worst: by the median at 95%, then by that at 98%. Where the
  median run does not get there, it comes after all others, by the median share at the end.
- Mean ranks are over the problems of this run, every problem counting the same; equal strategies
  share the mean of their ranks, and `mean rank` is the mean of those at 95% and at 98%. Who has
  not run on all problems comes last.
- With noise a strategy sees single measurements, and the hypervolume is that of the true means of
  what it evaluated.
- Peers are told the knobs, the order of their levels and the baseline, but not in which direction
  a knob compresses: only ours have such a notion, and greedy and genetic use it.
- Optuna's NSGA-II as a peer does not breed from the enqueued baseline, as Optuna gives no
  generation to a trial that was asked before any was complete. Its option `breed_baseline: true`
  mends that: little changes with few knobs, much with many.
- The path of greedy does not depend on the seed where measurements have no noise: up to its end,
  its quartiles are those of one path.
- Where a synthetic problem has interactions, its reference front is a lower bound of the true one:
  shares may exceed 100%.
"""


def markdown(
    problems: Mapping[str, Problem],
    results: Sequence[Result],
    failures: Sequence[Failure],
    budget: int,
    command: str,
) -> str:
    """The whole report."""
    seeds = len({one.seed for one in (*results, *failures)})
    lines = ["# Strategies compared", "", f"    {command}", ""]
    lines += HOW_TO_READ.format(seeds=seeds, budget=budget).splitlines()
    ranked = overall(results, budget)
    if len(ranked) > 2:
        lines += ["", "## Mean ranks", "", *markdown_table(ranked)]
    for name, problem in problems.items():
        rows = problem_table(name, results, failures, budget)
        if len(rows) == 1:
            continue
        facts = "; ".join(f"{key}: {text}" for key, text in problem.facts.items())
        corner = ", ".join(
            f"{objective} {-value if goal == 'maximize' else value:.6g}"
            for (objective, goal), value in zip(
                problem.goals.objectives.items(), problem.reference, strict=True
            )
        )
        lines += ["", f"## {name}", "", f"{problem.title}. {facts}; reference: {corner}.", ""]
        lines += markdown_table(rows)
    if failures:
        lines += ["", "## Failed runs", "", *(f"- {failure}" for failure in failures)]
    return "\n".join(lines) + "\n"


def problem_table(
    name: str, results: Sequence[Result], failures: Sequence[Failure], budget: int
) -> list[list[str]]:
    """Header and rows of one problem, the best first, those without a result last."""
    own = [result for result in results if result.problem == name]
    failed = [failure for failure in failures if failure.problem == name]
    order = [*best_first(own, budget), *(failure.strategy for failure in failed)]
    return table(own, failed, budget, list(dict.fromkeys(order)))
