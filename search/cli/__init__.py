"""The command line: a thin layer over the Python API, one file per verb."""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from ..errors import NasliteError
from ..registry import unknown_name

# Verb -> "module:command", in the order in which the help lists them.
VERBS = {
    "init": "search.cli.init:init",
    "check": "search.cli.check:check",
    "run": "search.cli.run:run",
    "resume": "search.cli.resume:resume",
    "stop": "search.cli.stop:stop",
    "extend": "search.cli.extend:extend",
    "enqueue": "search.cli.enqueue:enqueue",
    "logs": "search.cli.logs:logs",
    "ls": "search.cli.ls:ls",
    "trials": "search.cli.trials:trials",
    "show": "search.cli.show:show",
    "best": "search.cli.best:best",
    "report": "search.cli.report:report",
    "replay": "search.cli.replay:replay",
    "verify": "search.cli.verify:verify",
    "export": "search.cli.export:export",
    "rm": "search.cli.rm:rm",
    "db": "search.cli.db:db",
}

INTERRUPTED = 130


class Verbs(click.Group):
    """Loads a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        import importlib

        if name not in VERBS:
            return None
        module, _, attribute = VERBS[name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(unknown_name("verb", args[0], VERBS))
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="naslite", prog_name="naslite")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Search for the best compressed versions of a trained PyTorch model.

    Every row of the result is a real file that was measured on this machine.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """The `naslite` command. Exit code 0, 2 for an error of the user, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _show_notices()
    try:
        with suppress(io.UnsupportedOperation):  # standard error may be no file
            faulthandler.enable()  # a task that crashes Python leaves a traceback
        from storage import StoreError  # here: Ctrl-C may come while it loads
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        cli.main(given, prog_name="naslite", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message())
    except (NasliteError, StoreError) as error:
        if "--debug" in given:
            raise
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def _show_notices() -> None:
    """Let what naslite's own loggers tell come on standard error, where Python has warnings."""
    logging.getLogger("naslite").setLevel(logging.INFO)
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.INFO)


def _fail(message: str) -> None:
    for line in message.splitlines() or ["unknown error"]:
        click.echo(f"naslite: {line}", err=True)
    sys.exit(2)
