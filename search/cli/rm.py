"""`naslite rm`."""

from __future__ import annotations

from contextlib import closing

import click

from ..config import store_url
from . import options


@click.command()
@click.argument("name")
@options.store
def rm(name: str, store: str | None) -> None:
    """Delete the study NAME, its logs, and the files that no other study uses."""
    from storage import Store
    from storage.database import files_folder

    from ..detach import logs_of, unused_logs

    url = store_url(store)
    with closing(Store(url, create=False)) as opened:
        artifacts = opened.remove(name)
        studies = [summary.study.name for summary in opened.studies()]
    files = files_folder(url)
    unused = set(unused_logs(files, studies))
    for log in logs_of(files, name):
        if log in unused:
            log.unlink(missing_ok=True)
    click.echo(f"removed study {name} and {len(artifacts)} artifacts")
