"""The benchmark of timings whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import honest_timing
from benchmarks.honest_timing import BLOCKS, HEADER, MODELS, Case, main
from search.jobs import Timing
from search.runtimes.onnx_runtime import OnnxRuntime


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_one_more_block_is_5_percent_more_work(model, tmp_path):
    paths = tmp_path / "baseline.onnx", tmp_path / "more.onnx"
    work = []
    for path, blocks in zip(paths, (BLOCKS, BLOCKS + 1), strict=True):
        model.write(path, blocks)
        work.append(OnnxRuntime().inspect(path)["macs"])
        output = OnnxRuntime().load(path, threads=1)(model.feed())
        assert 1e-4 < np.abs(output).mean() < 100  # neither vanishing nor exploding
    assert work[1] / work[0] == pytest.approx(1.05)


def row(case):
    return dict(zip(HEADER, case.row(), strict=True))


def test_a_row_counts_what_is_said_and_what_is_covered(tmp_path):
    ends = [(0.9, 0.99), (0.98, 1.02), (0.99, 1.01), (1.01, 1.1)]
    timings = [Timing(1, 2.0, 1.0, low, high, 36) for low, high in ends]
    timings[0] = replace(timings[0], noisy=True)
    same = Case(MODELS[0], tmp_path, BLOCKS, timings, [1.0] * 4)
    assert row(same) == {
        "model, median of a call": f"{MODELS[0].name}, 2.000 ms",
        "against it": "its own copy",
        "timings": "4",
        "true ratio": "1.0000",
        "faster": "25.0 %",
        "slower": "25.0 %",
        "interval covers truth": "50.0 %",
        "that of two timings does": "100.0 %",
        "half-width, median": "0.0325",
        "noisy": "25.0 %",
        "seconds each, median": "1.00",
    }
    long_run = [1.04, 1.045, 1.05, 1.05, 1.055, 1.06]
    found = row(Case(MODELS[0], tmp_path, 21, timings, [1.0] * 4, long_run))
    assert found["against it"] == "21 blocks against 20"
    assert found["true ratio"].startswith("1.0500 [1.04")
    assert found["interval covers truth"] == "25.0 %"
    assert found["that of two timings does"] == "50.0 %"


@pytest.mark.slow
def test_the_benchmark_in_small():
    options = ["--model", "very small", "--same", "3", "--slower", "3", "--faster", "3"]
    options += ["--long-run", "6"]
    done = CliRunner().invoke(main, options)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("| very small")]
    assert len(rows) == 4  # three of timings, one of controls
    said = [float(cell.strip(" %|")) for cell in rows[1].split("|") if cell.endswith("% ")]
    assert len(said) == 5  # faster, slower, covered once and twice, noisy
    faster, slower, *_ = (float(cell.strip(" %")) for cell in rows[2].split("|")[5:9])
    assert "3 blocks against 20" in rows[2]
    assert (faster, slower) == (100.0, 0.0)
    assert "1 busy process of our own" in done.output


def test_busy_processes_end_with_the_block():
    with honest_timing._busy(2) as processes:
        assert [process.poll() for process in processes] == [None, None]
    assert all(process.poll() is not None for process in processes)
