"""Kill it anywhere, resume it exactly: studies under SIGKILL, beside ones that nobody kills."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from databases import needs_postgres, own_postgres
from doubles import memory_folder
from kill_attack import Report, attack, untouched
from kill_study import STRATEGIES, Launcher, Setup

KILLS = 10
TRIALS = 60
QUICK = [("random", 1), ("genetic", 3)]
MATRIX = [(strategy, workers) for strategy in STRATEGIES for workers in (1, 3)]

FORGETFUL = """
from strategies.random_search import RandomSearch

class Forgetful:
    '''Counts its proposals where nobody stores them.'''

    def __init__(self):
        self.proposals = 0
        self.random = RandomSearch()

    def propose(self, view, number, rng):
        self.proposals += 1
        rng.bit_generator.advance(self.proposals)
        return self.random.propose(view, number, rng)
"""


@pytest.fixture(scope="module")
def launcher():
    with Launcher() as launcher:
        yield launcher


@pytest.fixture
def folder():
    with memory_folder() as folder:
        yield folder


def setups(folder: Path, strategy: str, workers: int, **changes) -> tuple[Setup, Setup]:
    """The same study twice."""
    found = []
    for name in ("untouched", "killed"):
        (folder / name).mkdir()
        found.append(Setup(str(folder / name), strategy, workers, **changes))
    return found[0], found[1]


def attacked(launcher: Launcher, setups: tuple[Setup, Setup], kills: int = KILLS) -> Report:
    quiet, killed = setups
    wanted = untouched(launcher, quiet)
    states = Counter(trial.state for trial in wanted.trials)
    assert len(wanted.trials) == TRIALS + 1
    assert states["complete"] > TRIALS / 2  # and others that end otherwise
    assert states["failed"] + states["refused"] >= 2
    report = attack(launcher, killed, wanted, kills, random.Random(killed.strategy))
    assert report.differences == []
    assert (report.redone, report.stuck) == (0, 0)
    assert report.kills >= kills - 2  # a study may end a moment before the last ones
    return report


@pytest.mark.parametrize(("strategy", "workers"), QUICK)
def test_a_killed_study_ends_as_if_nobody_had_killed_it(launcher, folder, strategy, workers):
    attacked(launcher, setups(folder, strategy, workers))


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "workers"), [pair for pair in MATRIX if pair not in QUICK])
def test_so_does_one_of_every_strategy(launcher, folder, strategy, workers):
    attacked(launcher, setups(folder, strategy, workers))


@needs_postgres
@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_so_does_one_on_a_server(launcher, folder, workers):
    with own_postgres() as quiet, own_postgres() as killed:
        first, second = setups(folder, "random", workers)
        attacked(launcher, (replace(first, url=quiet), replace(second, url=killed)))


def test_a_strategy_that_keeps_what_is_not_stored_is_found_out(launcher, folder):
    """The attack does find differences."""
    (folder / "forgetful.py").write_text(FORGETFUL)
    strategy = f"{folder / 'forgetful.py'}:Forgetful"
    quiet, killed = setups(folder, strategy, 1, trials=12)
    report = attack(launcher, killed, untouched(launcher, quiet), 3, random.Random(0))
    assert any("proposed" in difference for difference in report.differences)
