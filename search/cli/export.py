"""`naslite export`."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command()
@click.argument("name")
@click.argument("number", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
@options.store
def export(name: str, number: int, folder: Path, store: str | None) -> None:
    """Copy the measured files of trial NUMBER of the study NAME to FOLDER, with a manifest."""
    from ..build import open_study
    from ..export import export as export_trial

    results = open_study(name, store=store)
    export_trial(results, number, folder)
    for path in sorted(folder.iterdir()):
        click.echo(f"{path} ({path.stat().st_size} bytes)")
