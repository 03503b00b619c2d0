"""Kill it anywhere, resume it exactly: so many kills, over all strategies and numbers of workers.

Needs the repository's `tests` folder on the path, where the studies and the attack are.
"""

from __future__ import annotations

import math
import random
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import click
from kill_attack import Report, attack, untouched
from kill_study import MANY, STRATEGIES, Launcher, Setup
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from storage.database import parse_url

from .terminal import CONTEXT_SETTINGS, main_of, show

PER_STUDY = 13
SHOWN = 10
HEADER = (
    *("strategy", "workers", "kills", "worker kills"),
    *("studies", "differences", "redone", "stuck"),
)


@dataclass(slots=True)
class Total:
    """What was found for one strategy and number of workers."""

    strategy: str
    workers: int
    kills: int = 0
    worker_kills: int = 0
    studies: int = 0
    differences: int = 0
    redone: int = 0
    stuck: int = 0

    def add(self, report: Report) -> None:
        self.studies += 1
        self.kills += report.kills
        self.worker_kills += report.worker_kills
        self.differences += len(report.differences)
        self.redone += report.redone
        self.stuck += report.stuck

    def row(self) -> tuple[str, ...]:
        return tuple(str(getattr(self, name.replace(" ", "_"))) for name in HEADER)


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--kills", default=300, type=click.IntRange(1), help="In all, of sessions.")
@click.option("--seed", default=0, type=click.IntRange(0), help="Of the studies and the kills.")
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    default=tuple(STRATEGIES),
    help=f"{', '.join(STRATEGIES)}, or FILE.py:Class; several are attacked in turn.",
)
@click.option("--workers", multiple=True, default=(1, 3), type=click.IntRange(1))
@click.option("--trials", default=60, type=click.IntRange(2), help="Of each study.")
@click.option(
    "--per-study",
    type=click.IntRange(1),
    help=f"Kills of a study; default: so many that all get their share, at most {PER_STUDY}.",
)
@click.option(
    "--server",
    help="postgresql://USER@HOST/DATABASE: make a database there for each study, not a file.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the studies live, and those that differ stay; default: a temporary folder.",
)
def command(
    kills: int,
    seed: int,
    strategies: Sequence[str],
    workers: Sequence[int],
    trials: int,
    per_study: int | None,
    server: str | None,
    out: Path | None,
) -> None:
    """Kill studies at random moments, resume them, and compare with studies that nobody kills.

    A kill ends a session: it hits the controller alone, or it and its workers at once. Kills of a
    single worker come on top. Exit code 1 if anything differs.
    """
    folder = out or Path(tempfile.mkdtemp(prefix="naslite-kill-"))
    totals = {(s, w): Total(s, w) for s in strategies for w in workers}
    share = per_study or min(PER_STUDY, math.ceil(kills / len(totals)))
    began, hit = time.monotonic(), 0
    with Launcher() as launcher:
        for place, total in _in_turn(list(totals.values())):
            # Every second study with naslite's own number of attempts: see `Setup`.
            attempts = None if place % 2 else MANY
            setup = Setup(
                "", total.strategy, total.workers, trials, seed + place, attempts=attempts
            )
            home = folder / f"{Path(total.strategy).stem}-{total.workers}-{setup.seed}"
            report = _study(launcher, setup, home, min(share, kills - hit), seed, server)
            total.add(report)
            hit += report.kills
            click.echo(
                f"{hit:>4}/{kills} kills, {time.monotonic() - began:4.0f} s: {total.strategy},"
                f" workers {total.workers}, seed {setup.seed}: {report.kills} kills"
                f" and {report.worker_kills} of workers,"
                f" {len(report.differences)} differences"
            )
            if hit >= kills:
                break
    differences = sum(total.differences for total in totals.values())
    if not differences and out is None:
        shutil.rmtree(folder, ignore_errors=True)
    show([HEADER, *(total.row() for total in totals.values())])
    click.echo(f"{hit} kills, {differences} difference{'s' * (differences != 1)}")
    if differences:
        sys.exit(1)


def _in_turn(totals: Sequence[Total]) -> Iterator[tuple[int, Total]]:
    """Each with its number of studies so far, for ever."""
    for place in count():
        for total in totals:
            yield place, total


def _study(
    launcher: Launcher, setup: Setup, home: Path, kills: int, seed: int, server: str | None
) -> Report:
    """Attack one study; what it and its untouched twin leave is removed unless they differ."""
    quiet, killed = (
        replace(setup, folder=str(home / name), url=_made(server) if server else "")
        for name in ("untouched", "killed")
    )
    for each in (quiet, killed):
        Path(each.folder).mkdir(parents=True)
    wanted = untouched(launcher, quiet)
    rng = random.Random(f"{seed} {setup}")
    report = attack(launcher, killed, wanted, kills, rng)
    if not report.differences:
        shutil.rmtree(home)
        for url in filter(None, (quiet.url, killed.url)):
            _drop(url)
        return report
    for difference in report.differences[:SHOWN]:
        click.echo(difference)
    click.echo(f"kept: {killed.store} and, untouched, {quiet.store}; files and logs in {home}")
    return report


def _made(server: str) -> str:
    """The URL of a new database."""
    name = f"naslite_kill_{uuid.uuid4().hex[:12]}"
    _execute(server, f"CREATE DATABASE {name}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def _drop(url: str) -> None:
    made = make_url(url)
    server = made.set(database="postgres").render_as_string(hide_password=False)
    _execute(server, f"DROP DATABASE {made.database}")


def _execute(server: str, statement: str) -> None:
    engine = create_engine(parse_url(server), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


def main() -> None:
    main_of(command)
