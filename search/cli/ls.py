"""`naslite ls`."""

from __future__ import annotations

from contextlib import closing

import click

from ..config import store_url
from ..report import studies_table, study_json
from . import options


@click.command()
@options.store
@options.format
def ls(store: str | None, format: str) -> None:
    """List the studies of a store."""
    from storage import NoStore, Store
    from storage.database import without_password

    url = store_url(store)
    try:
        with closing(Store(url, create=False)) as opened:
            summaries = opened.studies()
    except NoStore:
        summaries = []
    if not summaries and format == "table":
        click.echo(
            f"no studies in {without_password(url)} yet; start one with `naslite run CONFIG`"
        )
        return
    options.emit(format, [study_json(s) for s in summaries], lambda: studies_table(summaries))
