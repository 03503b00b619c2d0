"""A report as Markdown, for a terminal, an issue or a wiki."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .formats import format_value
from .study_report import StudyReport, failed_numbers, optimism_text, state_line

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def markdown_report(report: StudyReport) -> str:
    """Everything but the figures."""
    parts = [f"# {escaped(report.name)}", escaped(state_line(report))]
    if report.headline:
        found = report.headline
        row = next((row for row in report.front if row.number == found.number), None)
        named = f": {escaped(row.candidate)}" if row else ""
        parts.append(f"**{escaped(', '.join(found.phrases))}**")
        parts.append(f"Trial {found.number}{named}. {escaped(found.rule)}")
    parts += [f"> {escaped(note)}" for note in report.notes]
    for title, body in (
        (f"The front: {report.front_size} row{'s' * (report.front_size != 1)}", _front(report)),
        ("How the search went", _progress(report)),
        ("What decides a metric", _importance(report)),
        ("What it cost", _costs(report)),
        ("Failures", _failures(report)),
        ("Environment", _environment(report)),
    ):
        parts += [f"## {title}", *body]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [[escaped(cell) for cell in cells] for cells in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _front(report: StudyReport) -> list[str]:
    if not report.front:
        return ["There is none: no trial is complete."]
    rows = [
        [
            str(row.number),
            row.candidate,
            *(row.cells.get(name, "") for name in report.columns),
            *(row.verdicts.get(text, "") for text in report.constraints),
        ]
        for row in report.front
    ]
    header = ["#", "candidate", *report.columns, *report.constraints]
    return [table(header, rows), escaped(optimism_text(report))]


def _progress(report: StudyReport) -> list[str]:
    found = report.progress
    if found is None:
        return ["No row is within the limits yet."]
    # The trials that made a difference.
    steps = [i for i, v in enumerate(found.hypervolume) if i == 0 or v > found.hypervolume[i - 1]][
        -20:
    ]
    rows = [
        [str(found.numbers[i]), f"{found.seconds[i]:.0f}", f"{found.hypervolume[i]:.3f}"]
        for i in steps
    ]
    reference = ", ".join(
        f"{name} {format_value(name, value)}" for name, value in found.reference.items()
    )
    return [
        table(["after trial", "seconds", "hypervolume"], rows),
        escaped(f"Hypervolume as a share, reference point: {reference}."),
    ]


def _importance(report: StudyReport) -> list[str]:
    rows = [
        [
            found.metric,
            found.note or ", ".join(f"{n} {100 * s:.0f} %" for n, s in found.shares.items()),
        ]
        for found in report.importance
    ]
    return [table(["metric", "share of the variance (functional ANOVA)"], rows)]


def _costs(report: StudyReport) -> list[str]:
    if not report.stages:
        return ["No stage has run."]
    rows = [
        [
            *(cost.name, str(cost.computed), str(cost.cached), f"{cost.seconds:.1f}"),
            "unknown" if cost.saved is None else f"{cost.saved:.1f}",
        ]
        for cost in report.stages
    ]
    return [table(["stage", "computed", "from the cache", "seconds", "saved, estimate, s"], rows)]


def _failures(report: StudyReport) -> list[str]:
    if not report.failures:
        return ["None: every trial that ended became a row."]
    rows = [
        [
            *(str(len(found.numbers)), found.state, found.text),
            ", ".join(map(str, found.numbers[:8])) + failed_numbers(found, 8),
        ]
        for found in report.failures
    ]
    return [table(["trials", "state", "cause", "which"], rows)]


def _environment(report: StudyReport) -> list[str]:
    parts = [table(["", ""], report.environment)]
    if report.sessions:
        header = ["next trial then", "CPU", "load", "A/A control", "noise floor"]
        parts.append(table(header, report.sessions))
    return parts
