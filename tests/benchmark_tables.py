"""Small tables and strategies that the tests of the benchmark write and run."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strategies.base import Exhausted, Proposal, View

# One knob, four rows. Alone, the baseline 0 spans (40-10)*(10-8) = 60; with 1, 60+(40-12)*(8-4)
# = 172; with 2, 172+(40-20)*(4-2) = 212, which is the whole front; 3 is dominated.
TINY = "x,err,size\n0,10,8\n1,12,4\n2,20,2\n3,30,9\n"
TINY_YAML: dict[str, Any] = {
    "path": "tiny.csv",
    "knobs": {"x": {"neutral": 0}},
    "objectives": {
        "err": {"goal": "min", "reference": 40},
        "size": {"goal": "min", "reference": 10},
    },
}

WIDTHS = (8, 16, 24, 32, 40)
KINDS = ("plain", "residual", "dense")
GRID_YAML: dict[str, Any] = {
    "title": "a grid with holes",
    "path": "grid.csv.gz",
    "knobs": {"width*": {"neutral": 40}, "kind": {"neutral": "plain", "ordered": False}},
    "derived": {"err": "100 - acc"},
    "objectives": {"err": {"goal": "min", "reference": 60}, "size": "min"},
    "noise": {"acc": ["acc_0", "acc_1", "acc_2"]},
}


def problem_file(folder: Path, content: dict[str, Any], name: str = "problem") -> Path:
    """A problem file; JSON is YAML."""
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content))
    return path


def tiny(folder: Path, **changes: Any) -> Path:
    (folder / "tiny.csv").write_text(TINY)
    return problem_file(folder, {**TINY_YAML, **changes}, "tiny")


def grid_rows() -> list[dict[str, Any]]:
    """70 of 75 candidates; the dense ones of width0 24 are refused."""
    rng = np.random.default_rng(7)
    rows = []
    for width0, width1, kind in itertools.product(WIDTHS, WIDTHS, KINDS):
        if (width0, kind) == (24, "dense"):
            continue
        quality = np.log(width0) + 0.5 * np.log(width1) + 0.2 * KINDS.index(kind)
        drawn = 40 + 10 * quality + rng.normal(0, 1.5, 3)
        acc = [round(float(value), 3) for value in drawn]
        rows.append(
            {
                "width0": width0,
                "width1": width1,
                "kind": kind,
                "acc": sum(acc) / 3,
                **{f"acc_{i}": value for i, value in enumerate(acc)},
                "size": width0 * width1 + 50 * KINDS.index(kind),
            }
        )
    return rows


def grid(folder: Path, **changes: Any) -> Path:
    rows = grid_rows()
    with gzip.open(folder / "grid.csv.gz", "wt", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return problem_file(folder, {**GRID_YAML, **changes}, "grid")


def swept_hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The area below a reference in two objectives, by a sweep of our own."""
    area, height = 0.0, reference[1]
    for x, y in sorted(map(tuple, points)):
        if x < reference[0] and y < height:
            area += (reference[0] - x) * (height - y)
            height = y
    return area


class Scripted:
    """Proposes the values of the knob x in turn and records its views."""

    def __init__(self, values: Sequence[int] = (), waits: Sequence[int] = ()) -> None:
        self.values = values
        self.waits = waits
        self.views: list[View] = []

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal | None:
        self.views.append(view)
        if number > len(self.values):
            raise Exhausted("the script is over")
        if number in self.waits and view.pending:
            return None
        memo = {"number": number, "pair": (1, 2)}
        return Proposal({"x": self.values[number - 1]}, memo, {f"seen{number}": len(view.done)})
