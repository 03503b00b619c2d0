"""A small run of benchmarks/verdicts.py: what it says of verdicts and of giving up early."""

from __future__ import annotations

import math

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.judging import (
    RULES,
    Truth,
    command,
    exact_share,
    given_up,
    is_proven,
    share_proven,
)

OURS, TANGO, WALD = RULES
AT_LIMIT = [
    (n, discordance, limit)
    for n in (256, 500)
    for discordance in (0.01, 0.02, 0.05, 0.1)
    for limit in (0.005, 0.01, 0.02)
    if limit <= discordance
]


@pytest.mark.parametrize(("n", "discordance", "limit"), [*AT_LIMIT, (2000, 0.01, 0.01)])
def test_at_most_one_in_twenty_is_proven_wrongly(n, discordance, limit):
    assert exact_share(Truth(discordance, limit), n, limit, OURS) <= 0.051


def test_walds_bound_proves_far_more_wrongly():
    assert exact_share(Truth(0.02, 0.02), 256, 0.02, WALD) > 0.1
    assert exact_share(Truth(0.01, 0.01), 500, 0.01, WALD) > 0.1


@pytest.mark.parametrize(("discordance", "limit"), [(0.01, 0.005), (0.03, 0.01), (0.1, 0.02)])
def test_drawn_records_are_proven_as_often_as_enumerated_counts(discordance, limit):
    rng, truth, draws = np.random.default_rng(0), Truth(discordance, limit), 2000
    drawn = share_proven(truth, 256, limit, draws, rng)
    exact = exact_share(truth, 256, limit, OURS)
    assert abs(drawn - exact) <= 4 * math.sqrt(exact * (1 - exact) / draws)
    assert drawn <= 0.055


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (0, 3), (4, 1), (9, 9), (12, 0)])
@pytest.mark.parametrize("limit", [0.005, 0.01, 0.03])
def test_a_bound_is_within_the_limit_where_the_test_rejects_it(counts, limit):
    assert is_proven(*counts, 500, limit) == OURS(*counts, 500, limit)


def test_much_is_proven_where_nothing_was_lost():
    assert exact_share(Truth(0.01, 0.0), 2000, 0.01, OURS) > 0.99
    assert exact_share(Truth(0.05, 0.0), 2000, 0.01, OURS) > 0.5


def test_all_counts_are_enumerated():
    assert sum(p for *_, p in Truth(0.05, 0.01).enumerated(500)) == pytest.approx(1, abs=1e-9)
    assert sum(p for *_, p in Truth(0.02, 0.02).enumerated(256)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("n", [2000, 10_000])
@pytest.mark.parametrize("discordance", [0.02, 0.05, 0.1])
def test_few_within_the_limit_are_given_up_and_most_far_beyond_it(n, discordance):
    rng, limit = np.random.default_rng(0), 0.02
    wrongly, run = given_up(Truth(discordance, limit), n, limit, 2000, rng)
    assert wrongly <= 0.05
    assert 1 <= run <= 1.2
    rightly, run = given_up(Truth(0.15, 0.12), n, limit, 2000, rng)
    assert rightly > 0.95
    assert run < 0.25


@pytest.mark.slow
def test_the_command_writes_its_tables():
    done = CliRunner().invoke(command, ["--draws", "2", "--bootstraps", "2", "--markdown"])
    assert done.exit_code == 0, done.output
    for part in ("| samples | limit ", "| score | samples |", "| F1 | 256 |"):
        assert part in done.output
