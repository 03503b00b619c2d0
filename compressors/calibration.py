"""Ranges of activations: what values the tensors of an ONNX file take on the calibration data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import (
    HistogramCollector,
    TensorsData,
    create_calibrator,
    entropy,
)
from onnxruntime.quantization.quant_utils import smooth_distribution

from .arrays import first_samples, named_arrays
from .base import Refused, Task

Feed = dict[str, np.ndarray]

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
# With its own default of 128, the entropy method has one range to choose from: the whole.
BINS = 2048


def calibration_feeds(task: Task, names: list[str], samples: int) -> list[Feed]:
    """The inputs of the calibration batches, as they are: they may differ in shape.

    Args:
        names: Under which the file takes its inputs.
        samples: How many of the first samples there are to be at most; 0 = all.

    Raises:
        Refused: There are none.
    """
    feeds: list[Feed] = []
    left = samples
    for batch in task.calibration_batches():
        feed = named_arrays(task.inputs(batch), names)
        if samples:
            feed, taken = first_samples(feed, left)
            left -= taken
        feeds.append(feed)
        if samples and left <= 0:
            break
    if not feeds:
        raise Refused("the ranges of activations need data, and calibration_batches() gives none")
    return feeds


def activation_ranges(
    model: Path, feeds: Sequence[Feed], method: str, op_types: Collection[str], workdir: Path
) -> TensorsData:
    """The range of every float tensor at one of some operators, by ONNX Runtime's calibrators.

    `minmax` is all of what was seen. `percentile` leaves out 0.001 % of the greatest magnitudes.
    `entropy` cuts where the Kullback-Leibler divergence between the values and their quantized
    ones is least (Migacz, "8-bit Inference with TensorRT", GTC 2017).

    ONNX Runtime itself builds the histograms of the last two from all batches in one array, which
    holds every activation at once and needs batches of one shape. Here the data goes through the
    model twice, for the extremes and for the counts between them: the same histograms to the last
    count, from any shapes, with one batch's activations in memory.

    Raises:
        ValueError: There is no float tensor to make a histogram of, or one is not finite.
    """
    augmented = workdir / "augmented.onnx"
    calibrator = create_calibrator(
        model,
        op_types,
        augmented_model_path=str(augmented),
        calibrate_method=METHODS[method],
        extra_options={} if method == "minmax" else {"num_bins": BINS},
    )
    try:
        if method == "minmax":
            calibrator.collect_data(_Reader(feeds))
        else:
            _collect_histograms(calibrator, feeds, method)
        return calibrator.compute_data()
    finally:
        augmented.unlink()


class _Reader:
    """Gives inputs to ONNX Runtime one after another."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _collect_histograms(calibrator: Any, feeds: Sequence[Feed], method: str) -> None:
    calibrator.collector = collector = Histograms(
        method=method,
        symmetric=calibrator.symmetric,
        num_bins=calibrator.num_bins,
        num_quantized_bins=calibrator.num_quantized_bins,
        percentile=calibrator.percentile,
        scenario=calibrator.scenario,
    )
    for arrays in _activations(calibrator, feeds):
        collector.widen(arrays)
    collector.begin()
    for arrays in _activations(calibrator, feeds):
        collector.collect(arrays)


def _activations(calibrator: Any, feeds: Sequence[Feed]) -> Iterator[Feed]:
    session, wanted = calibrator.infer_session, calibrator.tensors_to_calibrate
    names = [output.name for output in session.get_outputs()]
    for feed in feeds:
        outputs = zip(names, session.run(None, feed), strict=True)
        yield {name: array for name, array in outputs if name in wanted}


class Histograms(HistogramCollector):  # type: ignore[misc]
    """ONNX Runtime's histograms over batches of any shapes: first `widen` with all of them, then
    `begin`, then `collect` each of them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._extremes: dict[str, np.ndarray] = {}  # lowest, highest, least and greatest magnitude

    def widen(self, arrays: Feed) -> None:
        for name, array in arrays.items():
            if array.size == 0:
                continue
            size = np.abs(array)
            new = np.array([array.min(), array.max(), size.min(), size.max()], array.dtype)
            old = self._extremes.get(name, new)
            pairs = zip((np.minimum, np.maximum) * 2, old, new, strict=True)
            self._extremes[name] = np.array([pick(*pair) for pick, *pair in pairs], array.dtype)

    def begin(self) -> None:
        """Lay out the bins that the whole data would have had in one array."""
        for name, (low, high, near, far) in self._extremes.items():
            if self.method == "percentile":  # of magnitudes
                hist, edges = np.histogram(np.array([near, far]), bins=self.num_bins)
                edges = edges.astype(far.dtype)
                self.histogram_dict[name] = (np.zeros_like(hist), edges, low, high)
            else:
                span = np.array(far)
                nothing = np.empty(0, far.dtype)
                hist, edges = np.histogram(nothing, self.num_bins, range=(-float(far), float(far)))
                self.histogram_dict[name] = (hist, edges, low, high, span)

    def collect(self, arrays: Feed) -> None:
        super().collect({name: array for name, array in arrays.items() if array.size})

    def get_entropy_threshold(self, histogram: Any, num_quantized_bins: int) -> tuple[Any, Any]:
        """Instead of the inherited one, which rounds the expanded counts down to integers and
        spreads them over empty bins too: with few samples it cuts off far too much."""
        counts, edges, low, high = histogram[:4]
        zero, half = len(counts) // 2, num_quantized_bins // 2
        reaches = range(half, zero + 1)
        bounds = [(zero - reach, min(zero + reach + 1, len(counts))) for reach in reaches]
        divergences = [divergence(counts, *bound, num_quantized_bins) for bound in bounds]
        first, last = bounds[int(np.argmin(divergences))]
        return max(edges[first], low), min(edges[last], high)


def divergence(counts: np.ndarray, start: int, end: int, bins: int) -> float:
    """What is lost, in nats, when values outside are clipped and those inside fall into `bins`.

    Args:
        counts: A histogram, of which [start, end) is kept; at least `bins` of it.
    """
    inside = counts[start:end]
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[end:].sum()
    merged = np.minimum(np.arange(len(inside)) // (len(inside) // bins), bins - 1)
    filled = np.bincount(merged, clipped != 0, bins)
    means = np.bincount(merged, inside, bins) / np.maximum(filled, 1)
    expanded = np.where(clipped != 0, means[merged], 0)
    p, q = smooth_distribution(clipped), smooth_distribution(expanded)
    return float("inf") if p is None or q is None else float(entropy(p, q))
