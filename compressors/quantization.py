"""Post-training quantization of an exported ONNX file, by ONNX Runtime's quantizer."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from strategies.space import Choice, Condition, Knob

from .arrays import named_arrays
from .base import Context, Options, Refused, Task
from .errors import is_of_the_machine

if TYPE_CHECKING:
    from torch import nn

# Dynamic quantization of a convolution makes a ConvInteger node, several times slower than float.
DYNAMIC_OPS = ["MatMul", "Gemm"]


class OnnxQuantization:
    """8-bit integers in the file itself, so that what is measured is what ships.

    `static` writes QDQ nodes with ranges from the calibration batches, weights int8 per channel
    and activations in the chosen type; `dynamic` finds the ranges of activations at run time and
    covers MatMul and Gemm only. On x86 CPUs without VNNI, ONNX Runtime's uint8 x int8 products can
    saturate: a score measured there holds for such CPUs only.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
    """

    version = 1
    libraries = ("onnx", "onnxruntime", "numpy")
    formats = frozenset({"onnx"})

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        static = Condition("scheme", "==", "static")
        return [
            Choice(name="scheme", values=("none", "dynamic", "static"), neutral="none"),
            Choice(
                name="activation",
                values=("uint8", "int8"),
                neutral="uint8",
                default="uint8",
                active_when=static,
            ),
            Choice(
                name="calibrator",
                values=("minmax", "percentile", "entropy"),
                neutral="minmax",
                default="minmax",
                active_when=static,
            ),
        ]

    def apply(self, path: Path, options: Options, context: Context) -> Path:
        from onnxruntime.quantization.shape_inference import quant_pre_process

        from .training import seeded

        prepared = context.workdir / "prepared.onnx"
        quantized = context.workdir / path.name
        with _quiet(), seeded(context.seed):  # the task may draw its batches
            try:
                quant_pre_process(path, prepared)
                if options["scheme"] == "dynamic":
                    _quantize_dynamic(prepared, quantized)
                else:
                    _quantize_static(prepared, quantized, options, context.task)
            except Exception as error:  # it raises many types, bare Exception among them
                if is_of_the_machine(error):
                    raise
                raise Refused(
                    f"ONNX Runtime cannot quantize this model with scheme"
                    f" {options['scheme']!r} ({type(error).__name__}: {error})"
                ) from error
        prepared.unlink()
        _drop_shapes(quantized)
        return quantized


def _quantize_dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=DYNAMIC_OPS,
        per_channel=True,
        weight_type=QuantType.QInt8,
    )


def _quantize_static(source: Path, target: Path, options: Options, task: Task) -> None:
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    activations = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}
    quantize_static(
        source,
        target,
        _Reader(source, task.calibration_batches(), task),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=activations[options["activation"]],
        weight_type=QuantType.QInt8,
        calibrate_method=methods[options["calibrator"]],
    )


def _drop_shapes(path: Path) -> None:
    """Remove the inferred shapes that preparing added: runtimes infer them again."""
    import onnx

    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save(model, path)


class _Reader:
    """Gives calibration batches to ONNX Runtime one after another, as {input name: array}.

    The histogram calibrators stack the batches, so all of them must have one shape: a last,
    smaller batch is left out.
    """

    def __init__(self, model: Path, batches: Iterable[Any], task: Task) -> None:
        import onnx

        graph = onnx.load(model, load_external_data=False).graph
        self._feeds = self._equal_feeds([i.name for i in graph.input], batches, task)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)

    @staticmethod
    def _equal_feeds(
        names: list[str], batches: Iterable[Any], task: Task
    ) -> Iterator[dict[str, np.ndarray]]:
        shapes = None
        for batch in batches:
            feed = named_arrays(task.inputs(batch), names)
            if shapes is None:
                shapes = {name: array.shape for name, array in feed.items()}
            if shapes == {name: array.shape for name, array in feed.items()}:
                yield feed


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints, and logs advice on the root logger: a search has no use for either."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
