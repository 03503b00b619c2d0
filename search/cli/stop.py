"""`naslite stop`."""

from __future__ import annotations

import click

from ..config import store_url
from ..errors import NasliteError
from . import options


@click.command()
@click.argument("name")
@options.store
def stop(name: str, store: str | None) -> None:
    """Ask the running study NAME, from another terminal, to stop after its current trial."""
    from storage import Store

    opened = Store(store_url(store), create=False)
    study = opened.study(name)
    if not opened.is_live(study):
        raise NasliteError(
            f"study {name!r} is not running (it is {study.state}); nothing was asked"
        )
    opened.add_request(study, "stop")
    click.echo(f"asked {name} to stop after its current trial; `naslite resume {name}` continues")
