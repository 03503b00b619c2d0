"""Affine 8-bit rounding: what ONNX Runtime writes and computes, against numpy to the last bit."""

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf, conv_net
from assets.toy_task import toy_task
from onnx_files import (
    FLOAT16,
    STATIC,
    WEIGHT_ONLY,
    applied,
    initializers,
    literal_outputs,
    nodes,
    operators,
    product_file,
    text_batches,
    text_file,
    text_model,
)
from torch import nn

from compressors.base import Refused
from compressors.training import seeded
from search.runtimes.onnx_graph import count_work
from search.runtimes.onnx_runtime import OnnxRuntime


@pytest.fixture(scope="module")
def toy():
    return toy_task()


def quantizers(path, op_type):
    """Of each such node with constants behind its first input: tensor, output, scale, zero."""
    arrays = initializers(path)
    return [
        (node.input[0], node.output[0], arrays[node.input[1]], arrays[node.input[2]])
        for node in nodes(path).values()
        if node.op_type == op_type
    ]


def test_activations_are_rounded_as_numpy_does_it(toy, toy_file, tmp_path):
    """uint8, one scale and zero point for the whole tensor, ties to even."""
    path = applied(toy_file, STATIC, toy, tmp_path / "work")
    feed = {"images": toy.eval_batches()[0][0].numpy()}
    found = quantizers(path, "QuantizeLinear")
    assert len(found) > 5
    for tensor, output, scale, zero in found:
        assert zero.dtype == np.uint8
        real, stored = literal_outputs(path, feed, tensor, output)
        expected = np.clip(np.rint(real / scale) + np.float32(zero), 0, 255).astype(np.uint8)
        np.testing.assert_array_equal(stored, expected)


def test_scales_of_activations_come_from_the_whole_range_and_hold_zero(toy, toy_file, tmp_path):
    path = applied(toy_file, STATIC, toy, tmp_path / "work")
    images = np.concatenate([images for images, _ in toy.calibration_batches()])
    low, high = min(images.min(), 0), max(images.max(), 0)
    arrays = initializers(path)
    scale, zero = arrays["images_scale"], arrays["images_zero_point"]
    assert scale == np.float32((np.float64(high) - np.float64(low)) / 255)
    assert zero == np.rint(-low / scale)


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("layer", ["stem", "conv1", "conv2"])
@pytest.mark.parametrize("steps", [254, 128])
def test_weights_are_rounded_as_numpy_does_it(toy, toy_file, tmp_path, granularity, layer, steps):
    """int8, symmetric; what the file unpacks is the rounded weight to the last bit."""
    options = {**STATIC, "weight_granularity": granularity, "reduce_range": steps == 128}
    path = applied(toy_file, options, toy, tmp_path / "work")
    weights = initializers(toy_file)[f"{layer}.weight"]
    axes = (1, 2, 3) if granularity == "per_channel" else (0, 1, 2, 3)
    largest = np.abs(weights).max(axes, keepdims=True)
    scale = (largest.astype(np.float64) * 2 / steps).astype(np.float32)
    level = np.rint(weights / scale).clip(-steps // 2, steps // 2)
    expected = (level * scale).astype(np.float32)
    feed = {"images": toy.eval_batches()[0][0].numpy()}
    (unpacked,) = literal_outputs(path, feed, f"{layer}.weight_DequantizeLinear_Output")
    np.testing.assert_array_equal(unpacked, expected)
    np.testing.assert_array_equal(initializers(path)[f"{layer}.weight_scale"], scale.squeeze())


def unpacked_blocks(stored, scales, zeros, bits, size):
    """The matrix (inputs, outputs) of a MatMulNBits, padded to whole blocks."""
    outputs, blocks, _ = stored.shape
    if bits == 4:
        stored = np.stack([stored & 15, stored >> 4], -1)
        zeros = np.stack([zeros & 15, zeros >> 4], -1).reshape(outputs, -1)[:, :blocks]
    levels = stored.reshape(outputs, blocks, size).astype(np.float32)
    shifted = levels - zeros.reshape(outputs, blocks, 1).astype(np.float32)
    return (shifted * scales.reshape(outputs, blocks, 1)).reshape(outputs, -1).T


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block_size", [16, 32, 128])
def test_blocks_are_rounded_as_numpy_does_it(tmp_path, bits, block_size):
    """Asymmetric, one scale and zero point for each block of an output's weights."""
    inputs, outputs = 80, 6  # the last block is not whole
    path = product_file(tmp_path, size=inputs, out=outputs)
    matrix = initializers(path)["weight"]
    options = {**WEIGHT_ONLY, "bits": bits, "block_size": block_size}
    quantized = applied(path, options, TaskOf(None), tmp_path / "work")
    assert operators(quantized) == ["MatMulNBits"]
    arrays = initializers(quantized)
    scales = arrays["weight_scales"]
    unpacked = unpacked_blocks(
        arrays[f"weight_Q{bits}"], scales, arrays["weight_zero_points"], bits, block_size
    )[:inputs]
    blocks = -(-inputs // block_size)
    padded = np.pad(matrix, ((0, blocks * block_size - inputs), (0, 0)))
    groups = padded.T.reshape(outputs, blocks, block_size)
    low, high = np.minimum(groups.min(2), 0), np.maximum(groups.max(2), 0)
    scale = (high - low) / np.float32(2**bits - 1)
    np.testing.assert_allclose(scales.reshape(outputs, blocks), scale, rtol=1e-6)
    half = scales.reshape(outputs, blocks).repeat(block_size, 1).T[:inputs] / 2
    # Half a step by rounding, and at the ends what rounding the zero point adds.
    assert (np.abs(unpacked - matrix) <= 2 * half * 1.001).all()
    assert (np.abs(unpacked - matrix) <= half * 1.001).mean() > 0.9
    x = np.random.default_rng(1).normal(size=(5, inputs)).astype(np.float32)
    session = OnnxRuntime().load(quantized, threads=1)
    np.testing.assert_allclose(session({"x": x}), x @ unpacked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 4])
def test_linear_layers_are_covered_whether_exported_as_gemm_or_as_product(tmp_path, bits):
    model = text_model()
    path = text_file(model, tmp_path)
    assert sorted(o for o in operators(path) if o in ("Gemm", "MatMul")) == [
        "Gemm",
        "MatMul",
        "MatMul",
    ]
    options = {**WEIGHT_ONLY, "bits": bits}
    quantized = applied(path, options, TaskOf(model), tmp_path / "work")
    assert operators(quantized).count("MatMulNBits") == 3
    assert not {"Gemm", "MatMul"} & set(operators(quantized))
    ((tokens, _),) = text_batches((3, 7))
    session = OnnxRuntime().load(quantized, threads=1)
    expected = model(tokens).detach().numpy()
    error = np.linalg.norm(session({session.input_names[0]: tokens.numpy()}) - expected)
    assert 0 < error < (0.02 if bits == 8 else 0.3) * np.linalg.norm(expected)
    arrays, before = initializers(quantized), initializers(path)
    assert not [name for name in arrays if name in ("head.weight", "head.weight_transposed")]
    assert sum(a.nbytes for a in arrays.values()) < sum(a.nbytes for a in before.values())
    assert count_work(quantized) == count_work(path)


def test_few_bits_make_a_file_of_large_matrices_small(tmp_path):
    path = product_file(tmp_path, size=256)
    sizes = {}
    for bits in (8, 4):
        options = {**WEIGHT_ONLY, "bits": bits, "block_size": 64}
        result = applied(path, options, TaskOf(None), tmp_path / f"bits {bits}")
        sizes[bits] = result.stat().st_size / path.stat().st_size
    assert 0.25 < sizes[8] < 0.28  # a scale and a zero point for each 64 weights
    assert 0.125 < sizes[4] < 0.15


def test_float16_holds_rounded_weights_and_computes_in_float(toy, toy_file, tmp_path):
    path = applied(toy_file, FLOAT16, toy, tmp_path / "work")
    before, after = initializers(toy_file), initializers(path)
    weights = {name for name in before if name.endswith(".weight")}
    assert {f"{name}_float16" for name in weights} <= set(after)
    for name in weights:
        np.testing.assert_array_equal(after[f"{name}_float16"], before[name].astype(np.float16))
    images = toy.eval_batches()[0][0].numpy()
    (output,) = literal_outputs(path, {"images": images})
    assert output.dtype == np.float32
    (expected,) = literal_outputs(toy_file, {"images": images})
    assert 0 < np.abs(output - expected).max() < 5e-3 * np.abs(expected).max()
    assert count_work(path) == count_work(toy_file)
    assert path.stat().st_size < 0.7 * toy_file.stat().st_size


def test_float16_halves_a_file_of_weights(tmp_path):
    path = product_file(tmp_path, size=128)
    result = applied(path, FLOAT16, TaskOf(None), tmp_path / "work")
    assert result.stat().st_size < 0.51 * path.stat().st_size


def test_float16_keeps_constants_that_would_take_more_room_with_a_cast(toy, toy_file, tmp_path):
    path = applied(toy_file, FLOAT16, toy, tmp_path / "work")
    assert initializers(path)["classifier.bias"].dtype == np.float32


@pytest.mark.parametrize(
    ("value", "reason"),
    [(1e5, r"float16 ends at 65504, and 'weight' has greater weights"), (np.inf, None)],
)
def test_weights_beyond_float16_are_refused(tmp_path, value, reason):
    matrix = np.ones((32, 32), np.float32)
    matrix[3, 4] = value
    path = product_file(tmp_path, size=32, matrix=matrix)
    if reason is None:  # it was infinite before
        result = applied(path, FLOAT16, TaskOf(None), tmp_path / "work")
        assert np.isinf(initializers(result)["weight_float16"]).sum() == 1
        return
    with pytest.raises(Refused, match=reason):
        applied(path, FLOAT16, TaskOf(None), tmp_path / "work")


def test_float16_without_weights_worth_it_is_refused(tmp_path):
    path = product_file(tmp_path, size=2)
    with pytest.raises(Refused, match="no float32 weights that are worth a Cast"):
        applied(path, FLOAT16, TaskOf(None), tmp_path / "work")


def test_op_types_say_which_operators_are_quantized(toy, toy_file, tmp_path):
    rounded = {}  # the operators whose outputs are
    for op_types in ("conv_matmul", "all"):
        path = applied(toy_file, {**STATIC, "op_types": op_types}, toy, tmp_path / op_types)
        read = {tensor for tensor, *_ in quantizers(path, "QuantizeLinear")}
        made = nodes(path).values()
        rounded[op_types] = {node.op_type for node in made if read & set(node.output)}
        weights = [name for name in initializers(path) if name.endswith(".weight_quantized")]
        assert len(weights) == 4
    assert "Add" not in rounded["conv_matmul"]
    assert {"Add", "AveragePool"} <= rounded["all"]


class Joining(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(8, 4)

    def forward(self, images):
        x = self.first(images).relu()
        both = torch.cat([x, self.second(x).relu()], 1)
        return self.last(nn.functional.max_pool2d(both, 8).flatten(1))


def test_concat_and_pooling_are_quantized_with_all_operators(toy, tmp_path):
    with seeded(0):
        model = Joining().eval()
    path = tmp_path / "model.onnx"
    OnnxRuntime().export(model, toy.eval_batches()[0][0], path)
    rounded = {}
    for op_types in ("conv_matmul", "all"):
        result = applied(path, {**STATIC, "op_types": op_types}, toy, tmp_path / op_types)
        read = {tensor for tensor, *_ in quantizers(result, "QuantizeLinear")}
        rounded[op_types] = {n.op_type for n in nodes(result).values() if read & set(n.output)}
    assert {"Concat", "MaxPool"} <= rounded["all"]
    assert "Concat" not in rounded["conv_matmul"]


def test_a_network_of_convolutions_alone_is_quantized_statically(toy, tmp_path):
    model = conv_net()
    path = tmp_path / "model.onnx"
    images = toy.eval_batches()[0][0].repeat(1, 3, 1, 1)
    OnnxRuntime().export(model, images, path)
    task = TaskOf(model, (images, None))
    result = applied(path, STATIC, task, tmp_path / "work")
    assert initializers(result)["3.weight_quantized"].dtype == np.int8
