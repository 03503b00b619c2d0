"""Quantization of a real network: ResNet-20 on CIFAR-10 images that it was not trained on."""

import numpy as np
import pytest
from cifar_resnets import Cifar
from onnx_files import FLOAT16, STATIC, applied

from search.runtimes.onnx_runtime import OnnxRuntime

IMAGES = 200
# One image is 0.005. Without VNNI the products of uint8 and int8 saturate, and that costs most.
MARGIN = 0.03

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def task():
    return Cifar(depth=20, images=IMAGES)


@pytest.fixture(scope="module")
def float_file(tmp_path_factory, task):
    path = tmp_path_factory.mktemp("resnet") / "model.onnx"
    OnnxRuntime().export(task.model(), task.eval_batches()[0][0], path)
    return path


def accuracy(path, task):
    session = OnnxRuntime().load(path, threads=1)
    (name,) = session.input_names
    records = [
        task.records(session({name: batch[0].numpy()}), batch) for batch in task.eval_batches()
    ]
    return np.concatenate(records).mean()


@pytest.mark.parametrize("calibrator", ["minmax", "percentile", "entropy"])
def test_static_8_bits_keep_the_accuracy_in_a_third_of_the_bytes(
    task, float_file, tmp_path, calibrator
):
    path = applied(float_file, {**STATIC, "calibrator": calibrator}, task, tmp_path / "work")
    assert path.stat().st_size <= 0.35 * float_file.stat().st_size
    assert accuracy(path, task) >= accuracy(float_file, task) - MARGIN


def test_float16_keeps_the_accuracy_in_half_of_the_bytes(task, float_file, tmp_path):
    path = applied(float_file, FLOAT16, task, tmp_path / "work")
    assert path.stat().st_size <= 0.52 * float_file.stat().st_size
    assert abs(accuracy(path, task) - accuracy(float_file, task)) <= 0.005
