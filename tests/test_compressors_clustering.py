"""Weight clustering: few shared values in the file that ships, and none for what is zero."""

import numpy as np
import onnx
import pytest
import torch
from assets.toy_models import TaskOf
from assets.toy_task import toy_task
from assets.vision_models import CifarResNet
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx_files import STATIC, ToyFileContract, initializers, operators, product_file

from compressors.base import Context, Refused
from compressors.clustering import WeightClustering, clustered_values
from compressors.quantization import OnnxQuantization
from compressors.training import reestimate_batch_norm, seeded
from search.runtimes.onnx_runtime import OnnxRuntime
from search.scoring import zstd_bytes


class TestWeightClustering(ToyFileContract):
    options = [{"clusters": 16}, {"clusters": 2}]

    def make(self):
        return WeightClustering()


@pytest.fixture(scope="module")
def resnet():
    """A residual network, whose BatchNorm the exporter folds into its convolutions, as a task."""
    with seeded(0):
        model = CifarResNet(8)
        images = torch.randn(16, 3, 32, 32)
        reestimate_batch_norm(model, [images], lambda batch: batch, limit=1)
    return TaskOf(model.eval(), (images, None))


@pytest.fixture(scope="module")
def resnet_file(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "model.onnx"
    OnnxRuntime().export(resnet.model(), resnet.eval_batches()[0][0], path)
    assert "BatchNormalization" not in operators(path)
    return path


def clustered(path, task, workdir, clusters=16):
    workdir.mkdir()
    context = Context(task, task.model, 0, workdir)
    return WeightClustering().apply(path, {"clusters": clusters}, context)


def matrices(path):
    return {name: array for name, array in initializers(path).items() if array.ndim >= 2}


def test_each_layer_of_the_file_that_ships_has_few_values_and_packs_well(
    resnet, resnet_file, tmp_path
):
    path = clustered(resnet_file, resnet, tmp_path / "work")
    before, after = matrices(resnet_file), matrices(path)
    assert {name: array.shape for name, array in after.items()} == {
        name: array.shape for name, array in before.items()
    }
    assert len(after) == 8  # seven convolutions and a linear layer
    assert all(len(np.unique(array)) <= 16 for array in after.values())
    assert zstd_bytes([path]) < 0.3 * zstd_bytes([resnet_file])
    assert path.stat().st_size == pytest.approx(resnet_file.stat().st_size, rel=0.01)


def test_a_clustered_file_can_be_quantized(resnet, resnet_file, tmp_path):
    path = clustered(resnet_file, resnet, tmp_path / "work")
    (tmp_path / "int8").mkdir()
    context = Context(resnet, resnet.model, 0, tmp_path / "int8")
    quantized = OnnxQuantization().apply(path, STATIC, context)
    assert "QuantizeLinear" in operators(quantized)
    assert zstd_bytes([quantized]) < zstd_bytes([path])


def test_weights_in_a_file_of_their_own_stay_there(toy_file, tmp_path):
    source = tmp_path / "source" / "model.onnx"
    source.parent.mkdir()
    onnx.save(
        onnx.load(toy_file),
        source,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    path = clustered(source, toy_task(), tmp_path / "work")
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    inside = clustered(toy_file, toy_task(), tmp_path / "inside")
    for name, array in initializers(inside).items():
        np.testing.assert_array_equal(initializers(path)[name], array)


def test_a_file_without_float_weights_is_refused(tmp_path):
    path = product_file(tmp_path, size=4, dtype=np.float16)
    with pytest.raises(Refused, match="no constant float32 weights of Conv, ConvTranspose"):
        clustered(path, toy_task(), tmp_path / "work")


def test_values_that_lie_in_clumps_become_the_means_of_the_clumps():
    weights = np.array([[-1.1, -0.9, 0.0], [2.0, 2.2, 2.4]], np.float32)
    found = clustered_values(weights, 2)
    np.testing.assert_allclose(found, [[-1.0, -1.0, 0.0], [2.2, 2.2, 2.2]], rtol=1e-6)
    assert found.dtype == np.float32


@given(arrays(np.float32, (4, 6), elements=st.floats(-4, 4, width=16)), st.integers(1, 12))
def test_there_are_as_few_values_as_asked_for_and_zeros_stay(weights, clusters):
    found = clustered_values(weights, clusters)
    assert len(np.unique(found[weights != 0])) <= clusters
    assert (found[weights == 0] == 0).all()
    if len(np.unique(weights[weights != 0])) <= clusters:
        np.testing.assert_array_equal(found, weights)


def test_no_single_weight_is_nearer_to_another_centroid():
    weights = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    found = clustered_values(weights, 16)
    centroids = np.unique(found)
    assert 14 <= len(centroids) <= 16  # a cluster that no weight is in has no value
    nearest = centroids[np.abs(weights[..., None] - centroids).argmin(-1)]
    assert np.mean(nearest == found) > 0.999
    errors = [np.mean((clustered_values(weights, k) - weights) ** 2) for k in (4, 16, 64)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] == pytest.approx(0.01, abs=0.005)  # Lloyd and Max: 0.0095 for a normal
