"""Stored rows as tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

from storage import StudySummary

from .expressions import parse_constraint, violation
from .formats import (
    as_csv,
    as_json,
    format_ratio,
    format_value,
    knob_values,
    level_text,
    plain,
    short,
    values_text,
)
from .metrics import AUDIT, BOUNDS_LEVEL, audit_names
from .results import Row, StudyResults
from .verdicts import PROVEN, VIOLATED, speed

__all__ = [
    "as_csv",
    "as_json",
    "console",
    "format_value",
    "knob_values",
    "rows_view",
    "short",
    "show_lines",
    "studies_table",
    "study_json",
    "trials_view",
    "verdict_lines",
]

WIDTH_WITHOUT_TERMINAL = 160
SPLIT_NAME = 10  # names of metrics that are longer stand in two lines


def console() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is cut in a file."""
    return Console(
        width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL,
        highlight=False,
        markup=False,  # causes and names may hold brackets
    )


def rows_view(
    results: StudyResults,
    rows: Sequence[Row],
    *,
    title: str,
    width: int,
    more: Sequence[str] = (),
    marked: Mapping[int, str] = {},
) -> RenderableType:
    """Number, candidate in short form, every metric with its ratio to the baseline, verdicts.

    A table, or a paragraph for each row where the table needs more than `width` characters.

    Args:
        more: Metrics to show beside the usual ones.
        marked: What is wrong with some rows, by number.
    """
    if not rows:
        return title
    baseline = results.baseline()
    reference = baseline.metrics if baseline else {}
    names = results.shown(more)
    notes = [*_notes(rows, names, marked), *audit_lines(results, rows)]
    table = _rows_table(results, rows, names, reference, title, marked)
    if _fits(table, width):
        return Group(table, *notes)
    lines = [title]
    for row in rows:
        cells = {name: _metric_cell(name, row, reference) for name in names}
        shown = [f"{name} {cell.replace(chr(10), ' ')}" for name, cell in cells.items() if cell]
        lines += [f"\n#{row.number} {short(results, row)}", f"   {', '.join(shown)}"]
        lines += [f"   {line}" for line in verdict_lines(row)]
        lines += [f"   {marked[row.number]}"] if row.number in marked else []
    return Group(*lines, "", *audit_lines(results, rows))


def audit_lines(results: StudyResults, rows: Sequence[Row]) -> list[str]:
    """Which rows keep to a limit of the score in the search, and break it in the audit."""
    audited = audit_names(results.study.facts["score_name"])
    found = []
    for limit in dict.fromkeys(limit for row in rows for limit in row.verdicts):
        constraint = parse_constraint(limit)
        name = f"{AUDIT}{constraint.name}"
        broken = [
            f"#{row.number} ({format_value(name, row.metrics[name])})"
            for row in rows
            if row.verdicts.get(limit, VIOLATED) != VIOLATED
            and name in audited
            and name in row.metrics
            and violation(constraint, row.metrics[name])
        ]
        if broken:
            found.append(f"audit: {limit} is broken on unseen data by {', '.join(broken)}")
    return found


def verdict_lines(row: Row) -> list[str]:
    """For each limit what is known: `accuracy_drop <= 0.01: violated by 35 %`."""
    return [f"{limit}: {_verdict(row, limit)}" for limit in row.verdicts]


def _rows_table(
    results: StudyResults,
    rows: Sequence[Row],
    names: Sequence[str],
    reference: Mapping[str, float],
    title: str,
    marked: Mapping[int, str],
) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("candidate", min_width=20, overflow="fold")
    for name in names:
        table.add_column(_header(name), justify="right", no_wrap=True)
    has_limits = any(row.verdicts for row in rows)
    if has_limits:
        table.add_column("limits", no_wrap=True)
    for row in rows:
        cells = [_metric_cell(name, row, reference) for name in names]
        cells += [_limits_cell(row)] if has_limits else []
        number = f"{row.number}{'!' * (row.number in marked)}"
        table.add_row(number, short(results, row), *cells)
    return table


def _header(name: str) -> str:
    """A long name in two lines: the table is as wide as its columns."""
    if len(name) <= SPLIT_NAME or "_" not in name:
        return name
    cuts = [i + 1 for i, letter in enumerate(name) if letter == "_"]
    cut = min(cuts, key=lambda i: max(i, len(name) - i))
    return f"{name[:cut]}\n{name[cut:]}"


def _limits_cell(row: Row) -> str:
    """The verdicts, each with the number of its limit if there are several."""
    verdicts = [_verdict(row, limit).replace(" by ", " ") for limit in row.verdicts]
    if len(verdicts) == 1:
        return verdicts[0]
    if verdicts and all(verdict == PROVEN for verdict in verdicts):
        return f"all {PROVEN}"
    return "\n".join(f"{i} {verdict}" for i, verdict in enumerate(verdicts, 1))


def _notes(rows: Sequence[Row], names: Sequence[str], marked: Mapping[int, str]) -> list[str]:
    """What the cells of a table mean, and what is wrong with marked rows."""
    notes = []
    limits = list(dict.fromkeys(limit for row in rows for limit in row.verdicts))
    if limits:
        numbered = [f"{i} {limit}" for i, limit in enumerate(limits, 1)]
        given = limits[0] if len(limits) == 1 else ", ".join(numbered)
        notes.append(f"limits: {given}; proven: its 95 % bound keeps to it as well")
    bounded = [m for row in rows for m in row.trial.measurements if m.metric in names]
    if any(m.level == BOUNDS_LEVEL and m.high is not None for m in bounded):
        notes.append("≤: one-sided 95 % bound of a drop; [ ]: 95 % interval")
    return notes + [f"{number}! {text}" for number, text in marked.items()]


def trials_view(results: StudyResults, rows: Sequence[Row], *, width: int) -> RenderableType:
    """Every trial in a line: number, state, candidate, objectives, seconds, cache hits, cause.

    A table, or a paragraph for each trial where the table needs more than `width` characters.
    """
    objectives = list(results.goals.objectives)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("candidate", overflow="fold", min_width=20)
    for name in (*objectives, "seconds", "cached"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("cause / limits", overflow="fold", min_width=20)
    lines = []
    for row in rows:
        trial = row.trial
        number = f"{trial.number}{'*' if row.on_front else ''}"
        values = values_text(trial, objectives)
        seconds = f"{trial.seconds:.1f}"
        cached = f"{sum(stage.cached for stage in trial.stages)}/{len(trial.stages)}"
        cause = trial.cause or "\n".join(line for line in verdict_lines(row) if VIOLATED in line)
        table.add_row(number, trial.state, short(results, row), *values, seconds, cached, cause)
        shown = ", ".join(f"{n} {v}" for n, v in zip(objectives, values, strict=True) if v)
        lines.append(
            f"#{number} {trial.state}: {short(results, row)}\n"
            f"   {shown or cause} ({seconds} s, {cached} cached)"
        )
    caption = "* on the front; cached: stages taken from the cache / all stages"
    return Group(table if _fits(table, width) else Group(*lines), caption)


def studies_table(summaries: Sequence[StudySummary]) -> Table:
    table = Table(box=SIMPLE_HEAD)
    header = ("study", "state", "trials", "by state", "min searched", "updated (UTC)", "cause")
    for name in header:
        table.add_column(name, overflow="fold", no_wrap=name.startswith("updated"))
    for record in map(study_json, summaries):
        counts = ", ".join(f"{n} {state}" for state, n in record["counts"].items())
        table.add_row(
            record["name"],
            record["state"],
            f"{record['done']}/{record['trials']}",
            counts,
            f"{record['seconds'] / 60:.1f}",
            record["updated"][:16].replace("T", " "),
            record["cause"],
        )
    return table


def study_json(summary: StudySummary) -> dict[str, Any]:
    """A study as `ls` gives it; the baseline is not among `done`."""
    study = summary.study
    ended = sum(n for state, n in summary.counts.items() if state not in ("queued", "running"))
    updated = datetime.fromtimestamp(study.updated_at, tz=timezone.utc)
    return {
        "name": study.name,
        "state": study.state,
        "done": max(0, ended - 1),
        "trials": study.trials,
        "minutes": study.minutes,
        "counts": dict(summary.counts),
        "seconds": study.seconds,
        "updated": updated.isoformat(timespec="seconds"),
        "cause": study.cause,
    }


def show_lines(results: StudyResults, row: Row) -> Iterable[Table | str]:
    """One trial in full: its stages, its measurements and, if it did not end well, why."""
    trial = row.trial
    yield (
        f"trial {trial.number} of {results.name}: {trial.state}"
        f" in {trial.seconds:.1f} s{', on the front' if row.on_front else ''}"
        f"{f', {trial.origin}' if trial.origin in ('enqueued', 'continued') else ''}"
        f"{f', attempt {trial.attempt}' if trial.attempt > 1 else ''}"
    )
    yield f"candidate: {short(results, row)}"
    if trial.cause:
        yield f"cause: {trial.cause}"
    if "worker died" in trial.cause:
        yield f"its traceback: `naslite logs {results.name} --workers`"
    stages = Table("stage", "options", "seconds", "cached", "note", box=SIMPLE_HEAD)
    for stage in trial.stages:
        options = ", ".join(f"{k}={plain(v)}" for k, v in stage.options.items())
        hit = "yes" if stage.cached else "no"
        stages.add_row(stage.name, options, f"{stage.seconds:.2f}", hit, stage.note)
    yield stages
    if trial.measurements:
        yield _measurements_table(results, row)
    for line in verdict_lines(row):
        yield f"constraint {line}"
    if trial.reused_from is not None:
        source = f"trial {trial.reused_from}"
        if trial.reused_study:
            yield f"taken over from {source} of study {trial.reused_study}"
        else:
            yield f"measurements taken over from {source}: the files are identical"
    if trial.artifact:
        yield f"artifact {trial.artifact.sha256} ({trial.artifact.size_bytes} bytes)"
        for file in trial.artifact.files:
            yield f"  {file.name}: {file.size_bytes} bytes, SHA-256 {file.sha256}"


def _measurements_table(results: StudyResults, row: Row) -> Table:
    """Every measurement with its interval, the level of that, and what it says."""
    baseline = results.baseline()
    reference = baseline.metrics if baseline else {}
    table = Table(box=SIMPLE_HEAD)
    for header in ("metric", "value", "interval", "level", "n", "to baseline"):
        table.add_column(header, no_wrap=True)
    for m in row.trial.measurements:
        interval = level = ""
        if m.low is not None and m.high is not None:
            interval = f"[{format_value(m.metric, m.low)}, {format_value(m.metric, m.high)}]"
            level = level_text(m.level)
        interval += " noisy" * m.noisy
        ratio = format_ratio(m.metric, row.metrics, reference)
        if m.metric.startswith("latency_ratio") and row.number:
            ratio = speed(m)
        samples = "" if m.n is None else str(m.n)
        value = format_value(m.metric, m.value)
        table.add_row(m.metric, value, interval, level, samples, ratio)
    return table


def _fits(table: Table, width: int) -> bool:
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table).minimum <= width


def _metric_cell(name: str, row: Row, reference: Mapping[str, float]) -> str:
    found = {m.metric: m for m in row.trial.measurements}.get(name)
    if found is None:
        return ""
    value = format_value(name, found.value)
    if found.level == BOUNDS_LEVEL and found.high is not None:  # of a drop
        return f"{value}\n≤{format_value(name, found.high)}"
    if name.startswith("latency_ratio"):
        if found.low is None or found.high is None:
            return value
        mark = " noisy" * found.noisy
        return f"{value}\n[{found.low:.3f}, {found.high:.3f}]{mark}"
    ratio = format_ratio(name, row.metrics, reference)
    return f"{value}\n{ratio}" if ratio else value


def _verdict(row: Row, limit: str) -> str:
    """`proven`, `not proven`, or `violated by 35 %`."""
    verdict = row.verdicts[limit]
    if verdict != VIOLATED:
        return verdict
    if float(limit.rpartition(" ")[2]) == 0:  # there is no share of it
        return f"{verdict} by {row.violations[limit]:.3g}"
    percent = 100 * row.violations[limit]
    return f"{verdict} by {percent:,.0f} %" if percent >= 100 else f"{verdict} by {percent:.3g} %"
