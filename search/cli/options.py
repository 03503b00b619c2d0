"""Options that several verbs share, and the output of the verbs that read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..report import as_csv, as_json, console

store = click.option(
    "--store",
    metavar="URL",
    help="Database of studies; default: NASLITE_STORE, else sqlite:///naslite.db.",
)
format = click.option(
    "--format",
    "format",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="How to print.",
)
trials = click.option("--trials", type=click.IntRange(min=1), help="Total trials of the study.")
minutes = click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Total minutes of work."
)
enqueue = click.option(
    "--enqueue",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON list of candidates, or what `best --format json` prints: evaluated first, after"
    " the config's own `enqueue`.",
)


def emit(
    format: str, records: Sequence[Mapping[str, Any]] | Mapping[str, Any], table: Callable[[], Any]
) -> None:
    """Print records as JSON or CSV, or what `table` gives."""
    if format == "json":
        click.echo(as_json(records))
    elif format == "csv":
        click.echo(as_csv([records] if isinstance(records, Mapping) else records))
    else:
        console().print(table())
