"""What both commands share: their settings, their tables, and errors in one line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.errors import NasliteError

CONTEXT_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 99,
    "show_default": True,
}
WIDTH = 140  # of a table that goes to no terminal


def show(rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """Print a header and rows."""
    header, *body = rows
    table = Table(*map(escape, header), title=title, title_justify="left")
    for row in body:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a header and rows."""
    header, *body = rows
    return [markdown_row(row) for row in (header, ["---"] * len(header), *body)]


def main_of(command: click.Command) -> None:
    """Run a command; errors of the user are one line and exit code 2."""
    try:
        command()
    except NasliteError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
