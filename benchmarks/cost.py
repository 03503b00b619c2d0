"""The time of one proposal at many visible trials, all strategies interleaved in one run."""

from __future__ import annotations

import gc
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import Progress

from search.errors import NasliteError
from search.expressions import Comparison
from search.goals import Goals
from strategies.space import Candidate, Choice, Int, Space

from .contestants import PEER, Contestant
from .peers import PEERS, POPULATION, OptunaPlayer
from .problem import Problem
from .race import OurPlayer
from .terminal import CONTEXT_SETTINGS, main_of, markdown_table, show

DEFAULTS = (
    "random",
    "{name: greedy, step: best}",
    "{name: greedy, step: once}",
    "genetic",
    f"{{name: optuna, sampler: nsgaii, population_size: {POPULATION}}}",
    f"{PEER}optuna-nsgaii",
    "tpe",
    f"{PEER}optuna-tpe",
)
LATE = "greedy"  # what is timed again after the end of its path, on a study that ends it early
COLD = 3  # fresh objects that make the first, cold proposal; the median of them counts


@dataclass(frozen=True, slots=True)
class Layerwise:
    """A ratio of five steps and one of three schemes for every layer.

    Errors are sensitivity * ratio^2 and a penalty of the scheme; sizes are linear in both.
    """

    sensitivity: np.ndarray[tuple[int], np.dtype[np.float64]]

    def exact(self, candidate: Candidate) -> Mapping[str, float]:
        values = list(candidate.values())
        ratios = np.array(values[0::2], dtype=float) / 4
        schemes = np.array([SCHEMES.index(str(scheme)) for scheme in values[1::2]])
        error = float(self.sensitivity @ (ratios**2 + np.array([0.0, 0.1, 0.3])[schemes]))
        size = float(((1 - 0.8 * ratios) * np.array([1.0, 0.5, 0.25])[schemes]).mean())
        return {"err": error, "size": size}

    def measured(self, candidate: Candidate, seed: int, visit: int) -> Mapping[str, float]:
        return self.exact(candidate)


SCHEMES = ("none", "dynamic", "static")


def layerwise_problem(knobs: int, *, narrow: bool = False) -> Problem:
    """A study of `knobs` knobs, half of them ordered; its true front is not known.

    Args:
        narrow: One objective, the size, and a limit on the error that bars all but a step in each
            of the two least sensitive layers: a greedy path soon ends there.
    """
    layers = knobs // 2
    space: list[Int | Choice] = []
    for i in range(layers):
        space.append(Int(name=f"ratio@layer{i}", low=0, high=4, neutral=0, direction=1))
        space.append(Choice(name=f"scheme@layer{i}", values=SCHEMES, neutral="none"))
    sensitivity = np.exp(np.random.default_rng(0).standard_normal(layers)) / layers
    goals, reference = {"size": "minimize"}, (1.02,)
    limits: tuple[Comparison, ...] = ()
    if narrow:
        limits = (Comparison("err", "<=", float(np.sort(sensitivity)[:2].sum() / 16)),)
    else:
        goals = {"err": "minimize", **goals}
        reference = (2 * layers * float(sensitivity.sum()), *reference)
    return Problem(
        name=f"layerwise-{knobs}" + "-narrow" * narrow,
        title=f"{knobs} knobs",
        space=Space(space),
        goals=Goals(goals, limits),
        reference=reference,
        hypervolume=1.0,
        quality="err",
        evaluator=Layerwise(sensitivity),
    )


@dataclass(slots=True)
class Clocked:
    """A contestant in the middle of its own study, and what its proposals took, in ms.

    Args:
        label: Of its row.
    """

    label: str
    contestant: Contestant
    problem: Problem
    player: OurPlayer | OptunaPlayer
    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)

    def step(self) -> float:
        """One more trial; the ms that its proposal took."""
        before = self.player.seconds
        candidate = self.player.ask()
        self.player.tell(candidate, self.problem.measured(candidate, 0, 0))
        return 1000 * (self.player.seconds - before)

    def cold_step(self) -> float:
        """The first proposal after a restart, in ms; it leaves the study as it is."""
        if isinstance(self.player, OurPlayer):
            other: OurPlayer | OptunaPlayer = self.player.resumed(self.contestant.strategy())
        else:
            other = self.player.resumed()
        other.ask()
        return 1000 * other.seconds


def measure(
    contestants: Sequence[Contestant],
    knobs: int,
    trials: int,
    repetitions: int,
    progress: Progress,
) -> list[Clocked]:
    """Let each play its own study of `trials` trials, then time all of them by turns."""
    broad, narrow = layerwise_problem(knobs), layerwise_problem(knobs, narrow=True)
    cases = [(contestant, contestant.label, broad) for contestant in contestants]
    for contestant in contestants:
        if contestant.name == LATE:
            cases.append((contestant, f"{contestant.label}, after its path", narrow))
    clocked = []
    for contestant, label, problem in cases:
        player = contestant.player(problem, budget=trials + max(repetitions, COLD) + 1, seed=0)
        assert isinstance(player, OurPlayer | OptunaPlayer)
        clocked.append(Clocked(label, contestant, problem, player))
    for one in clocked:
        label = f"{knobs} knobs, history of {one.label}"
        for _ in progress.track(range(trials), description=label):
            one.step()
    gc.collect()
    for repetition in range(max(repetitions, COLD)):
        for one in clocked:
            if repetition < COLD:
                one.cold.append(one.cold_step())
            if repetition < repetitions:
                one.warm.append(one.step())
    return clocked


def plain(contestant: Contestant) -> str:
    """The peer that is the same sampler of Optuna; "" if there is none."""
    if contestant.name not in ("optuna", "tpe", "gp"):
        return ""
    default = "tpe" if contestant.name == "optuna" else contestant.name
    name = f"optuna-{contestant.options.get('sampler', default)}"
    return PEER + name if name in PEERS else ""


def table(measured: Mapping[int, Sequence[Clocked]]) -> list[list[str]]:
    """Header and rows: warm and cold ms per number of knobs, and the ratio to the plain peer."""
    header = ["strategy"]
    for knobs in measured:
        header += [f"{knobs} knobs: ms", "of plain", "first, cold"]
    rows = [header]
    for same in zip(*measured.values(), strict=True):
        row = [same[0].label]
        for one, clocked in zip(same, measured.values(), strict=True):
            warm = {other.contestant.name: float(np.median(other.warm)) for other in clocked}
            low, median, high = np.quantile(one.warm, [0.25, 0.5, 0.75])
            peer = warm.get(plain(one.contestant))
            row.append(f"{median:.2f} ({low:.2f} to {high:.2f})")
            row.append(f"{median / peer:.2f}x" if peer else "")
            row.append(f"{np.median(one.cold):.2f}")
        rows.append(row)
    return rows


def markdown(rows: Sequence[Sequence[str]], trials: int, repetitions: int, command: str) -> str:
    lines = [
        "# Cost of a proposal",
        "",
        f"    {command}",
        "",
        f"Milliseconds of one proposal at {trials:,} visible trials, two objectives, one thread:"
        f" median and quartiles of {repetitions} proposals in a row, each after the outcome of the"
        " one before; all strategies by turns. Each has played all trials before itself."
        " `of plain`: relative to the peer, Optuna's own study in memory with a kept sampler and"
        f" `ask`. `first, cold`: a new object on the same trials, median of {COLD}."
        " `after its path`: greedy on a study of one objective, the size, with a limit on the"
        " error that ends its path early, so that all that is timed begins anew.",
        "",
    ]
    return "\n".join([*lines, *markdown_table(rows)]) + "\n"


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--strategy", "texts", multiple=True, help="As of strategies.py; default: all.")
@click.option("--knobs", multiple=True, default=(20, 200), type=click.IntRange(2), help="Even.")
@click.option("--trials", default=1000, type=click.IntRange(1), help="Visible trials.")
@click.option("--repetitions", default=30, type=click.IntRange(1), help="Timed proposals of each.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("build/benchmark/proposal_cost.md"),
    help="The Markdown to write.",
)
def command(
    texts: tuple[str, ...], knobs: tuple[int, ...], trials: int, repetitions: int, out: Path
) -> None:
    """Time one proposal of every strategy late in a study."""
    contestants = [Contestant.parse(text) for text in texts or DEFAULTS]
    for contestant in contestants:
        reasons = contestant.problems(layerwise_problem(2))
        if reasons or contestant.name.startswith(f"{PEER}pymoo"):
            why = reasons[0] if reasons else "it proposes whole generations"
            raise NasliteError(f"{contestant.label} cannot be timed: {why}")
    began = time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        measured = {
            count: measure(contestants, count, trials, repetitions, progress) for count in knobs
        }
    rows = table(measured)
    said = shlex.join(["python", "benchmarks/proposal_cost.py", *sys.argv[1:]])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(rows, trials, repetitions, said), encoding="utf-8")
    show(rows)
    click.echo(f"written: {out}, after {time.perf_counter() - began:.0f} s")


def main() -> None:
    main_of(command)
