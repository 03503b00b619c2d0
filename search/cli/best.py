"""`naslite best`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..report import console, rows_view
from . import options

if TYPE_CHECKING:
    from ..results import StudyResults


MOST_SHOWN = 100  # rows of a table: laying out more takes longer than finding them


@click.command()
@click.argument("name")
@options.store
@click.option(
    "--where",
    metavar="EXPRESSION",
    help='All rows that meet it, such as "accuracy_drop <= 0.01 and size_bytes < 2e5",'
    " instead of the front.",
)
@click.option(
    "--sort",
    metavar="METRIC",
    help="Best first; default: the first objective that is not the score.",
)
@click.option(
    "--objectives",
    metavar="OBJECTIVES",
    help='The front under others than the study\'s, such as "accuracy: max, macs: min", among'
    " the rows that meet --where.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"At most so many rows; default: {MOST_SHOWN} in a table, else all.",
)
@click.option(
    "--explain",
    type=int,
    metavar="NUMBER",
    help="Compare trial NUMBER with the baseline and its nearest neighbours on the front.",
)
@options.format
def best(
    name: str,
    store: str | None,
    where: str | None,
    sort: str | None,
    objectives: str | None,
    limit: int | None,
    explain: int | None,
    format: str,
) -> None:
    """Print the front of the study NAME, or the rows that answer another question.

    Where nothing meets the limits, the rows that come nearest, and which limit binds.
    """
    from ..build import open_study
    from ..shipped import damage
    from ..standing import about_answer

    results = open_study(name, store=store)
    if explain is not None:
        if where or sort or objectives or limit:
            raise click.UsageError("--explain stands alone, without --where, --sort, --limit")
        _explain(format, results, explain)
        return
    limit = limit or (MOST_SHOWN if format == "table" else None)
    answer = results.answer(where=where, sort=sort, limit=limit, objectives=objectives)
    rows, lines = answer.rows, about_answer(results, answer)
    damaged = damage(results, rows)
    for number, text in damaged.items():
        click.echo(f"warning: files of trial {number} are damaged: {text}", err=True)
    which = f" where {where}" if where else ""
    front = f" on the front of {objectives}" if objectives else " on the front"
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    if len(rows) < answer.found:
        count = f"{len(rows)} of {answer.found:,} rows"
        lines.append(f"{answer.found - len(rows):,} more rows: --limit {answer.found} shows all")
    title = f"{count} of {name}{which}{front if objectives or not where else ''}"
    if answer.ranking.nearest is not None:
        title = f"{count} of {name} that come nearest"
    if format != "table":
        for line in lines:
            click.echo(line, err=True)
    options.emit(
        format,
        [{**row.to_json(), "damage": damaged.get(row.number, "")} for row in rows],
        lambda: rows_view(
            results,
            rows,
            title=title,
            width=console().width,
            more=answer.question.metrics,
            marked=damaged,
        ),
    )
    if format == "table":
        out = console()
        for line in lines:
            out.print(line, soft_wrap=True)


def _explain(format: str, results: StudyResults, number: int) -> None:
    from ..explain import explain, explanation_view, lines_of

    explained = explain(results, number)
    records = lines_of(explained) if format == "csv" else explained.to_json()
    options.emit(format, records, lambda: explanation_view(explained))
