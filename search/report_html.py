"""A report as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.resources import files
from typing import Any

from .formats import format_value
from .knob_importance import Importance
from .study_report import FrontRow, StudyReport, failed_numbers, optimism_text, state_line
from .verdicts import PROVEN, VIOLATED

# Whatever a browser would fetch is refused; plotly compiles its shaders' bindings (eval).
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " img-src data: blob:; base-uri 'none'; form-action 'none'"
)
DIGITS = 6


def html_report(report: StudyReport) -> str:
    """The page: 5 MB, of which the library that draws is nearly all."""
    body = [
        _header(report),
        "<main>",
        _front_figure(report),
        _front_table(report),
        _progress(report),
        _knobs(report),
        _costs(report),
        _failures(report),
        _environment(report),
        "</main>",
    ]
    style, script = (_template(f"report.{kind}") for kind in ("css", "js"))
    drawing = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(report.name)}: report of a search</title>",
            f"<style>\n{style}</style>\n</head>\n<body>",
            *body,
            "<footer class='soft'>Made by <code>naslite report</code>. This file is complete:"
            " it loads nothing.</footer>",
            f'<script id="data" type="application/json">{_json(_data(report))}</script>',
            f"<script>{drawing}</script>",
            f"<script>\n{script}</script>",
            "</body>\n</html>\n",
        ]
    )


def _template(name: str) -> str:
    return (files("search") / "templates" / name).read_text(encoding="utf-8")


def _data(report: StudyReport) -> dict[str, Any]:
    """What the script draws."""
    points = report.points
    return {
        "columns": report.columns,
        "picked": report.headline.number if report.headline else None,
        "points": {**asdict(points), "values": _rounded(points.values)},
        "progress": asdict(report.progress) if report.progress else None,
        "lines": asdict(report.lines) if report.lines else None,
        "details": [asdict(detail) for detail in report.details],
        "show": f"naslite show {shlex.quote(report.name)}",
    }


def _rounded(values: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    return {
        name: [None if v is None else float(f"{v:.{DIGITS}g}") for v in column]
        for name, column in values.items()
    }


def _json(value: Any) -> str:
    """JSON that may stand in a script element whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _header(report: StudyReport) -> str:
    parts = [f"<header><h1>{escape(report.name)} · {escape(state_line(report))}</h1>"]
    if report.headline:
        found = report.headline
        shown = [_phrase(phrase) for phrase in found.phrases]
        parts.append(f'<p class="headline">{", ".join(shown)}</p>')
        row = next((row for row in report.front if row.number == found.number), None)
        named = f": {escape(row.candidate)}" if row else ""
        parts.append(
            f"<p>{_button(found.number, 'Trial ')}{named}"
            f'<br><span class="soft">{escape(found.rule)} Compared with the uncompressed'
            " model; brackets hold intervals and verdicts.</span></p>"
        )
    parts += [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    return "\n".join([*parts, "</header>"])


def _phrase(phrase: str) -> str:
    """The bracket smaller than the claim."""
    claim, bracket, rest = phrase.partition(" [")
    small = f" <small>[{escape(rest)}</small>" if bracket else ""
    return f"<span>{escape(claim)}{small}</span>"


def _button(number: int, before: str = "#") -> str:
    return f'<button type="button" data-number="{number}">{before}{number}</button>'


def _section(title: str, *parts: str) -> str:
    return "\n".join([f"<section>\n<h2>{escape(title)}</h2>", *filter(None, parts), "</section>"])


def _front_figure(report: StudyReport) -> str:
    title = "Candidates"
    if not report.points.numbers:
        return _section(title, '<p class="soft">No trial is complete, so there are no points.</p>')
    names = list(report.points.values)
    objectives = [name for name in report.objectives if name in names] or names
    quality, costs = objectives[0], objectives[1:] or [n for n in names if n != objectives[0]]
    first = next((n for n, way in report.objectives.items() if way == "maximize"), quality)
    y = first if first in names else quality
    x = next((name for name in [*costs, *objectives] if name != y), y)
    return _section(
        title,
        '<p class="soft">Every point is a measured file. Point at one for its metrics, click it'
        " for everything about it; the numbers in the table below do the same by keyboard. Drag to"
        " zoom, double-click to go back.</p>",
        '<div class="choices">',
        f"<label>across {_select('x', names, x)}</label>",
        f"<label>up {_select('y', names, y)}</label>",
        '<label class="short"><input type="checkbox" id="log"> logarithmic</label></div>',
        '<figure><div id="front" class="plot" role="img" aria-label="All complete trials as'
        ' points over two metrics; the table of the front has the same values"></div></figure>',
        '<div id="panel" aria-live="polite"><p class="soft">No trial is chosen.</p></div>',
    )


def _select(name: str, options: Iterable[str], chosen: str) -> str:
    made = "".join(
        f'<option value="{escape(o)}"{" selected" * (o == chosen)}>{escape(o)}</option>'
        for o in options
    )
    return f'<select id="{name}">{made}</select>'


def _front_table(report: StudyReport) -> str:
    title = f"The front: {report.front_size} row{'s' * (report.front_size != 1)}"
    if not report.front:
        return _section("The front", '<p class="soft">There is none: no trial is complete.</p>')
    header = ["#", "candidate", *report.constraints, *report.columns]
    first = 2 + len(report.constraints)
    rows = [_front_cells(report, row) for row in report.front]
    picked = report.headline.number if report.headline else None
    marks = ["picked" if row.number == picked else "" for row in report.front]
    text = optimism_text(report)
    return _section(
        title,
        _table(header, rows, numeric=range(first, len(header)), marks=marks, tall=True),
        f'<p class="soft">{escape(text)}</p>' if text else "",
    )


def _front_cells(report: StudyReport, row: FrontRow) -> list[str]:
    cells = []
    for name in report.columns:
        value, bracket, rest = row.cells.get(name, "").partition(" [")
        cells.append(escape(value) + (f"<br><small>[{escape(rest)}</small>" if bracket else ""))
    said = [_verdict(row.verdicts.get(text, "")) for text in report.constraints]
    return [_button(row.number), escape(row.candidate), *said, *cells]


def _verdict(said: str) -> str:
    kind = {PROVEN: "proven", VIOLATED: "violated"}.get(said, "not")
    return f'<span class="{kind}">{escape(said)}</span>'


def _table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Iterable[int] = (),
    marks: Sequence[str] = (),
    tall: bool = False,
    text: int | None = 1,
) -> str:
    """A table of cells that are HTML already; it scrolls in a box of its own."""
    right = set(numeric)

    def kind(column: int) -> str:
        return ' class="n"' if column in right else ' class="text"' * (column == text)

    def wrap(name: str) -> str:
        return ' class="wrap"' * (" " in name)

    head = "".join(
        f'<th scope="col"{kind(i) if i in right else wrap(name)}>{escape(name)}</th>'
        for i, name in enumerate(header)
    )
    lines = []
    for position, cells in enumerate(rows):
        mark = f' class="{marks[position]}"' if marks and marks[position] else ""
        lines.append(
            f"<tr{mark}>"
            + "".join(f"<td{kind(i)}>{c}</td>" for i, c in enumerate(cells))
            + "</tr>"
        )
    return (
        f'<div class="scroll{" tall" * tall}" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _progress(report: StudyReport) -> str:
    title, found = "How the search went", report.progress
    if found is None:
        return _section(title, '<p class="soft">No row is within the limits yet.</p>')
    reference = ", ".join(
        f"{name} {format_value(name, value)}" for name, value in found.reference.items()
    )
    return _section(
        title,
        '<div class="choices">',
        f"<label>{_select('what', ['hypervolume', *found.best], 'hypervolume')}</label>",
        f"<label>over {_select('over', ['trials', 'seconds'], 'trials')}</label></div>",
        '<figure><div id="progress" class="plot low" role="img"'
        ' aria-label="Hypervolume or best value so far"></div>',
        "<figcaption>Hypervolume: the share of the box between the reference point"
        f" ({escape(reference)}: the worst feasible value of each and a tenth of the range more)"
        " and the best value seen of each that feasible rows dominate. Seconds are those of"
        " searching, without the pauses between sessions.</figcaption></figure>",
    )


def _knobs(report: StudyReport) -> str:
    parts = []
    if report.lines:
        parts += [
            '<figure><div class="scroll" tabindex="0"><div id="lines"></div></div>',
            "<figcaption>Each line is a trial: blue on the front, grey within the limits, orange"
            f" outside. Click one for its details. {escape(report.lines.note)}"
            "</figcaption></figure>",
        ]
    parts.append("<h3>What decides a metric</h3>")
    parts.append(
        '<p class="soft">The share of the variance over the trials that a knob explains by itself'
        " (functional ANOVA of a random forest); what is missing to 100 % is interaction."
        " A search looks where it hopes to gain, so this describes the trials, not the space.</p>"
    )
    parts.append(f'<div class="bars">{"".join(map(_bars, report.importance))}</div>')
    return _section("Knobs", *parts)


def _bars(found: Importance) -> str:
    rows = [f"<div><h3>{escape(found.metric)}</h3>"]
    if found.note:
        rows.append(f'<p class="soft">{escape(found.note)}</p>')
    for name, share in found.shares.items():
        width = f"{100 * min(1.0, max(0.0, share)):.1f}"
        short = escape(name.partition(".")[2] or name)
        rows.append(
            f'<div class="bar"><span title="{escape(name)}">{short}</span>'
            f'<i style="width:{width}%"></i><b>{100 * share:.0f} %</b></div>'
        )
    return "".join([*rows, "</div>"])


def _costs(report: StudyReport) -> str:
    title = "What it cost"
    if not report.stages:
        return _section(title, '<p class="soft">No stage has run.</p>')
    rows = [
        [escape(c.name), str(c.computed), str(c.cached), f"{c.seconds:.1f}", _saved(c.saved)]
        for c in report.stages
    ]
    saved = sum(cost.saved or 0.0 for cost in report.stages)
    rows.append(["all", "", "", f"{sum(c.seconds for c in report.stages):.1f}", _saved(saved)])
    return _section(
        title,
        _table(
            ["stage", "computed", "from the cache", "seconds", "saved, estimate, s"],
            rows,
            numeric=range(1, 5),
            text=None,
        ),
        '<p class="soft">Saved: what the cached stages would have cost at the mean of the'
        " computed ones.</p>",
    )


def _saved(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds:.1f}"


def _failures(report: StudyReport) -> str:
    if not report.failures:
        return _section("Failures", "<p>None: every trial that ended became a row.</p>")
    detailed = {detail.number for detail in report.details}
    rows = [
        [
            str(len(found.numbers)),
            escape(found.text),
            escape(found.state),
            " ".join(
                _button(number) if number in detailed else f"#{number}"
                for number in found.numbers[:8]
            )
            + failed_numbers(found, 8),
        ]
        for found in report.failures
    ]
    return _section("Failures", _table(["trials", "cause", "state", "which"], rows, tall=True))


def _environment(report: StudyReport) -> str:
    facts = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.environment
    )
    header = ["next trial then", "CPU", "load", "A/A control", "noise floor"]
    sessions = [[escape(cell) for cell in row] for row in report.sessions]
    shown = (
        "<h3>Sessions</h3>"
        '<p class="soft">A control times the baseline against its own copy; its noise floor is the'
        " greatest difference from 1 that its interval allows for. Every ratio has its own.</p>"
        + _table(header, sessions)
        if sessions
        else '<p class="soft">No control of the timings is stored.</p>'
    )
    config = f"<details><summary>Config</summary><pre>{escape(report.config)}</pre></details>"
    return _section("Environment", f"<dl>{facts}</dl>", shown, config)
