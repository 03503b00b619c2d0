"""`naslite enqueue`."""

from __future__ import annotations

from pathlib import Path

import click

from ..config import store_option, store_url
from ..enqueue import load_candidates, resolve
from ..errors import ConfigError, NasliteError, Problem
from . import options


@click.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@options.store
def enqueue(name: str, file: Path, store: str | None) -> None:
    """Have the study NAME evaluate the candidates in FILE next: at once if it runs, else when it
    is resumed. FILE is a JSON list of candidates, or what `best --format json` prints."""
    from storage import Store
    from strategies.space import Space

    url = store_url(store)
    opened = Store(url, create=False)
    study = opened.study(name)
    problems: list[Problem] = []
    candidates = resolve(load_candidates(file), Space.from_json(study.space), problems)
    if problems:
        raise ConfigError(str(file), problems)
    if not candidates:
        raise NasliteError(f"{file}: there is no candidate but the baseline in it")
    opened.add_request(study, "enqueue", {"candidates": candidates})
    when = "next"
    if not opened.is_live(study):
        when = f"first, once `naslite resume {name}{store_option(url)}` continues it"
    many = f"{len(candidates)} candidate{'s' * (len(candidates) != 1)}"
    click.echo(f"{name} will evaluate {many} {when}")
