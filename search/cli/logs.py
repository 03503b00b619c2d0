"""`naslite logs`."""

from __future__ import annotations

import time

import click

from ..config import store_url
from ..detach import log_path, worker_log
from ..errors import NasliteError
from . import options

POLL_S = 0.3


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the study ends.")
@click.option("--workers", is_flag=True, help="What its workers printed, tracebacks of crashes.")
@options.store
def logs(name: str, follow: bool, workers: bool, store: str | None) -> None:
    """Print the log of the study NAME, which `run --detach` and `resume --detach` write."""
    from storage import Store
    from storage.database import files_folder

    url = store_url(store)
    opened = Store(url, create=False)
    opened.study(name)
    path = worker_log(files_folder(url), name) if workers else log_path(url, name)
    if not path.exists():
        started = "its workers printed nothing" if workers else "it was not started with --detach"
        raise NasliteError(f"study {name!r} has no log at {path}: {started}")
    with path.open(encoding="utf-8", errors="replace") as stream:
        goes_on = True
        while goes_on:
            # Asked before reading, so that what a study wrote last is not missed.
            goes_on = follow and opened.is_live(opened.study(name))
            for line in stream:
                click.echo(line, nl=False)
            if goes_on:
                time.sleep(POLL_S)
