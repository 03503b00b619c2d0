"""The toy task resolved, and candidates of it that touch every compressor."""

from __future__ import annotations

from pathlib import Path

from conftest import Workspace

from search.config import load_config, parse_config
from search.evaluation import Workbench
from search.jobs import Built
from search.prepare import Prepared, prepare
from storage import Artifact

PRUNED = {
    "structured_pruning.ratio": 0.5,
    "structured_pruning.importance": "l2",
    "structured_pruning.scope": "uniform",
    "structured_pruning.round_to": 2,
    "structured_pruning.batchnorm_batches": 50,
}
TRAINED = {
    "distillation.epochs": 1,
    "distillation.temperature": 2.0,
    "distillation.alpha": 0.9,
    "distillation.lr": 0.01,
}
QUANTIZED = {
    "onnx_quantization.scheme": "static",
    "onnx_quantization.activation": "uint8",
    "onnx_quantization.calibrator": "minmax",
    "onnx_quantization.weight_granularity": "per_channel",
    "onnx_quantization.reduce_range": False,
    "onnx_quantization.op_types": "all",
    "onnx_quantization.calibration_samples": 0,
    "onnx_quantization.granularity": "model",
}
FLOAT = {"onnx_quantization.scheme": "none"}


def prepared_toy(folder: Path) -> Prepared:
    """The toy config, resolved in a folder where its task is written."""
    config, problems = parse_config(load_config(Workspace(folder).config()))
    assert config is not None
    return prepare(config, folder, problems, "toy.yaml")


def names(built: Built) -> list[tuple[str, bool]]:
    return [(stage.name, stage.cached) for stage in built.stages]


def main_file(bench: Workbench, artifact: Artifact) -> Path:
    folder, facts = bench.artifacts.verified(artifact.sha256)
    return folder / str(facts["main"])
