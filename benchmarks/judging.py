"""Verdicts on drops, and candidates given up early, where the true drop is known."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from statistics import NormalDist

import click
import numpy as np
from rich.console import Console

from search.expressions import parse_constraint
from search.looks import looks_at
from search.metrics import BOUNDS_LEVEL
from search.paired import ALPHA, drop_bounds
from search.tango import drop_interval, score_statistic
from search.verdicts import PROVEN, verdict
from storage import Measurement

from .bootstrapping import SCORES, errors_of_bootstrap
from .terminal import CONTEXT_SETTINGS, main_of, markdown_table, show

SIZES = (256, 500, 2000)
STAGED = (2000, 10_000)  # one look, and two
DISCORDANCES = (0.01, 0.02, 0.03, 0.05, 0.10)
LIMITS = (0.005, 0.01, 0.02)
POWER_LIMIT = 0.01
POWER_DROPS = (-0.01, 0.0, 0.005)
BEYOND = (0.0, 0.01, 0.02, 0.05, 0.10)  # of the true drop over the limit
WORST_DISCORDANCES = np.arange(0.01, 0.1001, 0.003)
SPREAD = 6  # standard deviations within which counts are enumerated


Rule = Callable[[int, int, int, float], bool]  # of losses, gains, samples and the limit


@dataclass(frozen=True, slots=True)
class Truth:
    """Of every sample: how likely the candidate loses it, and gains it.

    Args:
        discordance: Share of samples on which the two models differ.
    """

    discordance: float
    drop: float

    @property
    def rates(self) -> tuple[float, float]:
        gains = max(0.0, (self.discordance - self.drop) / 2)
        return self.discordance - gains, gains

    def draw(self, n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Losses and gains among n samples, shape (draws, 2)."""
        losses, gains = self.rates
        return rng.multinomial(n, (losses, gains, 1 - losses - gains), size=draws)[:, :2]

    def enumerated(self, n: int) -> Iterator[tuple[int, int, float]]:
        """All losses and gains among n samples that are not out of the question, and how likely
        they are."""
        losses, gains = self.rates
        logs = [math.log(p) if p else -math.inf for p in (losses, gains)]
        rest = math.log1p(-losses - gains)
        for a in _around(n, losses):
            for b in _around(n, gains):
                if a + b <= n and not (b and not gains):
                    chance = math.lgamma(n + 1) + (n - a - b) * rest
                    chance -= sum(math.lgamma(k + 1) for k in (a, b, n - a - b))
                    chance += (a * logs[0] if a else 0.0) + (b * logs[1] if b else 0.0)
                    yield a, b, math.exp(chance)


def share_proven(
    truth: Truth, n: int, limit: float, draws: int, rng: np.random.Generator
) -> float:
    """How often the drop is called proven to be within the limit."""
    found = [is_proven(*counts, n, limit) for counts in truth.draw(n, draws, rng).tolist()]
    return float(np.mean(found))


def exact_share(truth: Truth, n: int, limit: float, rule: Rule) -> float:
    """The probability that a rule calls the drop proven, summed over all counts that can be."""
    return sum(chance for a, b, chance in truth.enumerated(n) if rule(a, b, n, limit))


@cache
def is_proven(losses: int, gains: int, n: int, limit: float) -> bool:
    """The verdict of naslite, from records to the word."""
    reference, records = np.ones(n), np.ones(n)
    records[:losses] = 0
    reference[losses : losses + gains] = 0
    bounds = drop_bounds(np.mean, reference, records, higher_is_better=True, seed=0)
    assert bounds is not None
    measured = Measurement("d", (losses - gains) / n, "", *bounds, n, level=BOUNDS_LEVEL)
    return verdict(parse_constraint(f"d <= {limit!r}"), measured) == PROVEN


def is_rejected(losses: int, gains: int, n: int, limit: float, *, corrected: bool) -> bool:
    """Whether a drop of the limit and more is, which is what a bound within the limit says.

    Args:
        corrected: As naslite does; otherwise by Tango's own statistic.
    """
    quantile = NormalDist().inv_cdf(1 - ALPHA)
    return score_statistic(losses, gains, n, limit, corrected=corrected) <= -quantile


def is_proven_by_wald(losses: int, gains: int, n: int, limit: float) -> bool:
    """By the bound that most take: drop plus quantile times standard error."""
    drop = (losses - gains) / n
    error = math.sqrt((losses + gains) / n - drop * drop) / math.sqrt(n)
    return drop + NormalDist().inv_cdf(1 - ALPHA) * error <= limit


RULES: tuple[Rule, ...] = (
    partial(is_rejected, corrected=True),
    partial(is_rejected, corrected=False),
    is_proven_by_wald,
)


def given_up(
    truth: Truth, n: int, limit: float, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """How often a candidate is given up early, and the mean share of its samples that are run.

    What is run in a look is run again if it is not given up, so the share may exceed 1.
    """
    looks = looks_at(n)
    is_up = np.zeros(draws, dtype=bool)
    run = np.zeros(draws)
    counts = np.zeros((draws, 2), dtype=int)
    for look, added in zip(looks, np.diff((0, *looks)).tolist(), strict=True):
        run[~is_up] += added
        counts += truth.draw(added, draws, rng)
        low = [lower(a, b, look, ALPHA / len(looks)) for a, b in counts.tolist()]
        is_up |= np.array(low) > limit
    run[~is_up] += n
    return float(is_up.mean()), float(run.mean() / n)


@cache
def lower(losses: int, gains: int, n: int, alpha: float) -> float:
    return drop_interval(losses, gains, n, alpha)[0]


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--draws", default=2000, type=click.IntRange(1), help="Of each cell.")
@click.option("--bootstraps", default=500, type=click.IntRange(1), help="Draws of a bootstrap.")
@click.option("--seed", default=0, help="Of all draws.")
@click.option("--markdown", is_flag=True, help="Write tables of a page.")
def command(draws: int, bootstraps: int, seed: int, markdown: bool) -> None:
    """How often `proven` is wrong, how often it is said, and who is given up early."""
    rng = np.random.default_rng(seed)
    tables = [
        ("Proven wrongly, %: the true drop lies just beyond the limit", errors(draws, rng)),
        ("Bounds that miss the true drop, %, in the worst cell", worst()),
        (f"Proven, %, where the limit is {POWER_LIMIT:.0%}", powers()),
        ("Given up early", early(draws, rng)),
        ("Bounds of other scores that miss the true drop, %", bootstrapped(bootstraps, seed)),
    ]
    if not markdown:
        for title, rows in tables:
            show(rows, title)
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"`python {shlex.join(['benchmarks/verdicts.py', *sys.argv[1:]])}`")
    for title, rows in tables:
        console.print("\n".join(["", f"{title}:", "", *markdown_table(rows)]))


def errors(draws: int, rng: np.random.Generator) -> list[list[str]]:
    rows = [["samples", "limit", "discordant", "drawn", "exact", "Tango's own", "Wald"]]
    for n in SIZES:
        for limit in LIMITS:
            for discordance in DISCORDANCES:
                if discordance < limit:
                    continue
                truth = Truth(discordance, limit)
                exact = [exact_share(truth, n, limit, rule) for rule in RULES]
                drawn = share_proven(truth, n, limit, draws, rng)
                cells = [f"{100 * share:.2f}" for share in (drawn, *exact)]
                rows.append([f"{n:,}", f"{limit:.1%}", f"{discordance:.0%}", *cells])
    return rows


def powers() -> list[list[str]]:
    header = [f"true drop {drop:.1%}" for drop in POWER_DROPS]
    rows = [["samples", "discordant", *header]]
    for n in (*SIZES, STAGED[-1]):
        for discordance in DISCORDANCES:
            shares = [
                exact_share(Truth(discordance, drop), n, POWER_LIMIT, RULES[0])
                for drop in POWER_DROPS
            ]
            cells = [f"{100 * share:.0f}" for share in shares]
            rows.append([f"{n:,}", f"{discordance:.0%}", *cells])
    return rows


def worst() -> list[list[str]]:
    """The greatest error of a bound over true drops from 0 to all that is discordant."""
    rows = [["samples", "upper", "upper, Tango's own", "lower", "lower, Tango's own"]]
    for n in (256, 500, 1024, 2000):
        truths = [
            Truth(float(discordance), drop)
            for discordance in WORST_DISCORDANCES
            for drop in sorted({0.0, 0.005, 0.01, 0.02, 0.05, float(discordance)})
            if drop <= discordance
        ]
        shares = np.array([_both_errors(truth, n) for truth in truths]).max(axis=0)
        rows.append([f"{n:,}", *(f"{100 * share:.2f}" for share in shares)])
    return rows


def _both_errors(truth: Truth, n: int) -> list[float]:
    """Of the upper bound and of the lower one, each with and without the correction."""
    return [
        sum(p for a, b, p in truth.enumerated(n) if is_rejected(*side(a, b), corrected=corrected))
        for side in (
            lambda a, b: (a, b, n, truth.drop),
            lambda a, b: (b, a, n, -truth.drop),  # whoever loses where the other gains
        )
        for corrected in (True, False)
    ]


def early(draws: int, rng: np.random.Generator) -> list[list[str]]:
    header = [f"limit + {100 * beyond:.0f} points" if beyond else "limit" for beyond in BEYOND]
    rows = [["samples", "limit", "discordant", *(f"true drop = {name}" for name in header)]]
    for n in STAGED:
        for limit in LIMITS[1:]:
            for discordance in DISCORDANCES:
                if discordance < limit:
                    continue
                cells = []
                for beyond in BEYOND:
                    drop = limit + beyond
                    truth = Truth(max(discordance, drop) if beyond else discordance, drop)
                    share, run = given_up(truth, n, limit, draws, rng)
                    cells.append(f"{100 * share:.1f} % ({run:.2f})")
                rows.append([f"{n:,}", f"{limit:.1%}", f"{discordance:.0%}", *cells])
    return rows


def bootstrapped(draws: int, seed: int) -> list[list[str]]:
    rows = [["score", "samples", "true drop", "below the lower", "above the upper"]]
    for name in SCORES:
        for n in SIZES[:2]:
            below, above, drop = errors_of_bootstrap(name, n, draws, seed)
            rows.append(
                [name, f"{n:,}", f"{drop:.4f}", f"{100 * below:.1f}", f"{100 * above:.1f}"]
            )
    return rows


def _around(n: int, rate: float) -> range:
    spread = SPREAD * math.sqrt(n * rate) + SPREAD**2 / 3
    return range(max(0, int(n * rate - spread)), min(n, int(n * rate + spread)) + 1)


def main() -> None:
    main_of(command)
