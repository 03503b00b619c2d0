"""How values, candidates and records are written: for people, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from strategies.knobs import PER_LAYER

from .metrics import BOUNDS_LEVEL

if TYPE_CHECKING:
    from storage import Trial

    from .results import Row, StudyResults

TIMES = "×"  # before a ratio
UNPAIRED = ("latency_p90_ms", "load_ms", "peak_rss_bytes")  # their ratios are mostly chance


def short(results: StudyResults, row: Row) -> str:
    """The searched knobs of a candidate: `ratio=0.6 · epochs=5 · static uint8 minmax`."""
    groups: dict[str, list[str]] = {}
    for record in results.study.space:
        name = record["name"]
        if name not in row.trial.candidate:
            continue
        compressor, _, knob = name.partition(".")
        value, is_layers = row.trial.candidate[name], PER_LAYER in knob
        if row.number and record["kind"] == "choice" and record["values"] == [value]:
            continue  # every candidate has it
        if value == record["neutral"] and (is_layers or "active_when" not in record):
            continue
        is_plain = isinstance(value, str) and not is_layers
        text = str(value) if is_plain else f"{knob.partition(PER_LAYER)[2] or knob}={plain(value)}"
        groups.setdefault(compressor, []).append(text)
    if groups:
        return " · ".join(" ".join(parts) for parts in groups.values())
    fixed = [
        f"{name.partition('.')[2]}={plain(row.trial.candidate[name])}"
        for name, neutral in _unconditional(results)
        if row.trial.candidate.get(name, neutral) != neutral
    ]
    return " · ".join(fixed) or "uncompressed"


def values_text(trial: Trial, names: Iterable[str]) -> list[str]:
    """What was measured, by metric; "" where it was not, `noisy` where it is not to be trusted."""
    found = {m.metric: m for m in trial.measurements}
    return [
        format_value(name, found[name].value) + " noisy" * found[name].noisy
        if name in found
        else ""
        for name in names
    ]


def format_value(metric: str, value: float) -> str:
    """A metric as people read it: `122 kB`, `0.412 ms`, `3.03 M`, `1,234/s`, `0.9925`."""
    kind = metric.partition("_batch")[0]
    if kind.endswith("_bytes"):
        return _scaled(value, ("B", "kB", "MB", "GB"))
    if kind.endswith("_ms"):
        return f"{value:.3g} ms" if abs(value) < 1000 else f"{value:.0f} ms"
    if kind == "throughput_per_s":
        return f"{value:,.0f}/s" if abs(value) >= 100 else f"{value:.3g}/s"
    if kind in ("parameters", "macs"):
        return _scaled(value, ("", "k", "M", "G")).strip()
    return _number(value)


def format_ratio(name: str, metrics: Mapping[str, float], reference: Mapping[str, float]) -> str:
    """The ratio to the baseline, as `x0.226` with TIMES for its x; empty where there is none.

    For milliseconds and throughput it is the one that was measured side by side.
    """
    kind, batch, size = name.partition("_batch")
    if kind in UNPAIRED:
        return ""
    side_by_side = metrics.get(f"latency_ratio{batch}{size}")
    if kind in ("latency_ms", "latency_ratio") and side_by_side is not None:
        return f"{TIMES}{side_by_side:.3f}"
    if kind == "throughput_per_s" and side_by_side:
        return f"{TIMES}{1 / side_by_side:.3f}"
    base = reference.get(name)
    return f"{TIMES}{metrics[name] / base:.3f}" if base else ""


def knob_values(knob: Mapping[str, Any]) -> str:
    """The values of a knob in its JSON form: `0.0 to 0.8 step 0.1`, `none, static`."""
    if knob["kind"] == "choice":
        return ", ".join(plain(value) for value in knob["values"])
    step = knob.get("step")
    scale = " log" if knob.get("log") else ""
    every = f" step {plain(step)}" if step else ""
    return f"{plain(knob['low'])} to {plain(knob['high'])}{every}{scale}"


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


def _number(value: float) -> str:
    """Four decimals, or three digits that count where those would say too little or too much."""
    if abs(value) < 1e-9:  # what rounding leaves of a difference
        return f"{0:.4f}"
    if abs(value) < 0.01:
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _unconditional(results: StudyResults) -> list[tuple[str, Any]]:
    """The knobs that are always active, with their neutral values."""
    return [(k["name"], k["neutral"]) for k in results.study.space if "active_when" not in k]


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= 1000 and power < len(units) - 1:
        value, power = value / 1000, power + 1
    digits = f"{value:.0f}" if abs(value) >= 99.95 or value == int(value) else f"{value:.3g}"
    return f"{digits} {units[power]}"


def level_text(level: float) -> str:
    """The confidence of an interval; the ends of a drop's are bounds, each for itself."""
    return "95 % each side" if level == BOUNDS_LEVEL else f"{100 * level:.3g} %"


def plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _flatten(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{key}", json.dumps(value)
        else:
            yield f"{prefix}{key}", value
