"""`naslite resume`."""

from __future__ import annotations

import click

from ..config import store_url
from . import options
from .live import finish, live_observer


@click.command()
@click.argument("name")
@options.store
@options.trials
@options.minutes
def resume(name: str, store: str | None, trials: int | None, minutes: float | None) -> None:
    """Continue the study NAME where it was left; --trials and --minutes are new totals."""
    from ..build import resume as resume_study

    with live_observer(store_url(store)) as observer:
        results = resume_study(
            name, store=store, trials=trials, minutes=minutes, observer=observer
        )
    finish(results)
