"""`naslite trials`."""

from __future__ import annotations

import click

from ..report import console, trials_view
from . import options


@click.command()
@click.argument("name")
@options.store
@options.format
def trials(name: str, store: str | None, format: str) -> None:
    """List all trials of the study NAME."""
    from ..build import open_study

    results = open_study(name, store=store)
    rows = results.rows()
    options.emit(
        format,
        [row.to_json() for row in rows],
        lambda: trials_view(results, rows, width=console().width),
    )
