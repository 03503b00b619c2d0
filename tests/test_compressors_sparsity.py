"""Unstructured pruning: which weights become zero, and that they stay so."""

import copy

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf, conv_net, mlp
from assets.toy_task import toy_task
from assets.vision_models import CifarResNet
from onnx_files import initializers
from torch import nn

from compressors.base import Context, Refused
from compressors.sparsity import (
    UnstructuredPruning,
    keep_above_mean,
    keep_largest,
    keep_n_of_m,
)
from compressors.training import fit, seeded
from search.runtimes.onnx_runtime import OnnxRuntime
from search.scoring import zstd_bytes
from search.testing_exports import ExportedModelContract
from strategies.space import SpaceError

PLAIN = {"ignore": "", "batchnorm_batches": 0, "bias_correction": False}
LAYER = {"method": "l1_layer", "sparsity": 0.5, **PLAIN}


class TestUnstructuredPruning(ExportedModelContract):
    options = [
        LAYER,
        {**LAYER, "method": "l1_global", "sparsity": 0.7, "bias_correction": True},
        {"method": "mean_threshold", "threshold": 0.5, **PLAIN},
        {"method": "n_m", "pattern": "2:4", **PLAIN, "ignore": "classifier"},
    ]
    seeded_options = [{**LAYER, "batchnorm_batches": 2}]

    def make(self):
        return UnstructuredPruning()

    def task(self):
        return toy_task()


def test_zeros_are_in_the_file_that_ships_and_pack_well(tmp_path):
    """The exporter folds BatchNorm into the convolutions, which changes all other weights."""
    with seeded(0):
        model = CifarResNet(8).eval()
    images = torch.zeros(2, 3, 32, 32)
    paths = [tmp_path / "dense" / "model.onnx", tmp_path / "sparse" / "model.onnx"]
    for path, each in zip(paths, (model, pruned(model, LAYER, tmp_path, images)), strict=True):
        path.parent.mkdir()
        OnnxRuntime().export(each, images, path)
    weights = [array for array in initializers(paths[1]).values() if array.ndim >= 2]
    assert len(weights) == 8
    assert all(np.mean(array == 0) == pytest.approx(0.5, abs=0.01) for array in weights)
    dense, sparse = (zstd_bytes([path]) for path in paths)
    assert sparse < 0.75 * dense


def numbers():
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def pruned(model, options, tmp_path, inputs=None):
    task = TaskOf(model, (numbers() if inputs is None else inputs, None))
    context = Context(task, lambda: copy.deepcopy(model), 0, tmp_path)
    return UnstructuredPruning().apply(model, options, context)[0]


def layers(model):
    return [m.weight.detach().numpy() for m in model if isinstance(m, (nn.Linear, nn.Conv2d))]


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_the_smallest_weights_of_the_model_go(tmp_path, sparsity):
    model = mlp()
    before, after = (
        layers(model),
        layers(pruned(model, {**LAYER, "method": "l1_global", "sparsity": sparsity}, tmp_path)),
    )
    flat = np.concatenate([np.abs(w).ravel() for w in before])
    limit = np.sort(flat)[round(sparsity * len(flat)) - 1]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(new, np.where(np.abs(old) <= limit, 0, old))


def test_the_same_share_of_each_layer_goes(tmp_path):
    model = mlp()
    for old, new in zip(layers(model), layers(pruned(model, LAYER, tmp_path)), strict=True):
        limit = np.sort(np.abs(old).ravel())[old.size // 2 - 1]
        np.testing.assert_array_equal(new, np.where(np.abs(old) <= limit, 0, old))


def test_weights_below_a_share_of_their_rows_mean_magnitude_go(tmp_path):
    model = conv_net(width=8)
    options = {"method": "mean_threshold", "threshold": 0.75, **PLAIN}
    images = torch.zeros(2, 3, 8, 8)
    for old, new in zip(
        layers(model), layers(pruned(model, options, tmp_path, images)), strict=True
    ):
        rows = np.abs(old).reshape(len(old), -1)
        stays = rows >= 0.75 * rows.mean(axis=1, keepdims=True)
        np.testing.assert_array_equal(new, np.where(stays.reshape(old.shape), old, 0))


def test_two_of_four_neighbours_stay():
    weights = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.5, 0.1, -0.2, 0.3, 9.0, 8.0]])
    kept = weights * keep_n_of_m(weights, 2, 4)
    # Of a rest of two, one stays.
    assert kept.tolist() == [[0, -4, 3, 0, 0.5, 0, 0, pytest.approx(0.3), 9, 0]]


def test_neighbours_of_a_convolution_read_neighbouring_channels(tmp_path):
    """As sparse tensor cores want it: of 4 input channels at one place of the kernel, 2 stay."""
    model = nn.Sequential(nn.Conv2d(8, 5, 3))
    options = {"method": "n_m", "pattern": "2:4", **PLAIN}
    weight = pruned(model, options, tmp_path, torch.zeros(1, 8, 4, 4))[0].weight
    assert ((weight.unflatten(1, (2, 4)) != 0).sum(2) == 2).all()
    stays = model[0].weight.abs().unflatten(1, (2, 4)).topk(2, dim=2).values
    kept = weight.abs().unflatten(1, (2, 4)).topk(2, dim=2).values
    assert torch.equal(kept, stays)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_row_of_a_transposed_convolution_makes_one_output(tmp_path, groups):
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    options = {"method": "mean_threshold", "threshold": 0.75, **PLAIN}
    result = pruned(nn.Sequential(layer), options, tmp_path, torch.zeros(1, 4, 4, 4))[0].weight
    for output in range(6):
        # The weights that an output depends on are those with a gradient.
        made = layer(torch.ones(1, 4, 1, 1))[0, output].sum()
        (gradient,) = torch.autograd.grad(made, layer.weight)
        row = gradient != 0
        magnitude = layer.weight[row].abs()
        stays = magnitude >= 0.75 * magnitude.mean()
        assert torch.equal(result[row] != 0, stays)


def test_a_computed_weight_is_refused_by_name(tmp_path):
    """What is done to it would be lost with the next forward pass."""
    model = mlp()
    torch.nn.utils.parametrizations.weight_norm(model[2])
    with pytest.raises(Refused, match="the weight of '2' is computed"):
        pruned(model, LAYER, tmp_path)
    result = pruned(model, {**LAYER, "ignore": "2"}, tmp_path)
    assert (result[0].weight == 0).any()


def test_of_equal_weights_as_many_go_as_of_others():
    assert keep_largest(torch.ones(10), 0.3).sum() == 7
    assert keep_n_of_m(torch.ones(2, 4), 2, 4).sum(1).tolist() == [2, 2]
    assert keep_above_mean(torch.ones(2, 4), 1.0).all()


def test_ignored_layers_keep_their_weights(tmp_path):
    model = mlp()
    result = pruned(model, {**LAYER, "ignore": "0"}, tmp_path)
    assert torch.equal(result[0].weight, model[0].weight)
    assert (result[2].weight == 0).float().mean() == 0.5
    with pytest.raises(Refused, match="no layer is left"):
        pruned(model, {**LAYER, "ignore": "0 | 2"}, tmp_path)


def test_training_leaves_pruned_weights_at_zero(tmp_path):
    result = pruned(mlp(), LAYER, tmp_path)
    zeros = [m.weight == 0 for m in result if isinstance(m, nn.Linear)]
    batch = (numbers(), torch.tensor([0, 1, 2, 3]))
    before = result[0].weight.clone()
    fit(
        result,
        lambda: [batch] * 4,
        lambda outputs, batch: nn.functional.cross_entropy(outputs, batch[1]),
        inputs=lambda batch: batch[0],
        epochs=2,
        lr=0.01,
    )
    assert not torch.equal(result[0].weight, before)
    for layer, zero in zip((result[0], result[2]), zeros, strict=True):
        assert torch.equal(layer.weight == 0, zero)


def test_a_layer_of_zeros_is_trained():
    model = mlp()
    nn.init.zeros_(model[2].weight)
    batch = (numbers(), torch.tensor([0, 1, 2, 3]))
    fit(
        model,
        lambda: [batch],
        lambda outputs, batch: nn.functional.cross_entropy(outputs, batch[1]),
        inputs=lambda batch: batch[0],
        epochs=1,
        lr=0.01,
    )
    assert (model[2].weight != 0).any()


@pytest.mark.parametrize("method", ["l1_layer", "l1_global"])
def test_bias_correction_brings_mean_outputs_back(tmp_path, method):
    model, inputs = mlp(), numbers()
    options = {**LAYER, "method": method, "sparsity": 0.8}
    plain = pruned(model, options, tmp_path)
    corrected = pruned(model, {**options, "bias_correction": True}, tmp_path)
    wanted = model(inputs).mean(0)
    assert not torch.allclose(plain(inputs).mean(0), wanted, atol=1e-3)
    torch.testing.assert_close(corrected(inputs).mean(0), wanted, atol=1e-5, rtol=0)
    assert torch.equal(corrected[2].weight, plain[2].weight)


def test_a_pattern_that_names_no_layer_is_an_error_of_the_config():
    knobs = {k.name: k for k in UnstructuredPruning().knobs(mlp(), toy_task())}
    assert knobs["ignore"].resolve("0").values == ("0",)
    assert knobs["ignore"].resolve(["", "2"]).values == ("", "2")
    assert knobs["ignore"].resolve().values == ("",)
    with pytest.raises(SpaceError, match="must match a layer, got 'nothing'; layers: 0, 2"):
        knobs["ignore"].resolve("nothing")
    with pytest.raises(SpaceError, match="must be text, got 3"):
        knobs["ignore"].resolve(3)
