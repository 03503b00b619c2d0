"""Options that several verbs share, and the output of the verbs that read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ..config import store_option
from ..detach import STORE_VARIABLE
from ..errors import NasliteError
from ..report import as_csv, as_json, console

store = click.option(
    "--store",
    metavar="URL",
    envvar=STORE_VARIABLE,
    help="Database of studies; default: NASLITE_STORE, else sqlite:///naslite.db.",
)
format = click.option(
    "--format",
    "format",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="How to print.",
)
trials = click.option("--trials", type=click.IntRange(min=1), help="Total trials of the study.")
minutes = click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), help="Total minutes of work."
)
enqueue = click.option(
    "--enqueue",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON list of candidates, or what `best --format json` prints: evaluated first, after"
    " the config's own `enqueue`.",
)
workers = click.option("--workers", type=click.IntRange(min=1), help="Trials built at a time.")
detach = click.option(
    "--detach",
    is_flag=True,
    help="Search on in the background, whatever becomes of this shell; see `naslite logs`.",
)


def start_detached(
    arguments: Sequence[str], given: Mapping[str, Any], *, url: str, study: str
) -> None:
    """Run a verb in the background, and say how to watch and to end it.

    Args:
        given: Values of options by parameter; None = not given.
    """
    from ..detach import StillRunning, start

    words = [*arguments]
    for name, value in given.items():
        if value is not None:
            words += [f"--{name.removeprefix('known_')}", str(value)]

    def begun(process: int, log: Path) -> None:
        click.echo(f"{study} begins in the background as process {process}; its log is {log}")

    at = store_option(url)
    try:
        process = start(words, url=url, study=study, begun=begun)
    except StillRunning as interrupted:
        click.echo(
            f"study {study} goes on in the background as process {interrupted.process};"
            f" `naslite stop {study}{at}` ends it once it has begun,"
            f" `kill {interrupted.process}` at any time",
            err=True,
        )
        raise
    if process is None:
        click.echo(f"study {study} has ended; `naslite best {study}{at}` shows its front")
        return
    click.echo(f"study {study} runs")
    click.echo(f"`naslite logs {study} -f{at}` follows it, `naslite stop {study}{at}` ends it")


def ask(url: str, name: str, kind: str, payload: Mapping[str, Any]) -> None:
    """Leave a request for the controller of a running study.

    Raises:
        NasliteError: It is not running.
    """
    from storage import Store

    with closing(Store(url, create=False)) as opened:
        study = opened.study(name)
        if not opened.is_live(study):
            given = [
                f" --{key} {value:g}" for key, value in payload.items() if value and key != "now"
            ]
            totals = "".join(given)
            raise NasliteError(
                f"study {name!r} is not running (it is {study.state}); nothing was asked."
                f" `naslite resume {name}{totals}{store_option(url)}` continues it"
            )
        opened.add_request(study, kind, payload)


def emit(
    format: str, records: Sequence[Mapping[str, Any]] | Mapping[str, Any], table: Callable[[], Any]
) -> None:
    """Print records as JSON or CSV, or what `table` gives."""
    if format == "json":
        click.echo(as_json(records))
    elif format == "csv":
        click.echo(as_csv([records] if isinstance(records, Mapping) else records))
    else:
        console().print(table())
