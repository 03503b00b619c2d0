"""`naslite extend`."""

from __future__ import annotations

from contextlib import closing

import click

from ..config import store_url
from ..errors import NasliteError
from . import options


@click.command()
@click.argument("name")
@options.trials
@options.minutes
@options.store
def extend(name: str, trials: int | None, minutes: float | None, store: str | None) -> None:
    """Give the running study NAME a new budget; --trials and --minutes are totals."""
    if trials is None and minutes is None:
        raise NasliteError("extend needs a new total: --trials N, --minutes M, or both")
    _check_total(store_url(store), name, trials)
    options.ask(store_url(store), name, "extend", {"trials": trials, "minutes": minutes})
    totals = [f"{trials} trials"] if trials else []
    totals += [f"{minutes:g} minutes"] if minutes else []
    click.echo(f"asked {name} to search for {' and '.join(totals)} in total")


def _check_total(url: str, name: str, trials: int | None) -> None:
    from storage import Store

    with closing(Store(url, create=False)) as opened:
        begun = len(opened.trials(opened.study(name), stages=False)) - 1  # without the baseline
    if trials is not None and trials < begun:
        raise NasliteError(
            f"--trials is the new total of the study, at least the {begun} trials that have begun,"
            f" got {trials}; `naslite stop {name}` ends it"
        )
