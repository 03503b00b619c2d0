"""`naslite resume`."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from ..config import store_url
from . import options
from .live import finish, live_observer


@click.command()
@click.argument("name")
@options.store
@options.trials
@options.minutes
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Train the rows of the front for longer, to so many epochs each; they are new trials.",
)
@click.option(
    "--where",
    metavar="EXPRESSION",
    help="Of --epochs: the rows that meet this instead of the front, as in `naslite best`.",
)
@options.workers
@options.detach
def resume(name: str, store: str | None, detach: bool, **given: Any) -> None:
    """Continue the study NAME where it was left; --trials and --minutes are new totals, --epochs
    trains what it has found for longer."""
    url = store_url(store)
    if detach:
        from storage import Store

        with closing(Store(url, create=False)) as opened:
            opened.check_free(opened.study(name))
        options.start_detached(["resume", name], given, url=url, study=name)
        return
    from ..build import resume as resume_study

    with live_observer(url) as observer:
        results = resume_study(name, store=store, observer=observer, **given)
    if not observer.name:  # no controller was needed
        click.echo(
            f"study {name} has finished: {results.study.cause}; a larger --trials goes on with it"
        )
    finish(results)
