"""The demo does what the README says: a search over digits, and a file that stands on its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from search import open_study
from search.export import export
from search.results import Row, StudyResults
from strategies.space import Space

pytestmark = pytest.mark.slow

CONFIG = REPOSITORY / "configs" / "digits.yaml"
TRAINED = ("structured_pruning.", "distillation.")

# Only onnxruntime, numpy, and scikit-learn for the data: the split is that of configs/digits.py.
REPRODUCE = """
import os, sys
import numpy as np, onnxruntime
from sklearn.datasets import load_digits
digits = load_digits()
rows = np.random.default_rng(0).permutation(len(digits.images))[1028:1428]
session = onnxruntime.InferenceSession("model.onnx")
images = (digits.images[rows, None] / 16).astype(np.float32)
name = session.get_inputs()[0].name
# In batches of the search's size: dynamic quantization looks at all of a batch.
batches = [images[i : i + 32] for i in range(0, len(images), 32)]
logits = np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
print((logits.argmax(1) == digits.target[rows]).mean(), os.path.getsize("model.onnx"))
assert not {"torch", "search"} & set(sys.modules)
"""


def run_demo(folder: Path, *options: str) -> StudyResults:
    """With one thread, for other tests run beside it, which slow more threads down many times."""
    content = yaml.safe_load(CONFIG.read_text())
    task = CONFIG.with_name(content["task"].partition(":")[0])
    config, store = folder / "digits.yaml", f"sqlite:///{folder / 'naslite.db'}"
    config.write_text(yaml.safe_dump({**content, "task": f"{task}:Digits", "threads": 1}))
    program = [sys.executable, "-c", "from search.cli import main; main()"]
    subprocess.run(
        [*program, "run", str(config), "--store", store, *options], check=True, capture_output=True
    )
    return open_study("digits", store=store)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> StudyResults:
    return run_demo(tmp_path_factory.mktemp("demo"))


def trained_prefix(row: Row) -> str:
    candidate = row.trial.candidate
    return json.dumps({k: v for k, v in candidate.items() if k.startswith(TRAINED)})


def test_every_candidate_is_measured_and_the_baseline_is_good(demo):
    rows = demo.rows()
    assert len(rows) >= 41
    assert {row.trial.state for row in rows} == {"complete"}
    assert rows[0].metrics["accuracy"] >= 0.985


def test_each_training_prefix_is_trained_once(demo):
    space = Space.from_json(demo.study.space)
    assert space.size is not None
    every = {
        tuple((k, v) for k, v in space.at(i).items() if k.startswith(TRAINED))
        for i in range(space.size)
    }
    assert len(every) >= 12
    trained = [
        stage.key
        for row in demo.rows()
        for stage in row.trial.stages
        if stage.name == "distillation" and not stage.cached
    ]
    proposed = {trained_prefix(row) for row in demo.rows()[1:]}
    assert len(trained) == len(set(trained)) == len(proposed)


def good_rows(results: StudyResults) -> list[Row]:
    baseline = results.baseline()
    assert baseline is not None
    tenth = baseline.metrics["size_bytes"] / 10
    return [
        row
        for row in results.front()
        if row.metrics["size_bytes"] <= tenth
        and row.metrics["latency_ratio"] <= 0.25
        and row.metrics["accuracy_drop"] <= 0.01
    ]


def test_the_front_holds_a_file_a_tenth_the_size_and_a_quarter_the_time(demo):
    assert good_rows(demo)


def test_the_exported_file_gives_the_stored_score_without_us(demo, tmp_path):
    row = good_rows(demo)[0]
    folder = export(demo, row.number, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", REPRODUCE], cwd=folder, check=True, capture_output=True, text=True
    )
    accuracy, size = done.stdout.split()
    assert float(accuracy) == row.metrics["accuracy"]
    assert int(size) == row.metrics["size_bytes"]


def test_without_the_cache_the_same_figures_come_out(demo, tmp_path: Path):
    again = run_demo(tmp_path, "--trials", "5")

    def table(results: StudyResults) -> list[tuple]:
        return [
            (
                row.number,
                dict(row.trial.candidate),
                row.metrics["accuracy"],
                row.metrics["size_bytes"],
                row.trial.artifact.sha256 if row.trial.artifact else None,
            )
            for row in results.rows()[:6]
        ]

    assert table(again) == table(demo)


def test_the_splits_share_no_image():
    from search.registry import load_reference

    rows = load_reference("digits.py:Digits", CONFIG.parent)().rows
    indices = [set(part.tolist()) for part in rows.values()]
    assert len(set().union(*indices)) == sum(map(len, indices)) == 1797
    assert list(rows) == ["train", "calibration", "search", "audit"]
