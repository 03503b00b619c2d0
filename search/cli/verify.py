"""`naslite verify`."""

from __future__ import annotations

import sys

import click

from ..report import as_csv, console
from . import options


@click.command()
@click.argument("name")
@click.argument("number", type=int, required=False)
@options.store
@click.option("--front", is_flag=True, help="All rows of the front, which is the default.")
@options.format
def verify(name: str, number: int | None, store: str | None, front: bool, format: str) -> None:
    """Measure the stored files of the study NAME again: those of trial NUMBER, or of the front.

    Tells for each figure whether it agrees with the stored one, and exits with code 1 if one does
    not. Nothing is written.
    """
    from ..verification import verification_view
    from ..verify import verify as verify_study

    if front and number is not None:
        raise click.UsageError("give a NUMBER or --front, not both")
    result = verify_study(name, number, store=store, said=lambda line: click.echo(line, err=True))
    if format == "csv":
        click.echo(as_csv([row.to_json() for row in result.rows]))
    else:
        options.emit(format, result.to_json(), lambda: verification_view(result))
    if format == "table":
        out = console()
        disagreeing = [row for row in result.rows if not row.agrees]
        many = f"{len(result.rows)} row{'s' * (len(result.rows) != 1)} of {name}"
        said = f"{len(disagreeing)} disagree{'s' * (len(disagreeing) == 1)}" if disagreeing else ""
        said = said or ("all that was judged agrees" if result.unjudged else "all agree")
        if result.unjudged:
            ratios = f"{result.unjudged} ratio{'s' * (result.unjudged != 1)}"
            said += f"; {ratios} of times not judged, for other work disturbed a timing"
        out.print(f"verified {many}: {said}", soft_wrap=True)
    if not result.agrees:
        sys.exit(1)
