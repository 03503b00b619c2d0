"""`naslite stop`."""

from __future__ import annotations

import click

from ..config import store_option, store_url
from . import options


@click.command()
@click.argument("name")
@click.option("--now", is_flag=True, help="Abandon the running trials; `resume` redoes them.")
@options.store
def stop(name: str, now: bool, store: str | None) -> None:
    """Ask the running study NAME, from another terminal, to stop after its running trials."""
    url = store_url(store)
    options.ask(url, name, "stop", {"now": now})
    when = "now" if now else "after its running trials"
    click.echo(
        f"asked {name} to stop {when}; `naslite resume {name}{store_option(url)}` continues it"
    )
