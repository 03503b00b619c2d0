"""`naslite show`."""

from __future__ import annotations

import click
from rich.console import Group

from ..report import show_lines
from . import options


@click.command()
@click.argument("name")
@click.argument("number", type=int)
@options.store
@options.format
def show(name: str, number: int, store: str | None, format: str) -> None:
    """Show trial NUMBER of the study NAME: stages, measurements, cause of failure."""
    from ..build import open_study

    results = open_study(name, store=store)
    row = results.row(number)
    options.emit(format, row.to_json(), lambda: Group(*show_lines(results, row)))
