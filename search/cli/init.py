"""`naslite init`."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import click

from ..errors import NasliteError

TEMPLATES = ("task.py", "search.yaml")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a runnable task.py and search.yaml into FOLDER, to be changed to your model."""
    taken = [folder / name for name in TEMPLATES if (folder / name).exists()]
    if taken:
        raise NasliteError(f"{taken[0]} exists and is kept; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in TEMPLATES:
            template = files("search") / "templates" / name
            (folder / name).write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise NasliteError(f"cannot write to {folder}: {error.strerror}") from None
    config = folder / "search.yaml"
    click.echo(f"wrote {folder / 'task.py'} and {config}; try them with")
    click.echo(f"  naslite check {config}\n  naslite run {config}")
