"""Quantization of ONNX files: what stands in the file, and what it computes."""

import logging

import numpy as np
import onnx
import pytest
import torch
from assets.toy_models import TaskOf, conv_net
from assets.toy_task import Toy, toy_task
from onnx_files import (
    CALIBRATORS,
    DYNAMIC,
    FLOAT16,
    STATIC,
    WEIGHT_ONLY,
    ToyFileContract,
    applied,
    initializers,
    literal_outputs,
    operators,
    product_file,
)

from compressors.base import Context, Refused
from compressors.quantization import OnnxQuantization
from search.runtimes.onnx_runtime import OnnxRuntime


@pytest.fixture(scope="module")
def toy():
    return toy_task()


@pytest.fixture(scope="module")
def quantized(tmp_path_factory, toy, toy_file):
    """Quantizes the toy model's file, once for all tests."""
    made = {}

    def quantize(**options):
        key = tuple(options.items())
        if key not in made:
            workdir = tmp_path_factory.mktemp("quantized") / "work"
            made[key] = applied(toy_file, options, toy, workdir)
        return made[key]

    return quantize


def context(task, workdir):
    return Context(task, task.model, 0, workdir)


class _OnnxContract(ToyFileContract):
    def make(self):
        return OnnxQuantization()


class TestOnnxQuantization(_OnnxContract):
    options = [
        DYNAMIC,
        {**STATIC, "activation": "int8", "calibrator": "percentile"},
        WEIGHT_ONLY,
        FLOAT16,
    ]


class TestOnnxQuantizationWithShuffledCalibration(_OnnxContract):
    seeded_options = [STATIC]

    def task(self):
        return Shuffled()


class Shuffled(Toy):
    def calibration_batches(self):
        return self.train_batches()[:1]  # another quarter of the samples each time


@pytest.mark.parametrize(("activation", "dtype"), [("uint8", np.uint8), ("int8", np.int8)])
def test_static_writes_activations_in_the_chosen_type(quantized, activation, dtype):
    path = quantized(**{**STATIC, "activation": activation})
    arrays, nodes = initializers(path), onnx.load(path).graph.node
    zero_points = [arrays[n.input[2]] for n in nodes if n.op_type == "QuantizeLinear"]
    assert zero_points
    assert {(array.dtype, array.size) for array in zero_points} == {(np.dtype(dtype), 1)}


@pytest.mark.parametrize("activation", ["uint8", "int8"])
@pytest.mark.parametrize("layer", ["stem", "conv1", "conv2"])
def test_static_rounds_weights_to_8_bits_per_output_channel(
    quantized, toy_file, activation, layer
):
    weights = initializers(toy_file)[f"{layer}.weight"]
    scale = np.abs(weights).max((1, 2, 3)) / 127
    expected = np.rint(weights / scale[:, None, None, None])
    arrays = initializers(quantized(**{**STATIC, "activation": activation}))
    stored = arrays[f"{layer}.weight_quantized"]
    np.testing.assert_allclose(arrays[f"{layer}.weight_scale"], scale, rtol=1e-6)
    assert not arrays[f"{layer}.weight_zero_point"].any()
    assert stored.dtype == np.int8
    np.testing.assert_array_equal(stored, expected)


def test_dynamic_covers_products_of_matrices_and_leaves_convolutions_alone(quantized, toy_file):
    before, after = operators(toy_file), operators(quantized(**DYNAMIC))
    assert before.count("Conv") == after.count("Conv") == 3
    assert before.count("Gemm") == after.count("MatMulInteger") == 1
    assert not {"Gemm", "MatMul", "ConvInteger", "QLinearConv"} & set(after)
    weights = initializers(quantized(**DYNAMIC))
    assert weights["conv1.weight"].dtype == np.float32
    assert weights["classifier.weight_quantized"].dtype == np.int8
    assert weights["classifier.weight_scale"].shape == (4,)


def test_static_makes_the_file_smaller(quantized, toy_file):
    saved = toy_file.stat().st_size - quantized(**STATIC).stat().st_size
    weights = [a for name, a in initializers(toy_file).items() if name.endswith(".weight")]
    assert saved > 0.5 * sum(3 * array.size for array in weights)  # of 4 bytes, 1 is left


def test_dynamic_makes_a_file_of_large_matrices_smaller(tmp_path):
    path = product_file(tmp_path, size=128)
    result = applied(path, DYNAMIC, TaskOf(None), tmp_path / "work")
    assert result.stat().st_size < 0.3 * path.stat().st_size


@pytest.mark.parametrize(
    "options",
    [DYNAMIC, STATIC, {**STATIC, "activation": "int8"}, WEIGHT_ONLY, FLOAT16],
    ids=["dynamic", "static uint8", "static int8", "weight only", "float16"],
)
def test_outputs_stay_near_those_of_the_float_file(quantized, toy_file, toy, options):
    before, after = (outputs(path, toy) for path in (toy_file, quantized(**options)))
    assert 0 < np.linalg.norm(after - before) < 0.05 * np.linalg.norm(before)


def outputs(path, toy):
    images = np.concatenate([images for images, _ in toy.eval_batches()])
    return literal_outputs(path, {"images": images})[0]


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_the_toy_stays_right_through_the_runtime(quantized, toy, calibrator):
    session = OnnxRuntime().load(quantized(**{**STATIC, "calibrator": calibrator}), threads=1)
    right = [
        session({session.input_names[0]: images.numpy()}).argmax(-1) == labels.numpy()
        for images, labels in toy.eval_batches()
    ]
    assert np.concatenate(right).mean() > 0.9


def test_ranges_come_from_the_calibration_batches(tmp_path):
    path = product_file(tmp_path, size=4)
    extremes = torch.zeros(2, 4)
    extremes[0, 0], extremes[1, 1] = -1.0, 3.0
    task = TaskOf(None, (extremes, None))
    arrays = initializers(applied(path, STATIC, task, tmp_path / "work"))
    assert arrays["x_scale"] == pytest.approx(4 / 255)
    assert arrays["x_zero_point"] == round(255 / 4)


def test_calibrators_are_not_the_same_thing(quantized):
    files = {quantized(**{**STATIC, "calibrator": c}).read_bytes() for c in CALIBRATORS}
    assert len(files) > 1


def test_nothing_but_the_graph_ships(toy, toy_file, tmp_path):
    for options in (STATIC, DYNAMIC, WEIGHT_ONLY, FLOAT16):
        (tmp_path / options["scheme"]).mkdir()
        path = OnnxQuantization().apply(
            toy_file, options, context(toy, tmp_path / options["scheme"])
        )
        model = onnx.load(path)
        assert not model.graph.value_info
        assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
        assert str(path.parent).encode() not in path.read_bytes()


def test_it_works_quietly_and_leaves_the_root_logger_alone(tmp_path, toy, toy_file, capsys):
    level = logging.getLogger().level
    OnnxQuantization().apply(toy_file, STATIC, context(toy, tmp_path))
    assert logging.getLogger().level == level
    assert capsys.readouterr() == ("", "")


def test_an_error_of_the_users_data_is_no_refusal(tmp_path, toy, toy_file):
    """A refusal would be believed wherever the candidate is met again."""

    class Broken(TaskOf):
        def calibration_batches(self):
            raise KeyError("images")

    with pytest.raises(KeyError, match="images"):
        OnnxQuantization().apply(toy_file, STATIC, context(Broken(toy.model()), tmp_path))


@pytest.mark.parametrize(
    "text", ["Failed to allocate memory for requested buffer of size 9", "std::bad_alloc"]
)
def test_too_little_memory_is_no_refusal(tmp_path, toy, toy_file, monkeypatch, text):
    def fails(*_):
        raise RuntimeError(text)

    monkeypatch.setattr("compressors.eight_bits.quantize_to_static", fails)
    with pytest.raises(RuntimeError, match=text):
        OnnxQuantization().apply(toy_file, STATIC, context(toy, tmp_path))


@pytest.mark.parametrize(("reduce_range", "most"), [(False, 127), (True, 64)])
def test_dynamic_weights_have_7_bits_where_asked_for(toy, toy_file, tmp_path, reduce_range, most):
    options = {**DYNAMIC, "reduce_range": reduce_range}
    arrays = initializers(applied(toy_file, options, toy, tmp_path / "work"))
    (weights,) = [value for name, value in arrays.items() if name.endswith("_quantized")]
    assert weights.dtype == np.int8
    assert np.abs(weights.astype(int)).max() == most


def test_without_calibration_data_static_is_refused(tmp_path, toy, toy_file):
    task = TaskOf(toy.model())
    with pytest.raises(Refused, match=r"need data, and calibration_batches\(\) gives none"):
        OnnxQuantization().apply(toy_file, STATIC, context(task, tmp_path))


@pytest.mark.parametrize("calibrator", ["percentile", "entropy"])
def test_a_file_without_float_tensors_is_refused(tmp_path, calibrator):
    path = product_file(tmp_path, size=4, dtype=np.float64)
    options = {**STATIC, "calibrator": calibrator}
    task = TaskOf(None, (torch.ones(2, 4, dtype=torch.float64), None))
    with pytest.raises(Refused, match=r"with scheme 'static' \(ValueError: Histogram"):
        applied(path, options, task, tmp_path / "work")


def test_nothing_to_quantize_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    convolution = conv_net().get_submodule("0")
    OnnxRuntime().export(convolution, torch.randn(2, 3, 8, 8), path)
    for options in (DYNAMIC, WEIGHT_ONLY):
        scheme = options["scheme"]
        message = f"scheme {scheme!r} finds nothing to quantize: no MatMul or Gemm"
        with pytest.raises(Refused, match=message):
            applied(path, options, TaskOf(None), tmp_path / scheme)
        assert list((tmp_path / scheme).glob("model*")) == []


def test_options_of_earlier_studies_mean_what_they_meant(tmp_path, quantized, toy, toy_file):
    """A stored study has the knobs that it was created with."""
    for options in (STATIC, DYNAMIC):
        old = {k: v for k, v in options.items() if k in ("scheme", "activation", "calibrator")}
        path = applied(toy_file, old, toy, tmp_path / options["scheme"])
        assert path.read_bytes() == quantized(**options).read_bytes()
