"""`naslite run`."""

from __future__ import annotations

from pathlib import Path

import click

from ..config import configured_store, store_url
from ..enqueue import load_candidates
from . import options
from .live import finish, live_observer


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the study, instead of the config's.")
@options.store
@options.trials
@options.minutes
@click.option("--seed", type=click.IntRange(min=0), help="Instead of the config's seed.")
@options.enqueue
def run(
    config: Path,
    name: str | None,
    store: str | None,
    trials: int | None,
    minutes: float | None,
    seed: int | None,
    enqueue: Path | None,
) -> None:
    """Create a study from CONFIG and search until its budget is spent. Ctrl-C stops cleanly."""
    from ..build import run as run_study

    candidates = load_candidates(enqueue) if enqueue else []
    url = store or configured_store(config) or store_url(None)
    with live_observer(url) as observer:
        results = run_study(
            config,
            name=name,
            store=url,
            trials=trials,
            minutes=minutes,
            seed=seed,
            enqueue=candidates,
            observer=observer,
        )
    finish(results)
