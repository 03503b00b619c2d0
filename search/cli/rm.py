"""`naslite rm`."""

from __future__ import annotations

import click

from ..config import store_url
from . import options


@click.command()
@click.argument("name")
@options.store
def rm(name: str, store: str | None) -> None:
    """Delete the study NAME and the files that no other study uses."""
    from storage import Store

    files = Store(store_url(store), create=False).remove(name)
    click.echo(f"removed study {name} and {len(files)} artifacts")
