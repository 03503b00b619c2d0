"""The published tables, where they are here."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from benchmark_tables import swept_hypervolume
from conftest import REPOSITORY

from benchmarks.catalogue import load_problem
from benchmarks.problem import hypervolume_of, true_front
from strategies.space import candidate_key


def data_folder() -> Path:
    given = os.environ.get("NASLITE_BENCH_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data" / "tables"
    if not folder.is_dir():
        pytest.skip("the published tables are not here; set NASLITE_BENCH_DATA to their folder")
    return folder


# Facts that were published with the tables: front rows, distinct points, and the hypervolume
# after scaling each objective to [0, 1] with (1, 1) as the reference.
@pytest.mark.parametrize(
    ("name", "facts", "columns"),
    [
        ("macro-flops", "nas_bench_macro", ("mean_acc", "flops")),
        ("macro-params", "nas_bench_macro", ("mean_acc", "params")),
        ("nats-flops", "nats_bench_sss", ("test_acc_90ep", "flops")),
        ("nats-params", "nats_bench_sss", ("test_acc_90ep", "params")),
        ("cora-latency", "nas_bench_graph_cora", ("valid_perf", "latency_s")),
    ],
)
def test_the_published_fronts_are_found_again(name, facts, columns):
    folder = data_folder()
    record = json.loads((folder / f"{facts}.fronts.json").read_text())
    wanted = [f"max {columns[0]}", f"min {columns[1]}"]
    (front,) = [f for f in record["fronts"] if f["objectives"] == wanted]
    problem = load_problem(name, folder, Path("unused"))
    rows = problem.evaluator
    values = np.stack([rows.metrics[name] for name in problem.objectives], axis=1)
    assert len(values) == front["n_points"]
    found = true_front(values)
    assert len(found) == front["front_distinct_vectors"]
    assert {tuple(values[row]) for row in front["front_rows"]} == {tuple(row) for row in found}
    low, high = values.min(axis=0), values.max(axis=0)
    scaled = hypervolume_of((found - low) / (high - low), (1.0, 1.0))
    key = "hypervolume_minmax_normalised_ref_1_1"
    assert scaled == pytest.approx(front[key], rel=1e-9)
    assert problem.hypervolume == pytest.approx(swept_hypervolume(found, problem.reference))
    baseline = problem.exact(problem.space.baseline())
    assert math.isfinite(baseline.values[0])
    assert candidate_key(problem.space.baseline()) == candidate_key(problem.space.origin())
