"""Stored rows as tables for people, JSON for programs and CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

from storage import StudySummary

from .results import Row, StudyResults

WIDTH_WITHOUT_TERMINAL = 160
RATIO = "×"


def console() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is cut in a file."""
    return Console(
        width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL,
        highlight=False,
        markup=False,  # causes and names may hold brackets
    )


def rows_view(
    results: StudyResults, rows: Sequence[Row], *, title: str, width: int
) -> RenderableType:
    """Number, candidate in short form, every metric with its ratio to the baseline, violations.

    A table, or a paragraph for each row where the table needs more than `width` characters.
    """
    baseline = results.baseline()
    reference = baseline.metrics if baseline else {}
    table = _rows_table(results, rows, reference, title)
    if _fits(table, width):
        return table
    lines = [title]
    for row in rows:
        cells = {name: _metric_cell(name, row, reference) for name in results.shown_metrics}
        shown = [f"{name} {cell.replace(chr(10), ' ')}" for name, cell in cells.items() if cell]
        lines += [f"\n#{row.number} {short(results, row)}", f"   {', '.join(shown)}"]
        lines += [f"   violations: {_violations(row)}"]
    return Group(*lines, "")


def _rows_table(
    results: StudyResults, rows: Sequence[Row], reference: Mapping[str, float], title: str
) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("#", justify="right")
    table.add_column("candidate", min_width=20, overflow="fold")
    for name in results.shown_metrics:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("violations", overflow="fold", min_width=10)
    for row in rows:
        cells = [_metric_cell(name, row, reference) for name in results.shown_metrics]
        table.add_row(str(row.number), short(results, row), *cells, _violations(row))
    return table


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
    table.add_column("cause / violations", overflow="fold", min_width=20)
    lines = []
    for row in rows:
        trial = row.trial
        number = f"{trial.number}{'*' if row.on_front else ''}"
        values = [
            format_value(name, row.metrics[name]) if row.metrics else "" for name in objectives
        ]
        seconds = f"{trial.seconds:.1f}"
        cached = f"{sum(stage.cached for stage in trial.stages)}/{len(trial.stages)}"
        cause = trial.cause or _violations(row)
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
        f"{', enqueued' if trial.origin == 'enqueued' else ''}"
        f"{f', attempt {trial.attempt}' if trial.attempt > 1 else ''}"
    )
    yield f"candidate: {short(results, row)}"
    if trial.cause:
        yield f"cause: {trial.cause}"
    if "worker died" in trial.cause:
        yield f"its traceback: `naslite logs {results.name} --workers`"
    stages = Table("stage", "options", "seconds", "cached", "note", box=SIMPLE_HEAD)
    for stage in trial.stages:
        options = ", ".join(f"{k}={_plain(v)}" for k, v in stage.options.items())
        hit = "yes" if stage.cached else "no"
        stages.add_row(stage.name, options, f"{stage.seconds:.2f}", hit, stage.note)
    yield stages
    if trial.measurements:
        baseline = results.baseline()
        table = Table("metric", "value", "95 % interval", "n", "to baseline", box=SIMPLE_HEAD)
        for m in trial.measurements:
            interval = ""
            if m.low is not None and m.high is not None:
                interval = f"[{format_value(m.metric, m.low)}, {format_value(m.metric, m.high)}]"
            interval += " noisy" * m.noisy
            ratio = _ratio(m.metric, row.metrics, baseline.metrics if baseline else {})
            samples = "" if m.n is None else str(m.n)
            table.add_row(m.metric, format_value(m.metric, m.value), interval, samples, ratio)
        yield table
    for constraint, violation in row.violations.items():
        yield f"constraint {constraint}: {_verdict(violation)}"
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


def short(results: StudyResults, row: Row) -> str:
    """The searched knobs of a candidate: `ratio=0.6 · epochs=5 · static uint8 minmax`."""
    groups: dict[str, list[str]] = {}
    for record in results.study.space:
        name = record["name"]
        searched = record["kind"] != "choice" or len(record["values"]) > 1
        if name not in row.trial.candidate or not (searched or row.number == 0):
            continue
        compressor, _, knob = name.partition(".")
        value = row.trial.candidate[name]
        if value == record["neutral"] and "active_when" not in record:
            continue
        text = str(value) if isinstance(value, str) else f"{knob}={_plain(value)}"
        groups.setdefault(compressor, []).append(text)
    if groups:
        return " · ".join(" ".join(parts) for parts in groups.values())
    fixed = [
        f"{name.partition('.')[2]}={_plain(row.trial.candidate[name])}"
        for name, neutral in _unconditional(results)
        if row.trial.candidate.get(name, neutral) != neutral
    ]
    return " · ".join(fixed) or "uncompressed"


def _unconditional(results: StudyResults) -> list[tuple[str, Any]]:
    """The knobs that are always active, with their neutral values."""
    return [(k["name"], k["neutral"]) for k in results.study.space if "active_when" not in k]


def format_value(metric: str, value: float) -> str:
    """A metric as people read it: `122 kB`, `0.412 ms`, `3.03 M`, `0.9925`."""
    if metric == "size_bytes":
        return _scaled(value, ("B", "kB", "MB", "GB"))
    if metric.startswith("latency_ms"):
        return f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"
    if metric in ("parameters", "macs"):
        return _scaled(value, ("", "k", "M", "G")).strip()
    return f"{value:.4f}"


def knob_values(knob: Mapping[str, Any]) -> str:
    """The values of a knob in its JSON form: `0.0 to 0.8 step 0.1`, `none, static`."""
    if knob["kind"] == "choice":
        return ", ".join(_plain(value) for value in knob["values"])
    step = knob.get("step")
    scale = " log" if knob.get("log") else ""
    every = f" step {_plain(step)}" if step else ""
    return f"{_plain(knob['low'])} to {_plain(knob['high'])}{every}{scale}"


def as_json(records: Any) -> str:
    return json.dumps(records, indent=2)


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Flat columns; nested values become `metrics.size_bytes`, lists become JSON."""
    flat = [dict(_flatten(record)) for record in records]
    columns = list(dict.fromkeys(name for record in flat for name in record))
    groups = list(dict.fromkeys(name.partition(".")[0] for name in columns))
    columns.sort(key=lambda name: groups.index(name.partition(".")[0]))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue().rstrip("\n")


def _fits(table: Table, width: int) -> bool:
    wide = Console(width=10_000)
    return Measurement.get(wide, wide.options, table).minimum <= width


def _metric_cell(name: str, row: Row, reference: Mapping[str, float]) -> str:
    if name not in row.metrics:
        return ""
    value = format_value(name, row.metrics[name])
    if name.startswith("latency_ratio"):
        found = next(m for m in row.trial.measurements if m.metric == name)
        if found.low is None or found.high is None:
            return value
        mark = " noisy" * found.noisy
        return f"{value}\n[{found.low:.3f}, {found.high:.3f}]{mark}"
    ratio = _ratio(name, row.metrics, reference)
    return f"{value}\n{ratio}" if ratio else value


def _ratio(name: str, metrics: Mapping[str, float], reference: Mapping[str, float]) -> str:
    """The ratio to the baseline; for milliseconds the one that was measured side by side."""
    if name.startswith("latency_"):
        return f"{RATIO}{metrics[name.replace('latency_ms', 'latency_ratio')]:.3f}"
    base = reference.get(name)
    return f"{RATIO}{metrics[name] / base:.3f}" if base else ""


def _violations(row: Row) -> str:
    broken = {c: v for c, v in row.violations.items() if v}
    if row.trial.state != "complete":
        return ""
    return "\n".join(f"{c}: {_verdict(v)}" for c, v in broken.items()) or "none"


def _verdict(violation: float) -> str:
    return f"broken by {100 * violation:.3g} %" if violation else "met"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = f"{value:.0f}" if value >= 99.95 or value == int(value) else f"{value:.3g}"
    return f"{digits} {units[power]}"


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _flatten(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{key}", json.dumps(value)
        else:
            yield f"{prefix}{key}", value
