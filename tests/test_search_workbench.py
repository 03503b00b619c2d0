"""Benches made from plain data: the same ones, wherever they are made."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest
import torch
from toy_bench import FLOAT, PRUNED, QUANTIZED, TRAINED, names, prepared_toy

from search.errors import ConfigError, TaskChanged
from search.timing import Timer
from search.workbench import build_spec, make_workbench, open_workbench, timing_spec
from storage.artifacts import file_stores

CANDIDATES = [
    {**PRUNED, **TRAINED, **QUANTIZED},
    {"structured_pruning.ratio": 0.0, "distillation.epochs": 0, **FLOAT},
]


@pytest.fixture
def prepared(tmp_path):
    return prepared_toy(tmp_path)


@pytest.fixture
def arguments(prepared, tmp_path):
    """What a worker is started with, from another process's pickle."""
    spec = pickle.loads(pickle.dumps(build_spec(prepared, tmp_path / "files")))
    assert spec.factory == "search.workbench:open_workbench"
    return spec.arguments


def test_a_worker_finds_what_the_bench_of_another_process_has_cached(
    prepared, arguments, tmp_path
):
    ours = make_workbench(prepared, file_stores(tmp_path / "files")).build(CANDIDATES[0])
    theirs = open_workbench(**arguments).build(CANDIDATES[0])
    assert theirs.artifact == ours.artifact
    assert all(cached for _, cached in names(theirs))
    assert [run.key for run in theirs.stages] == [run.key for run in ours.stages]


def test_a_worker_has_the_threads_of_its_study(arguments):
    before = torch.get_num_threads()
    try:
        bench = open_workbench(**{**arguments, "threads": before + 1})
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    keys = open_workbench(**arguments).stage_keys(CANDIDATES[0])
    assert bench.stage_keys(CANDIDATES[0]) != keys


def test_a_task_that_changed_while_its_study_ran_is_an_error_of_one_line(arguments, tmp_path):
    task = tmp_path / "toy_task.py"
    task.write_text(task.read_text() + "\n# edited\n")
    with pytest.raises(TaskChanged, match=r"'toy_task.py:Toy' in .* changed while its study ran"):
        open_workbench(**arguments)
    task.unlink()
    with pytest.raises(ConfigError, match=r"^study toy: task: the file .*toy_task.py does not"):
        open_workbench(**arguments)


def test_the_timer_is_made_from_plain_data_too(prepared, tmp_path):
    spec = pickle.loads(pickle.dumps(timing_spec(prepared)))
    assert spec.factory == "search.timing:Timer"
    assert len(spec.arguments["feed"]["input_0"]) == 1  # no more than the largest batch
    bench = make_workbench(prepared, file_stores(tmp_path))
    folder, facts = bench.artifacts.verified(bench.build(CANDIDATES[1]).artifact.sha256)
    (timing,) = Timer(**spec.arguments).time(folder / facts["main"], None, 0)
    assert timing.milliseconds > 0


BUILD = """
import pickle, sys
from search.workbench import open_workbench
arguments, candidates = pickle.load(sys.stdin.buffer)
bench = open_workbench(**arguments)
built = [bench.build(candidate) for candidate in candidates]
sys.stdout.buffer.write(pickle.dumps([(b, bench.score(b.artifact)) for b in built]))
"""


@pytest.mark.slow
def test_every_worker_makes_the_same_bytes(prepared, arguments, tmp_path):
    """Each with an empty cache, candidates in another order, and another environment."""
    bench = make_workbench(prepared, file_stores(tmp_path / "ours"))
    built = [bench.build(candidate) for candidate in CANDIDATES]
    expected = [(b.artifact.sha256, bench.score(b.artifact)) for b in built]
    workers = []
    for number, candidates in enumerate((CANDIDATES, CANDIDATES[::-1])):
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "OMP_NUM_THREADS": "2"}
        given = {**arguments, "files": str(tmp_path / f"files{number}")}
        worker = subprocess.Popen(
            [sys.executable, "-c", BUILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        workers.append((worker, pickle.dumps((given, candidates))))
    for position, (worker, given) in enumerate(workers):
        answer, _ = worker.communicate(given, timeout=120)
        found = pickle.loads(answer)
        assert not any(run.cached for built, _ in found for run in built.stages)
        order = 1 if position == 0 else -1
        assert [(b.artifact.sha256, scored) for b, scored in found] == expected[::order]
