"""`naslite run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..config import check_study_name, configured_store, load_config, store_url
from ..enqueue import load_candidates
from ..errors import NasliteError
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
@click.option(
    "--from",
    "known_from",
    metavar="NAME",
    help="A study of the same store and task: what it measured is not measured again.",
)
@options.workers
@options.detach
def run(config: Path, store: str | None, detach: bool, **given: Any) -> None:
    """Create a study from CONFIG and search until its budget is spent. Ctrl-C stops cleanly."""
    url = store or configured_store(config) or store_url(None)
    if detach:
        name = given["name"] or str(load_config(config)["study"])
        from storage.reading import check_new_study

        try:
            check_new_study(url, check_study_name(name))
        except ValueError as error:
            raise NasliteError(f"--name: {error}") from None
        options.start_detached(["run", str(config)], given, url=url, study=name)
        return
    from ..build import run as run_study

    candidates = load_candidates(given.pop("enqueue")) if given["enqueue"] else []
    with live_observer(url) as observer:
        results = run_study(
            config,
            store=url,
            **{**given, "enqueue": candidates},
            observer=observer,
        )
    finish(results)
