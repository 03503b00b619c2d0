"""What becomes of each architecture of the zoo: pruned, exported, quantized to int8, run.

Needs the repository's `tests` folder on the path, where the architectures are.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import zoo

from compressors.arrays import named_arrays
from search.evaluation import Workbench
from search.jobs import Built, Scored
from search.runtimes.base import Session

from .benching import open_workbench
from .terminal import CONTEXT_SETTINGS, main_of, markdown_table, show

RATIO = 0.3
LEAST_LOST = 0.1  # of the parameters
INT8 = {"onnx_quantization.scheme": "static", "onnx_quantization.reduce_range": True}
MOST_ERROR = 0.5  # of int8; a constant, the mean of all outputs, would be off by 1
HEADER = ["model", "parameters", "left", "size, fp32", "size, int8", "int8 error", "result"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How far an architecture came.

    Args:
        parameters: In the exported file, before and after pruning.
        size_ratio: Bytes of the pruned file to those of the file before.
        int8_ratio: Likewise, of the pruned and quantized file.
        int8_error: By how much quantizing changes the pruned file's outputs (root mean square),
            relative to the standard deviation of the outputs between samples.
        refusal: The stage that did not go through, and its reason; "" if all did.
    """

    name: str
    parameters: tuple[int, ...] = ()
    size_ratio: float = float("nan")
    int8_ratio: float = float("nan")
    int8_error: float = float("nan")
    refusal: str = ""

    @property
    def lost(self) -> float:
        """The share of the parameters that pruning removed."""
        return 1 - self.parameters[-1] / self.parameters[0]

    @property
    def goes_through(self) -> bool:
        return not self.problem

    @property
    def problem(self) -> str:
        """Why it does not go through; "" if it does."""
        if self.refusal:
            return self.refusal
        if self.lost < LEAST_LOST:
            return f"loses less than {LEAST_LOST:.0%} of its parameters"
        is_far_off = self.int8_error > MOST_ERROR
        return "int8 is off by more than half of what samples differ by" if is_far_off else ""

    def row(self) -> list[str]:
        if self.refusal:
            before = f"{self.parameters[0]:,}" if self.parameters else ""
            return [self.name, before, "", "", "", "", self.refusal]
        before, after = self.parameters
        return [
            self.name,
            f"{before:,} -> {after:,}",
            f"{1 - self.lost:.2f}",
            f"{self.size_ratio:.2f}",
            f"{self.int8_ratio:.2f}",
            f"{self.int8_error:.3f}",
            self.problem or "yes",
        ]


def cover(name: str, pruning: Mapping[str, Any], files: Path) -> Coverage:
    """Take an architecture through the stages of a trial: pruned, exported, static int8.

    Args:
        pruning: Options of structured pruning.
        files: A folder for cached stages and artifacts.
    """
    bench = _bench(name, {key: [value] for key, value in pruning.items()}, files)
    prune = {f"structured_pruning.{key}": value for key, value in pruning.items()}
    before, pruned, quantized = (
        bench.build(bench.space.complete(candidate))
        for candidate in ({}, prune, {**prune, **INT8})
    )
    known: tuple[int, ...] = ()
    for built in (before, pruned, quantized):
        if built.artifact is None:
            return Coverage(name, known, refusal=f"{built.state}: {built.cause}")
        known += (int(_scored(bench, built).parameters),)
    sizes = [built.artifact.size_bytes for built in (before, pruned, quantized) if built.artifact]
    return Coverage(
        name,
        known[:2],
        sizes[1] / sizes[0],
        sizes[2] / sizes[0],
        _error(bench, _session(bench, pruned), _session(bench, quantized)),
    )


def _bench(name: str, pruning: Mapping[str, Any], files: Path) -> Workbench:
    options = {**pruning, "ratio": [0.0, *pruning["ratio"]]}
    pipeline = [
        {"structured_pruning": options},
        {"onnx_quantization": {"scheme": ["none", "static"], "reduce_range": [False, True]}},
    ]
    return open_workbench(
        "zoo.py:Zoo", Path(zoo.__file__).parent, pipeline, files, {"model": name}
    )


def _scored(bench: Workbench, built: Built) -> Scored:
    """Runs the file on the whole search split: outputs that are not finite raise."""
    assert built.artifact is not None
    return bench.score(built.artifact)


def _session(bench: Workbench, built: Built) -> Session:
    assert built.artifact is not None
    folder, facts = bench.artifacts.verified(built.artifact.sha256)
    return bench.runtime.load(folder / str(facts["main"]), threads=1)


def _error(bench: Workbench, wanted: Session, given: Session) -> float:
    outputs: list[list[np.ndarray]] = [[], []]
    for batch in bench.loaded.task.eval_batches():
        inputs = bench.loaded.task.inputs(batch)
        for session, found in zip((wanted, given), outputs, strict=True):
            found.append(session(named_arrays(inputs, session.input_names)))
    expected, actual = (np.concatenate(found) for found in outputs)
    spread = float((expected - expected.mean(0)).std())
    return float(np.sqrt(np.mean((actual - expected) ** 2))) / spread


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--model", "names", multiple=True, type=click.Choice(list(zoo.MODELS)), help="Default: all."
)
@click.option("--ratio", default=RATIO, type=click.FloatRange(0, 0.95, min_open=True))
@click.option("--scope", default="uniform", help="Of structured pruning, as is the ratio.")
def command(names: tuple[str, ...], ratio: float, scope: str) -> None:
    """Take architectures with random weights through the stages of a trial: structured pruning,
    export with its check of parity, static int8 (weights of 7 bits, whose products saturate on no
    CPU); and run what comes out."""
    found = []
    for name in names or zoo.MODELS:
        click.echo(f"{name} ...", err=True)
        with tempfile.TemporaryDirectory(prefix="naslite-coverage-") as files:
            found.append(cover(name, {"ratio": ratio, "scope": scope}, Path(files)))
    rows = [HEADER, *(coverage.row() for coverage in found)]
    show(rows, "architectures with random weights")
    through = sum(coverage.goes_through for coverage in found)
    click.echo(f"`python {shlex.join(sys.argv)}`\n")
    click.echo(f"{through} of {len(found)} go through.\n")
    click.echo("\n".join(markdown_table(rows)))


def main() -> None:
    main_of(command)
