"""`naslite replay`."""

from __future__ import annotations

import sys

import click

from . import options

SHOWN = 10


@click.command()
@click.argument("name")
@options.store
def replay(name: str, store: str | None) -> None:
    """Check that the strategy of the study NAME proposes again what is stored.

    Prints each difference in a line and exits with code 1 if there are any.
    """
    from ..replay import replay as replay_study

    result = replay_study(name, store=store)
    differences, many = result.differences, len(result.differences)
    for difference in differences[:SHOWN]:
        click.echo(str(difference))
    if many > SHOWN:
        click.echo(f"and {many - SHOWN} more difference{'s' * (many > SHOWN + 1)}")
    what = f"replayed {result.proposals} proposals of {name}"
    if not many:
        click.echo(f"{what}: all equal")
        return
    click.echo(f"{what}: {many} difference{'s' * (many > 1)}")
    if result.budget_changed:
        click.echo(
            "the budget of this study was changed since it was created (`resume --trials`):"
            " a strategy that looks at its budget then proposes otherwise"
        )
    sys.exit(1)
