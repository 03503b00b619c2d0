"""Timings whose right answer is known: a file against its copy, 5 % more work, and much less."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
import numpy as np
from rich.console import Console

from search.jobs import Control, Timing
from search.timed_rounds import Pace
from search.timing import SessionPair, Timer, time_against
from search.timing_statistics import median_interval
from search.verdicts import FASTER, SLOWER, speed
from storage import Measurement

from .terminal import CONTEXT_SETTINGS, markdown_table, show

BLOCKS = 20  # of a chain; one more is 5 % more work
FEW = 3  # so many blocks are a file that was compressed well
BUSY = "while True: sum(range(10_000))"
PART_S = 0.2  # of a part of the long run
SESSION = 40  # timings of a timing process, which begins with a control
Process = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Model:
    """A chain of equal blocks, convolution and ReLU."""

    name: str
    channels: int
    pixels: int

    def feed(self) -> dict[str, np.ndarray]:
        shape = (1, self.channels, self.pixels, self.pixels)
        return {"x": np.random.default_rng(0).normal(size=shape).astype(np.float32)}

    def write(self, path: Path, blocks: int) -> None:
        from onnx import TensorProto, helper, numpy_helper, save

        rng = np.random.default_rng(0)
        nodes, weights, last = [], [], "x"
        for i in range(blocks):
            kernel = rng.normal(size=(self.channels, self.channels, 3, 3))
            kernel *= (2 / (9 * self.channels)) ** 0.5  # so that no value vanishes or explodes
            weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"w{i}"))
            nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
            last = f"r{i}"
            nodes.append(helper.make_node("Relu", [f"c{i}"], [last]))
        shape = ["n", self.channels, self.pixels, self.pixels]
        ends = [helper.make_tensor_value_info(v, TensorProto.FLOAT, shape) for v in ("x", last)]
        graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
        opset = helper.make_opsetid("", 17)
        save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)


MODELS = (
    Model("convolutions", 16, 24),
    Model("very small", 4, 4),
    Model("long calls", 64, 48),  # which the kernel's own work cuts nearly always
)


@dataclass(slots=True)
class Case:
    """What was found of a candidate whose true ratio is known."""

    model: Model
    candidate: Path
    blocks: int
    timings: list[Timing] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    long_run: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        is_copy = self.blocks == BLOCKS
        return "its own copy" if is_copy else f"{self.blocks} blocks against {BLOCKS}"

    @property
    def ratio(self) -> float:
        return median(self.long_run) if self.long_run else 1.0

    def row(self) -> list[str]:
        said = [_said(timing) for timing in self.timings]
        n = len(said)
        covers = sum(t.low <= self.ratio <= t.high for t in self.timings)
        pairs = list(zip(self.timings[::2], self.timings[1::2], strict=False))
        twice = sum(
            min(a.low, b.low) <= self.ratio <= max(a.high, b.high) for a, b in pairs
        ) / max(1, len(pairs))
        widths = [(t.high - t.low) / 2 for t in self.timings]
        truth = f"{self.ratio:.4f}"
        if self.long_run:
            _, low, high = median_interval(self.long_run)
            truth += f" [{low:.4f}, {high:.4f}]"
        return [
            f"{self.model.name}, {median(t.milliseconds for t in self.timings):.3f} ms",
            self.name,
            str(n),
            truth,
            f"{100 * said.count(FASTER) / n:.1f} %",
            f"{100 * said.count(SLOWER) / n:.1f} %",
            f"{100 * covers / n:.1f} %",
            f"{100 * twice:.1f} %",
            f"{median(widths):.4f}",
            f"{100 * sum(t.noisy for t in self.timings) / n:.1f} %",
            f"{median(self.seconds):.2f}",
        ]


HEADER = ["model, median of a call", "against it", "timings", "true ratio", "faster", "slower"]
HEADER += ["interval covers truth", "that of two timings does"]  # as rows of a front have it
HEADER += ["half-width, median", "noisy", "seconds each, median"]


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--model", "names", multiple=True, type=click.Choice([m.name for m in MODELS]), help="All."
)
@click.option("--same", default=400, type=click.IntRange(1), help="Timings against a copy.")
@click.option("--slower", default=200, type=click.IntRange(1), help="Of 5 % more work.")
@click.option("--faster", default=100, type=click.IntRange(0), help="Of a much smaller file.")
@click.option("--long-run", default=100, type=click.IntRange(6), help="Parts of each.")
@click.option("--busy", default=1, type=click.IntRange(0), help="Processes that keep cores busy.")
def main(
    names: tuple[str, ...], same: int, slower: int, faster: int, long_run: int, busy: int
) -> None:
    """Time a file against its own copy, a file of 5 % more work and one of much less, as a search
    does, with other cores busy: how often is it called faster or slower, and does the interval
    hold the true ratio? That of a copy is 1, that of another file is taken in a long run, by turns
    with the rest.
    """
    console = Console(stderr=True)
    rows, controls = [HEADER], [["model", "controls", "excluding 1", "noise floor, median"]]
    loads = []
    with tempfile.TemporaryDirectory(prefix="naslite-honesty-") as scratch, _busy(busy):
        for model in [m for m in MODELS if not names or m.name in names]:
            console.print(f"{model.name} ...")
            counts = same, slower, faster
            cases, found = _measure(model, Path(scratch), counts, long_run)
            rows += [case.row() for case in cases]
            outside = sum(not c.low <= 1 <= c.high for c in found)
            floor = f"{median(c.noise_floor for c in found):.4f}"
            controls.append([model.name, str(len(found)), str(outside), floor])
            loads += [c.load for c in found]
    show(rows, "timings whose answer is known")
    click.echo(f"`python {shlex.join(sys.argv)}`\n")
    click.echo(
        f"{os.cpu_count()} cores, load average {min(loads):.1f} to {max(loads):.1f},"
        f" {busy} busy process{'es' * (busy != 1)} of our own.\n"
    )
    click.echo("\n".join(markdown_table(rows)) + "\n")
    click.echo("\n".join(markdown_table(controls)) + "\n")


def _measure(
    model: Model, folder: Path, counts: Sequence[int], long_run: int
) -> tuple[list[Case], list[Control]]:
    names = "baseline", "copy", "more", "less"
    baseline, copy, more, less = (folder / f"{name}.onnx" for name in names)
    model.write(baseline, BLOCKS)
    shutil.copy(baseline, copy)
    model.write(more, BLOCKS + 1)
    model.write(less, FEW)
    cases = [
        Case(model, copy, BLOCKS),
        Case(model, more, BLOCKS + 1),
        Case(model, less, FEW),
    ]
    rng = np.random.default_rng(0)
    turns = rng.permutation(np.repeat(np.arange(len(cases)), counts))
    controls: list[Control] = []
    pace = Pace()  # of the long run, which the timings are not to know of
    for turn, which in enumerate(turns):
        if turn % SESSION == 0:
            timer = Timer("onnxruntime", ".", 1, [1], model.feed(), footprints=False)
            controls += _control(timer, copy, baseline)
        case = cases[which]
        began = time.perf_counter()
        case.timings += timer.time(case.candidate, baseline, turn)
        case.seconds.append(time.perf_counter() - began)
        for known, count in zip(cases[1:], counts[1:], strict=True):
            while count and len(known.long_run) * len(turns) < (turn + 1) * long_run:
                known.long_run.append(_part(timer, model, known.candidate, baseline, rng, pace))
    return [case for case, count in zip(cases, counts, strict=True) if count], controls


def _control(timer: Timer, copy: Path, baseline: Path) -> list[Control]:
    (timing,) = timer.time(copy, baseline, 0)
    return [] if timing.control is None else [timing.control]


def _part(
    timer: Timer, model: Model, path: Path, baseline: Path, rng: np.random.Generator, pace: Pace
) -> float:
    """The ratio of a short timing that is not noisy; after ten, of one that is."""
    for _ in range(10):
        pair = SessionPair(timer.loader(path), timer.loader(baseline), rng)
        found = time_against(pair, model.feed(), 1, rng, seconds=PART_S, pace=pace)
        if not found.noisy:
            break
    return found.ratio


def _said(timing: Timing) -> str:
    return speed(Measurement("latency_ratio", timing.ratio, "", timing.low, timing.high))


@contextmanager
def _busy(processes: int) -> Iterator[list[Process]]:
    command = [sys.executable, "-c", BUSY]
    # In sessions of their own: a scheduler that groups by session gives each its share of a core.
    started = [subprocess.Popen(command, start_new_session=True) for _ in range(processes)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
