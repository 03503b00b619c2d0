"""`naslite best`."""

from __future__ import annotations

import click

from ..report import console, rows_view
from . import options


@click.command()
@click.argument("name")
@options.store
@click.option(
    "--where",
    metavar="EXPRESSION",
    help='All rows that meet it, such as "accuracy_drop <= 0.01 and size_bytes < 2e5",'
    " instead of the front.",
)
@click.option("--sort", metavar="METRIC", help="Best first; default: the first cost objective.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
@options.format
def best(
    name: str,
    store: str | None,
    where: str | None,
    sort: str | None,
    limit: int | None,
    format: str,
) -> None:
    """Print the front of the study NAME, or the rows that meet --where."""
    from ..build import open_study

    results = open_study(name, store=store)
    rows = results.best(where=where, sort=sort, limit=limit)
    title = f"{len(rows)} rows of {name}" + (f" where {where}" if where else " on the front")
    options.emit(
        format,
        [row.to_json() for row in rows],
        lambda: rows_view(results, rows, title=title, width=console().width),
    )
