"""What verifying a study showed, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from storage import Measurement

from .formats import format_value

if TYPE_CHECKING:
    from .agreement import Agreement
    from .verify import Verification


def verification_view(result: Verification) -> RenderableType:
    """A line for each metric of each row: stored, found now, verdict, rule."""
    table = Table(box=SIMPLE_HEAD, collapse_padding=True)
    for header in ("#", "metric", "stored", "found", "verdict", "rule"):
        table.add_column(header, overflow="fold", justify="right" if header == "#" else "left")
    for row in result.rows:
        table.add_section()
        if row.problem:
            table.add_row(str(row.number), "files", "", "", "disagree", row.problem)
        for i, m in enumerate(row.metrics):
            number = "" if i else str(row.number)
            cells = _cell(m, m.stored), _cell(m, m.found)
            table.add_row(number, m.metric, *cells, m.verdict, m.rule)
    notes = [f"measured with {text}" for text in result.differs]
    if result.differs:
        notes.append("so scores are only compared with the stored intervals")
    return Group(table, *notes)


def _cell(of: Agreement, m: Measurement | None) -> str:
    if m is None:
        return ""
    if of.rule.startswith("equal"):
        return f"{m.value:.12g}"
    value = format_value(of.metric, m.value)
    if not of.metric.startswith("latency_ratio") or m.low is None or m.high is None:
        return value
    return f"{value} [{m.low:.3f}, {m.high:.3f}]"
