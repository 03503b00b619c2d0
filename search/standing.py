"""How a study stands, in lines: why there is no row, how far off the nearest are, what binds."""

from __future__ import annotations

from .causes import causes
from .formats import format_value
from .nearest import Gap, Nearest
from .results import Answer, StudyResults

SHOWN = 5  # causes


def about_answer(results: StudyResults, answer: Answer) -> list[str]:
    """What is to be said of an answer beside its rows; nothing if all is well."""
    ranking = answer.ranking
    lines = [
        f"left out: {count} of {ranking.complete} complete trials, which have no {metric}"
        for metric, count in ranking.lacking.items()
    ]
    if ranking.nearest is not None:
        lines += nearest_lines(ranking.nearest)
    if ranking.complete <= 1:  # the baseline at most
        lines += cause_lines(results)
    return lines


def nearest_lines(close: Nearest) -> list[str]:
    """How far the nearest row is from each limit, and which of them binds."""
    first = close.numbers[0]
    lines = [f"none of {close.rows} trials meets all limits; #{first} comes nearest:"]
    for gap in close.gaps:
        lines.append(f"  {gap.limit}: {_off(gap)}; {_trials(gap.meeting)} this limit")
    for gap in close.binding:
        if len(close.gaps) == 1:
            lines.append(f"{gap.limit} binds: it is the only limit")
        elif gap.without:
            lines.append(f"{gap.limit} binds: without it, {_trials(gap.without)} all others")
        else:
            lines.append(
                f"{gap.limit} binds: #{first} breaks it most; without any single limit still"
                " no trial meets the rest"
            )
    return lines


def cause_lines(results: StudyResults) -> list[str]:
    """Why no trial of a study is complete but its baseline, with counts per cause."""
    study, rows = results.study, results.rows()
    trials = [row.trial for row in rows if row.number]
    cause = f" ({study.cause})" if study.cause else ""
    lines = [f"study {study.name} is {study.state}{cause}"]
    if not rows:
        return [f"{lines[0]}: it has no trials yet"]
    if not trials:
        return [f"{lines[0]}: it has no trials but the baseline yet"]
    lines[0] += f": of {len(trials)} trials beside the baseline none is complete"
    found = causes(row.trial for row in rows)
    for group in found[:SHOWN]:
        text = f": {group.text}" if group.text else ""
        lines.append(f"  {len(group.numbers)} {group.state}, such as #{group.numbers[0]}{text}")
    if len(found) > SHOWN:
        more = sum(len(group.numbers) for group in found[SHOWN:])
        lines.append(f"  {more} for {len(found) - SHOWN} other causes")
    return lines


def _off(gap: Gap) -> str:
    if not gap.shortfall:
        return "met"
    if gap.value is None or gap.bound is None:
        return "not met"
    value, by = (format_value(gap.metric, v) for v in (gap.value, abs(gap.value - gap.bound)))
    if gap.value == gap.bound:
        return f"{value}, exactly the bound that it excludes"
    relative = f", {100 * gap.shortfall:.3g} %" if gap.bound else ""
    return f"{value}, off by {by}{relative}"


def _trials(count: int) -> str:
    return (
        f"{count} trial meets"
        if count == 1
        else f"{count or 'no'} trials meet".replace("no trials meet", "no trial meets")
    )
