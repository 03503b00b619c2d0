from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import Workspace

from search import check
from search.errors import ConfigError
from search.prepare import Prepared, prepare_stored
from storage import Study


def problems(path) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check(path)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_a_config_resolves_to_a_space_of_prefixed_knobs(workspace):
    prepared = check(workspace.config())
    assert [knob.name for knob in prepared.space][:2] == [
        "structured_pruning.ratio",
        "structured_pruning.importance",
    ]
    importance = prepared.space["structured_pruning.importance"]
    assert importance.active_when is not None
    assert importance.active_when.knob == "structured_pruning.ratio"
    assert prepared.space.size == 8
    assert prepared.config.threads == 1
    assert prepared.space.baseline() == {
        "structured_pruning.ratio": 0.0,
        "distillation.epochs": 0,
        "onnx_quantization.scheme": "none",
    }
    assert list(workspace.folder.glob("naslite*")) == []  # nothing is stored


def test_objectives_default_to_the_score_and_latency(workspace):
    prepared = check(workspace.config(objectives=None))
    assert dict(prepared.config.objectives) == {
        "accuracy": "maximize",
        "latency_ratio": "minimize",
    }


def test_every_kind_of_problem_comes_at_once(workspace):
    found = problems(
        workspace.config(
            sed=1,
            task="missing.py:Toy",
            pipeline=[
                {"structured_prunning": {}},
                {"distillation": {"epochs": {"low": 5, "high": 2}, "temprature": 2, "lr": "fast"}},
                {"onnx_quantization": {"scheme": ["none", "statik"], "activation": []}},
            ],
            runtime={"name": "onnxruntim"},
            strategy={"name": "randm"},
        )
    )
    assert set(found) == {
        "sed",
        "task",
        "pipeline.0",
        "pipeline.1.distillation.epochs.high",
        "pipeline.1.distillation.temprature",
        "pipeline.1.distillation.lr",
        "pipeline.2.onnx_quantization.scheme",
        "pipeline.2.onnx_quantization.activation",
        "runtime.name",
        "strategy.name",
    }
    assert "did you mean 'structured_pruning'" in found["pipeline.0"]
    assert "did you mean 'temperature'" in found["pipeline.1.distillation.temprature"]
    assert "low=5, high=2" in found["pipeline.1.distillation.epochs.high"]
    assert "did you mean 'onnxruntime'" in found["runtime.name"]
    assert "did you mean 'random'" in found["strategy.name"]


def test_unknown_metrics_offer_the_nearest(workspace):
    found = problems(
        workspace.config(
            objectives={"acuracy": "maximize"}, constraints=["size_byte <= 3", "latency_ms <= 1"]
        )
    )
    assert set(found) == {"objectives.acuracy", "constraints.0"}
    assert "did you mean 'accuracy'" in found["objectives.acuracy"]
    assert "did you mean 'size_bytes'" in found["constraints.0"]


def test_metrics_of_further_batch_sizes_are_known(workspace):
    path = workspace.config(
        runtime={"batch_sizes": [2, 4]}, constraints=["latency_ratio_batch4 <= 2"]
    )
    assert check(path).config.runtime.batch_sizes == [2, 4]


def test_what_changes_the_model_stands_before_what_changes_the_file(workspace):
    found = problems(
        workspace.config(pipeline=[{"onnx_quantization": {}}, {"distillation": {"epochs": 1}}])
    )
    assert "must stand before 'onnx_quantization'" in found["pipeline.1"]


def test_a_pattern_is_about_the_groups_of_channels_that_it_matches(workspace):
    specs = {"scope": "group", "ratio": 0.9, "ratio@conv*": [0.0, 0.5]}
    space = check(workspace.config(pipeline=[{"structured_pruning": specs}])).space
    assert space["structured_pruning.ratio@conv1"].size == 2
    assert space["structured_pruning.ratio@stem"].size == 9


@pytest.mark.parametrize(
    ("pipeline", "first", "second"),
    [
        (["distillation", "structured_pruning", "depth_pruning"], "structured_pruning", "distill"),
        (["onnx_quantization", "weight_clustering"], "weight_clustering", "onnx_quantization"),
    ],
)
def test_compressors_stand_in_the_canonical_order(workspace, pipeline, first, second):
    found = problems(workspace.config(pipeline=pipeline))
    assert set(found) == {"pipeline.1"}
    assert f"'{first}' must stand before '{second}" in found["pipeline.1"]
    assert "first prune, then distil, then cluster, then quantize" in found["pipeline.1"]


def test_an_unknown_option_of_a_strategy_is_named(workspace):
    found = problems(workspace.config(strategy={"name": "random", "population": 3}))
    assert "unknown option 'population'" in found["strategy.population"]


def test_a_model_that_cannot_be_exported_is_a_problem_of_the_task(workspace):
    (workspace.folder / "bad.py").write_text(
        """
import numpy as np
import torch
from torch import nn
from compressors.base import Task

class Detour(nn.Module):  # leaves torch, so that exporters see a constant
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
    def forward(self, x):
        return self.linear(x) + torch.from_numpy(np.linalg.svd(x.detach().numpy())[0][:, :2])

class Bad(Task):
    def model(self): return Detour()
    def train_batches(self): return [(torch.rand(8, 4), torch.zeros(8).long())]
    calibration_batches = eval_batches = train_batches
"""
    )
    found = problems(workspace.config(task="bad.py:Bad"))
    assert found["task"].startswith("export: the exported file")


def test_a_strategy_and_a_compressor_from_a_file(workspace):
    (workspace.folder / "mine.py").write_text(
        """
import copy
from strategies.space import Float
from strategies.base import Proposal

class First:
    def __init__(self, index=0):
        self.index = index
    def propose(self, view, number, rng):
        return Proposal(view.space.at(number))

class Shrink:
    version = 1
    libraries = ("torch",)
    def knobs(self, model, task):
        return [Float(name="factor", low=0.0, high=1.0, neutral=1.0)]
    def apply(self, model, options, context):
        return copy.deepcopy(model), {}
    def replay(self, model, recipe):
        return copy.deepcopy(model)
"""
    )
    prepared = check(
        workspace.config(
            strategy={"name": "mine.py:First", "index": 2},
            pipeline=[{"mine.py:Shrink": {"factor": [0.5, 1.0]}}],
        )
    )
    assert [knob.name for knob in prepared.space] == ["Shrink.factor"]


def test_a_stop_needs_a_training_to_give_up(workspace):
    found = problems(
        workspace.config(pipeline=[{"structured_pruning": {}}], strategy="random", stop="median")
    )
    assert found == {
        "stop": "needs a compressor that trains, such as distillation, got structured_pruning"
    }
    assert check(workspace.config(stop="median")).config.stop.min_trials == 4


def stored(prepared: Prepared, **changes) -> Study:
    """A study as it is stored, with other values of its config; None leaves a key out."""
    config = {**prepared.stored_config, **changes}
    values = {
        "id": 1,
        "name": "toy",
        "config": {key: value for key, value in config.items() if value is not None},
        "space": prepared.space.to_json(),
        "task_fingerprint": prepared.loaded.fingerprint,
        "facts": prepared.facts,
    }
    return Study(**{field.name: values.get(field.name) for field in dataclasses.fields(Study)})


def test_the_device_is_resolved_once_and_stored(workspace):
    prepared = check(workspace.config(amp="bf16"))
    has_cuda = torch.cuda.is_available()
    device, amp = ("cuda", "bf16") if has_cuda else ("cpu", "none")
    assert (prepared.config.device, prepared.config.amp) == (device, amp)
    again = prepare_stored(stored(prepared))
    assert (again.config.device, again.config.amp) == (device, amp)


def test_a_study_of_before_there_was_a_choice_stays_on_the_cpu(workspace, monkeypatch):
    prepared = check(workspace.config(device="cpu"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    old = stored(prepared, device=None, amp=None, stop=None)
    assert prepare_stored(old).config.device == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_a_problem(workspace: Workspace):
    found = problems(workspace.config(device="cuda"))
    assert "finds no CUDA device" in found["device"]
    prepared = check(workspace.config())
    with pytest.raises(ConfigError, match=r"device: .*finds no CUDA device"):
        prepare_stored(stored(prepared, device="cuda"))


def test_mixed_precision_on_a_cpu_is_a_problem(workspace):
    found = problems(workspace.config(device="cpu", amp="fp16"))
    assert found == {"amp": "'fp16' is for trainings on a GPU, got `device: cpu`"}
