"""Timing loaded artifacts, and the bench that does it in a process of its own."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from assets.toy_models import Masked, MaskedByBranches

from search import timing
from search.measure import timing_feed
from search.runtimes.onnx_runtime import OnnxRuntime
from search.timing import Timer

FEED = {"x": np.zeros((8, 4))}


class Burner:
    """A session that multiplies matrices as often as it is told, or at random up to that."""

    def __init__(self, products=40, *, steady=True, input_name="x"):
        self.products = products
        self.steady = steady
        self.input_names = [input_name]
        self.calls = 0
        self.fed = set()
        self._matrix = np.eye(48, dtype=np.float32)
        self._rng = np.random.default_rng(0)

    def __call__(self, feed):
        self.calls += 1
        self.fed.update(feed)
        count = self.products if self.steady else self._rng.integers(1, self.products + 1)
        for _ in range(count):
            self._matrix @ self._matrix


def timed(candidate, baseline, seed=0):
    return timing.time_against(candidate, baseline, FEED, 8, np.random.default_rng(seed))


def test_a_slower_candidate_has_a_greater_ratio():
    found = timed(Burner(80), Burner(40))
    assert found.ratio > 1.3
    assert found.low <= found.ratio <= found.high
    assert found.low > 1


def test_a_faster_candidate_has_a_smaller_ratio():
    found = timed(Burner(40), Burner(80))
    assert found.ratio < 1 / 1.3
    assert found.low <= found.ratio <= found.high < 1


def test_a_timing_says_what_was_timed(monkeypatch):
    monkeypatch.setattr(timing, "MAX_SECONDS", 1e9)
    found = timed(Burner(), Burner())
    assert found.batch_size == 8
    assert found.milliseconds > 0
    assert timing.MIN_BLOCKS <= found.blocks <= timing.MAX_BLOCKS


def test_each_file_is_fed_under_its_own_input_names():
    candidate, baseline = Burner(input_name="images"), Burner(input_name="input_0")
    feed = {"images": np.zeros((8, 4))}
    timing.time_against(candidate, baseline, feed, 8, np.random.default_rng(0))
    assert (candidate.fed, baseline.fed) == ({"images"}, {"input_0"})


def test_short_calls_are_repeated_until_a_block_can_be_timed(monkeypatch):
    monkeypatch.setattr(timing, "WARM_UP_S", 1e-9)  # one call
    candidate = Burner(1)
    found = timed(candidate, Burner(1))
    assert candidate.calls > 10 * found.blocks


def test_timing_stops_at_the_greatest_number_of_blocks(monkeypatch):
    monkeypatch.setattr(timing, "HALF_WIDTH", 0.0)
    monkeypatch.setattr(timing, "MAX_SECONDS", 1e9)
    monkeypatch.setattr(timing, "MAX_BLOCKS", 25)
    assert timed(Burner(40, steady=False), Burner(10)).blocks == 25


def test_timing_stops_when_it_is_sure_enough(monkeypatch):
    monkeypatch.setattr(timing, "HALF_WIDTH", float("inf"))
    monkeypatch.setattr(timing, "MAX_SECONDS", 1e9)
    assert timed(Burner(40, steady=False), Burner(10)).blocks == timing.MIN_BLOCKS


def test_timing_stops_when_it_is_late(monkeypatch):
    monkeypatch.setattr(timing, "HALF_WIDTH", 0.0)
    monkeypatch.setattr(timing, "MAX_SECONDS", 0.0)
    assert timed(Burner(40, steady=False), Burner(10)).blocks == timing.FEW_BLOCKS


def test_the_baseline_is_as_fast_as_itself():
    found = timing.time_baseline(Burner(), FEED, 8)
    assert (found.low, found.ratio, found.high) == (1.0, 1.0, 1.0)
    assert found.milliseconds > 0


NOTES = """
import json
from pathlib import Path

class Notes:
    \"\"\"A runtime that writes down what it is asked for, beside the files that it loads.\"\"\"

    def load(self, path, *, threads):
        return Session(Path(path), threads)

class Session:
    input_names = ["x"]

    def __init__(self, path, threads):
        self.path = path
        self.note("load", threads)

    def __call__(self, feed):
        if getattr(self, "size", None) != len(feed["x"]):
            self.size = len(feed["x"])
            self.note("feed", self.size)

    def note(self, *entry):
        with (self.path.parent / "notes").open("a") as notes:
            notes.write(json.dumps([self.path.name, *entry]) + chr(10))
"""


@pytest.fixture
def noted(tmp_path):
    """A timer of two batch sizes, and a function that gives what its runtime was asked for."""
    (tmp_path / "notes.py").write_text(NOTES)
    feed = {"input_0": np.zeros((3, 2))}

    def notes():
        found = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
        (tmp_path / "notes").unlink()
        return found

    return Timer("notes.py:Notes", str(tmp_path), 2, [4, 2], feed), notes


def test_a_timer_times_every_batch_size_against_the_baseline(noted, tmp_path):
    timer, notes = noted
    timings = timer.time(tmp_path / "candidate", tmp_path / "baseline", 0)
    assert [found.batch_size for found in timings] == [4, 2]
    assert notes() == [
        ["candidate", "load", 2],
        ["baseline", "load", 2],
        ["candidate", "feed", 4],
        ["baseline", "feed", 4],
        ["candidate", "feed", 2],
        ["baseline", "feed", 2],
    ]


def test_the_session_of_the_baseline_is_kept_until_another_baseline_comes(noted, tmp_path):
    timer, notes = noted

    def loaded(path, baseline):
        timer.time(tmp_path / path, tmp_path / baseline, 0)
        return [name for name, event, _ in notes() if event == "load"]

    assert loaded("a", "baseline") == ["a", "baseline"]
    assert loaded("b", "baseline") == ["b"]
    assert loaded("c", "other") == ["c", "other"]
    assert loaded("d", "baseline") == ["d", "baseline"]


def test_the_baseline_itself_is_timed_alone(noted, tmp_path):
    timer, notes = noted
    timings = timer.time(tmp_path / "baseline", None, 0)
    assert [(found.batch_size, found.ratio) for found in timings] == [(4, 1.0), (2, 1.0)]
    assert [entry for entry in notes() if entry[1] == "load"] == [["baseline", "load", 2]]


def test_a_timer_says_when_it_begins(noted, tmp_path):
    began = []
    noted[0].time(
        tmp_path / "baseline", None, 0, progress=lambda stage, ended: began.append((stage, ended))
    )
    assert began == [("measure", ())]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two models of two positional inputs each, whose files call them differently."""
    folder = tmp_path_factory.mktemp("timed")
    inputs = torch.ones(2, 4), torch.zeros(2, 4)
    paths = [folder / "plain.onnx", folder / "branches.onnx"]
    for model, path in zip((Masked(), MaskedByBranches()), paths, strict=True):
        OnnxRuntime().export(model.eval(), inputs, path)
    return paths, timing_feed(inputs)


def test_positional_inputs_are_given_in_order_to_files_with_other_names(files):
    (path, baseline), feed = files
    timer = Timer("onnxruntime", ".", 1, [1, 3], feed)
    assert [found.batch_size for found in timer.time(path, baseline, 0)] == [1, 3]
    assert all(found.milliseconds > 0 for found in timer.time(path, None, 0))


def test_a_file_that_takes_other_inputs_is_an_error(files):
    (path, _), feed = files
    timer = Timer("onnxruntime", ".", 1, [1], {"input_0": feed["input_0"]})
    with pytest.raises(ValueError, match=r"inputs\(\) gives 1 tensors"):
        timer.time(path, None, 0)


def test_the_process_of_a_timer_loads_neither_torch_nor_the_store(files):
    (path, baseline), feed = files
    arguments = {
        "runtime": "onnxruntime",
        "folder": ".",
        "threads": 1,
        "batch_sizes": [1, 2],
        "feed": feed,
    }
    program = """
import importlib, pickle, sys
from pathlib import Path
module, _, name = "search.timing:Timer".partition(":")
arguments, *paths = pickle.load(sys.stdin.buffer)
timer = getattr(importlib.import_module(module), name)(**arguments)
found = timer.time(*paths, 7)
heavy = {"torch", "onnx", "sqlalchemy", "storage", "alembic", "optuna", "pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "onnxruntime" in sys.modules
sys.stdout.buffer.write(pickle.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps((arguments, path, baseline)),
        capture_output=True,
        check=True,
    )
    timings = pickle.loads(done.stdout)
    assert [found.batch_size for found in timings] == [1, 2]
    for found in timings:
        assert 0 < found.low <= found.ratio <= found.high
