"""What tests of quantization share: files to begin with, and what stands in others."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from assets.toy_task import toy_task
from onnx import helper, numpy_helper
from torch import nn

from compressors.base import Context, Task
from compressors.quantization import OnnxQuantization
from compressors.testing import ArtifactCompressorContract
from compressors.training import seeded
from search.runtimes.onnx_runtime import OnnxRuntime

DYNAMIC = {"scheme": "dynamic", "reduce_range": False, "granularity": "model"}
STATIC = {
    "scheme": "static",
    "activation": "uint8",
    "calibrator": "minmax",
    "weight_granularity": "per_channel",
    "reduce_range": False,
    "op_types": "all",
    "calibration_samples": 0,
    "granularity": "model",
}
WEIGHT_ONLY = {"scheme": "weight_only", "bits": 8, "block_size": 32, "granularity": "model"}
FLOAT16 = {"scheme": "float16"}
CALIBRATORS = ["minmax", "percentile", "entropy"]


class ToyFileContract(ArtifactCompressorContract):
    """The contract on the toy task's exported file; `make` and options are to be supplied."""

    def task(self) -> Task:
        return toy_task()

    @pytest.fixture
    def artifact(self, toy_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return Path(shutil.copy(toy_file, tmp_path_factory.mktemp("source")))

    def load(self, path: Path) -> object:
        return OnnxRuntime().load(path, threads=1)


def applied(path: Path, options: dict[str, Any], task: Task, workdir: Path) -> Path:
    """The file quantized, in a folder that is made for it; tensors are named by the quantizers."""
    workdir.mkdir()
    with patch("compressors.short_names.shorten_names"):
        return OnnxQuantization().apply(path, options, Context(task, task.model, 0, workdir))


def initializers(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def nodes(path: Path) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in onnx.load(path).graph.node}


def literal_outputs(path: Path, feed: dict[str, np.ndarray], *names: str) -> list[np.ndarray]:
    """What the file says of outputs, or of tensors inside it, without fused kernels: those for
    uint8 saturate on some CPUs."""
    model = onnx.load(path)
    if names:
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    outputs: list[np.ndarray] = session.run(None, feed)
    return outputs


def product_file(
    folder: Path, *, size: int, out: int = 0, dtype: type = np.float32, matrix: Any = None
) -> Path:
    """A file of one matrix product: x (batch, size) times a matrix (size, out or size)."""
    if matrix is None:
        matrix = np.random.default_rng(0).normal(size=(size, out or size)).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"], "layer/MatMul")],
        "product",
        [helper.make_tensor_value_info("x", kind, ["batch", size])],
        [helper.make_tensor_value_info("y", kind, ["batch", matrix.shape[1]])],
        [numpy_helper.from_array(matrix, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


class Text(nn.Module):
    """Takes (batch, length) token numbers: an embedding, two linear layers on every token, and a
    third one on their mean."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.first = nn.Linear(width, 2 * width)
        self.second = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.second(torch.relu(self.first(self.embedding(tokens))))
        output: torch.Tensor = self.head(torch.relu(hidden).mean(1))
        return output


def text_model() -> Text:
    with seeded(0):
        return Text().eval()


def text_file(model: nn.Module, folder: Path) -> Path:
    """A file of a text model whose batch size and length are both free."""
    from search.runtimes.onnx_graph import tidy

    path = folder / "model.onnx"
    example = torch.zeros(2, 5, dtype=torch.int64)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of itself
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=(free,),
            verbose=False,
            external_data=False,
        )
    tidy(path)
    return path


def text_batches(*shapes: tuple[int, int]) -> list[tuple[torch.Tensor, None]]:
    """Batches of (samples, length) random tokens."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randint(20, shape, generator=generator), None) for shape in shapes]
