"""`naslite report`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ..errors import NasliteError
from . import options


@click.command()
@click.argument("name")
@options.store
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write it; default: standard output.",
)
@click.option(
    "--format",
    "format",
    type=click.Choice(["html", "md"]),
    help="Default: md where FILE ends in .md, else html (one file of 5 MB, figures included).",
)
def report(name: str, store: str | None, output: Path | None, format: str | None) -> None:
    """Write a report on the study NAME: front, verdicts, figures, costs, failures, machine."""
    from ..build import open_study
    from ..shipped import damage
    from ..standing import about_answer
    from ..study_report import study_report

    is_markdown = format == "md" or (
        format is None and output is not None and output.suffix == ".md"
    )
    if output is None and not is_markdown and is_terminal():
        raise NasliteError(
            "a report in HTML is 5 MB, too much for a terminal;"
            f" `naslite report {name} -o report.html` writes it to a file"
        )
    results = open_study(name, store=store)
    damaged = damage(results, results.front())
    for number, text in damaged.items():
        click.echo(f"warning: files of trial {number} are damaged: {text}", err=True)
    notes = [f"Files of trial {number} are damaged: {text}." for number, text in damaged.items()]
    notes += about_answer(results, results.answer())
    found = study_report(results, notes)
    if is_markdown:
        from ..report_markdown import markdown_report

        text = markdown_report(found)
    else:
        from ..report_html import html_report

        text = html_report(found)
    if output is None:
        click.echo(text, nl=False)
        return
    write(output, text)
    click.echo(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")


def is_terminal() -> bool:
    return sys.stdout.isatty()


def write(path: Path, text: str) -> None:
    """Write a file whole: what was there before stays if that fails.

    Raises:
        NasliteError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise NasliteError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
