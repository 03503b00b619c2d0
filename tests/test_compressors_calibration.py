"""Ranges of activations: those of ONNX Runtime's calibrators, from batches of any shapes."""

import numpy as np
import onnxruntime.quantization as ort
import pytest
from assets.toy_models import TaskOf
from assets.toy_task import Toy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx_files import (
    CALIBRATORS,
    STATIC,
    applied,
    text_batches,
    text_file,
    text_model,
)
from onnxruntime.quantization.calibrate import HistogramCollector, entropy
from onnxruntime.quantization.quant_utils import smooth_distribution
from onnxruntime.quantization.shape_inference import quant_pre_process

from compressors.arrays import first_samples
from compressors.calibration import BINS, METHODS, Histograms, activation_ranges, divergence
from compressors.eight_bits import STATIC_OPS
from search.runtimes.onnx_runtime import OnnxRuntime

SETTINGS = {
    "symmetric": True,
    "num_bins": 64,
    "num_quantized_bins": 16,
    "percentile": 99.0,
    "scenario": "same",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The toy model's file, prepared for quantization."""
    folder = tmp_path_factory.mktemp("toy")
    toy = Toy()
    OnnxRuntime().export(toy.model(), toy.eval_batches()[0][0], folder / "model.onnx")
    quant_pre_process(folder / "model.onnx", folder / "prepared.onnx")
    return folder / "prepared.onnx"


@pytest.fixture(scope="module")
def images():
    return np.concatenate([images.numpy() for images, _ in Toy().eval_batches()])


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text model and its file, in which length is free."""
    model = text_model()
    return model, text_file(model, tmp_path_factory.mktemp("text"))


class Reader:
    def __init__(self, feeds):
        self._feeds = iter(feeds)

    def get_next(self):
        return next(self._feeds, None)


def plain(found):
    ends = {name: data.range_value for name, data in found.items()}
    return {name: tuple(np.asarray(end).item() for end in pair) for name, pair in ends.items()}


def ranges(prepared, feeds, method, tmp_path):
    found = activation_ranges(prepared, feeds, method, STATIC_OPS["all"], tmp_path)
    assert list(tmp_path.iterdir()) == []
    return plain(found)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_ranges_are_those_of_onnx_runtime(prepared, images, tmp_path, method):
    """Which stacks all batches, of one shape, before it counts."""
    feeds = [{"images": part} for part in np.split(images, 4)]
    calibrator = ort.calibrate.create_calibrator(
        prepared,
        STATIC_OPS["all"],
        str(tmp_path / "theirs.onnx"),
        calibrate_method=METHODS[method],
        extra_options={} if method == "minmax" else {"num_bins": BINS},
    )
    calibrator.collect_data(Reader(feeds))
    theirs = plain(calibrator.compute_data())
    (tmp_path / "theirs.onnx").unlink()
    ours = ranges(prepared, feeds, method, tmp_path)
    assert ours == theirs


@pytest.mark.parametrize("method", CALIBRATORS)
def test_ranges_do_not_depend_on_how_samples_are_cut_into_batches(
    prepared, images, tmp_path, method
):
    """A last batch may be smaller; its samples count like all others."""
    even = [{"images": part} for part in np.split(images, 4)]
    uneven = [{"images": part} for part in np.split(images, [50, 51])]
    assert ranges(prepared, even, method, tmp_path) == ranges(prepared, uneven, method, tmp_path)
    fewer = ranges(prepared, uneven[:2], method, tmp_path)
    assert fewer != ranges(prepared, uneven, method, tmp_path)


@pytest.mark.parametrize("method", CALIBRATORS)
def test_texts_of_different_lengths_are_calibrated_on(text, tmp_path, method):
    model, path = text
    batches = text_batches((4, 3), (4, 9), (2, 6))
    options = {**STATIC, "calibrator": method}
    task = TaskOf(model, *batches)
    quantized = applied(path, options, task, tmp_path / "all")
    for tokens, _ in batches:
        session = OnnxRuntime().load(quantized, threads=1)
        expected = model(tokens).detach().numpy()
        given = session({session.input_names[0]: tokens.numpy()})
        assert np.linalg.norm(given - expected) < 0.1 * np.linalg.norm(expected)
    again = applied(path, options, task, tmp_path / "again")
    assert again.read_bytes() == quantized.read_bytes()
    without = applied(path, options, TaskOf(model, *batches[:1]), tmp_path / "without")
    assert without.read_bytes() != quantized.read_bytes()


def test_only_the_first_samples_are_calibrated_on(text, tmp_path):
    model, path = text
    batches = text_batches((4, 3), (4, 9), (2, 6))
    cut = [batches[0], (batches[1][0][:2], None)]
    few = applied(
        path, {**STATIC, "calibration_samples": 6}, TaskOf(model, *batches), tmp_path / "a"
    )
    same = applied(path, STATIC, TaskOf(model, *cut), tmp_path / "b")
    every = applied(path, STATIC, TaskOf(model, *batches), tmp_path / "c")
    many = applied(
        path, {**STATIC, "calibration_samples": 99}, TaskOf(model, *batches), tmp_path / "d"
    )
    assert few.read_bytes() == same.read_bytes() != every.read_bytes()
    assert many.read_bytes() == every.read_bytes()


def test_first_samples_leave_arrays_without_samples_whole():
    feed = {"x": np.zeros((4, 2)), "table": np.zeros((3, 2)), "scalar": np.float32(1)}
    cut, taken = first_samples(feed, 2)
    assert {name: array.shape for name, array in cut.items()} == {
        "x": (2, 2),
        "table": (3, 2),
        "scalar": (),
    }
    assert taken == 2
    whole, taken = first_samples(feed, 9)
    assert [array.shape for array in whole.values()] == [(4, 2), (3, 2), ()]
    assert taken == 4


arrays = st.lists(st.floats(-4, 4, width=16), max_size=40).map(
    lambda values: np.array(values, np.float32)
)


@settings(max_examples=50, deadline=None)
@given(parts=st.lists(arrays, min_size=1, max_size=4), method=st.sampled_from(CALIBRATORS[1:]))
def test_histograms_are_those_of_all_data_at_once(parts, method):
    whole, ours = (kind(method=method, **SETTINGS) for kind in (HistogramCollector, Histograms))
    data = np.concatenate(parts)
    assume(data.size)
    whole.collect({"x": data})
    for part in parts:
        ours.widen({"x": part})
    ours.begin()
    for part in parts:
        ours.collect({"x": part})
    hist, edges, *_ = whole.histogram_dict["x"]
    np.testing.assert_array_equal(ours.histogram_dict["x"][0], hist)
    np.testing.assert_array_equal(ours.histogram_dict["x"][1], edges)


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 50), min_size=64, max_size=64), kept=st.integers(16, 32))
def test_divergence_is_that_of_the_source(counts, kept):
    """The loop of the source, slide 36: merge, expand over the bins that hold something."""
    hist = np.array(counts)
    hist[32] += 1
    start, end = 32 - kept, min(32 + kept + 1, 64)
    clipped = hist[start:end].copy()
    clipped[0] += hist[:start].sum()
    clipped[-1] += hist[end:].sum()
    width = len(clipped) // 16
    expanded = np.zeros(len(clipped))
    for level in range(16):
        last = len(clipped) if level == 15 else (level + 1) * width
        part = slice(level * width, last)
        filled = clipped[part] != 0
        if filled.any():
            expanded[part][filled] = hist[start:end][part].sum() / filled.sum()
    expected = float("inf")
    if expanded.any():
        p, q = smooth_distribution(clipped), smooth_distribution(expanded)
        expected = entropy(p, q)
    assert divergence(hist, start, end, 16) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_entropy_cuts_off_a_tail_and_keeps_what_is_dense():
    rng = np.random.default_rng(0)
    data = np.concatenate([rng.normal(size=50_000), [40.0]]).astype(np.float32)
    settings = {**SETTINGS, "num_bins": BINS, "num_quantized_bins": 128}
    histograms = Histograms(method="entropy", **settings)
    histograms.widen({"x": data})
    histograms.begin()
    histograms.collect({"x": data})
    low, high, *_ = histograms.compute_collection_result()["x"]
    assert low == data.min()
    assert 2.5 < high < 10
