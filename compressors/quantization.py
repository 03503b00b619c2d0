"""Post-training quantization of an exported ONNX file, by ONNX Runtime's quantizers."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strategies.space import Choice, Condition, Int, Knob

from .base import Context, Options, Refused, Task
from .errors import is_of_the_machine

if TYPE_CHECKING:
    from torch import nn

    from .calibration import Feed

# What a quantized file holds, by scheme: without any of it, nothing has been quantized.
MARKS = {
    "static": {"QuantizeLinear", "DequantizeLinear"},
    "dynamic": {"DynamicQuantizeLinear", "MatMulInteger"},
    "weight_only": {"MatMulNBits"},
    "float16": {"Cast"},
}
COVERED = {
    "static": "no operator of `op_types` on float tensors",
    "dynamic": "no MatMul or Gemm with a constant matrix",
    "weight_only": "no MatMul or Gemm with a constant matrix",
    "float16": "no float32 weights that are worth a Cast",
}
# What a candidate means that was stored before there were these knobs.
ADDED = {
    "weight_granularity": "per_channel",
    "reduce_range": False,
    "op_types": "all",
    "calibration_samples": 0,
    "granularity": "model",
}
SAMPLES = 1_000_000


class OnnxQuantization:
    """Fewer bits in the file itself, so that what is measured is what ships.

    `static` writes QDQ nodes with ranges from the calibration batches, weights int8 and
    activations in the chosen type; `dynamic` finds the ranges of activations at run time and
    covers MatMul and Gemm only. `weight_only` stores the matrices of MatMul and Gemm in `bits`
    bits, block by block, and `float16` all weights in half the room; both compute in float.

    With `granularity: block` or `layer` there is a knob `precision@<module path>` for each block
    or layer of the model, `int8` (quantized as `scheme` says) or `fp32` (left as it is).

    On x86 CPUs without VNNI, ONNX Runtime's uint8 x int8 products can saturate: a score measured
    there holds for such CPUs only. Weights of 7 bits (`reduce_range`) do not.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018.
    """

    version = 2
    libraries = ("onnx", "onnxruntime", "numpy")
    formats = frozenset({"onnx"})
    kind = "quantize"

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        static = Condition("scheme", "==", "static")
        weight_only = Condition("scheme", "==", "weight_only")
        return [
            Choice(
                name="scheme",
                values=("none", "dynamic", "static", "weight_only", "float16"),
                neutral="none",
                default=["none", "dynamic", "static"],
            ),
            _choice("activation", ("uint8", "int8"), static),
            _choice("calibrator", ("minmax", "percentile", "entropy"), static),
            _choice("weight_granularity", ("per_channel", "per_tensor"), static),
            Choice(
                name="reduce_range",
                values=(False, True),
                neutral=False,
                default=False,
                active_when=Condition("scheme", "in", ("dynamic", "static")),
            ),
            _choice("op_types", ("all", "conv_matmul"), static),
            Int(
                name="calibration_samples",
                low=0,
                high=SAMPLES,
                neutral=0,
                default=0,
                active_when=static,
            ),
            Choice(
                name="bits",
                values=(8, 4),
                neutral=8,
                ordered=True,
                direction=1,
                active_when=weight_only,
            ),
            Choice(
                name="block_size",
                values=(16, 32, 64, 128, 256),
                neutral=32,
                default=32,
                ordered=True,
                direction=1,
                active_when=weight_only,
            ),
            _choice(
                "granularity",
                ("model", "block", "layer"),
                Condition("scheme", "in", ("dynamic", "static", "weight_only")),
            ),
            *_precision_knobs(model),
        ]

    def apply(self, path: Path, options: Options, context: Context) -> Path:
        from .training import seeded

        options = {**ADDED, **options}
        quantized = context.workdir / path.name
        with _quiet(), seeded(context.seed):  # the task may draw its batches
            feeds = _feeds(path, options, context.task)
            try:
                _quantize(path, quantized, options, feeds)
            except Refused:
                raise
            except Exception as error:  # it raises many types, bare Exception among them
                if is_of_the_machine(error):
                    raise
                raise Refused(
                    f"ONNX Runtime cannot quantize this model with scheme"
                    f" {options['scheme']!r} ({type(error).__name__}: {error})"
                ) from error
        return quantized


def _choice(name: str, values: tuple[str, ...], when: Condition) -> Choice:
    """The first of the values is what a config that does not mention the knob means."""
    return Choice(name=name, values=values, neutral=values[0], default=values[0], active_when=when)


def _precision_knobs(model: nn.Module | None) -> list[Knob]:
    from .precision import precision_knobs

    return [] if model is None else precision_knobs(model)


def _feeds(path: Path, options: Options, task: Task) -> list[Feed]:
    """What the ranges of activations are taken from."""
    import onnx

    from .calibration import calibration_feeds

    if options["scheme"] != "static":
        return []
    inputs = onnx.load(path, load_external_data=False).graph.input
    return calibration_feeds(task, [v.name for v in inputs], options["calibration_samples"])


def _quantize(source: Path, target: Path, options: Options, feeds: Sequence[Feed]) -> None:
    import onnx

    from .precision import chosen_precisions, present
    from .short_names import shorten_names

    graph = onnx.load(source, load_external_data=False).graph
    precisions = {}
    if options["granularity"] != "model":
        precisions = present(chosen_precisions(options), graph.node)
        if not any(precisions.values()):  # all that is there is to stay float
            _copy(source, graph, target.parent)
            return
    scheme = options["scheme"]
    if scheme == "float16":
        from .half_precision import store_as_float16

        store_as_float16(source, target)
    elif scheme == "weight_only":
        _quantize_weights(source, target, options, precisions)
    else:
        _quantize_to_8_bits(source, target, options, precisions, feeds)
    _check(source, target, scheme)
    shorten_names(target)


def _copy(source: Path, graph: Any, folder: Path) -> None:
    """The file and those that hold its weights, byte for byte."""
    outside = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in (source.name, *sorted(outside)):
        shutil.copyfile(source.parent / name, folder / name)


def _quantize_weights(
    source: Path, target: Path, options: Options, precisions: dict[str, bool]
) -> None:
    import onnx

    from .precision import kept_in_float
    from .weight_only import quantize_weights

    nodes = onnx.load(source, load_external_data=False).graph.node
    quantize_weights(
        source,
        target,
        bits=options["bits"],
        block_size=options["block_size"],
        kept=kept_in_float(precisions, nodes),
    )


def _quantize_to_8_bits(
    source: Path,
    target: Path,
    options: Options,
    precisions: dict[str, bool],
    feeds: Sequence[Feed],
) -> None:
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from .eight_bits import quantize_to_dynamic, quantize_to_static
    from .precision import kept_in_float

    prepared = target.with_name("prepared.onnx")
    quant_pre_process(source, prepared)
    graph = onnx.load(prepared, load_external_data=False).graph
    kept = kept_in_float(precisions, graph.node)
    if options["scheme"] == "dynamic":
        quantize_to_dynamic(prepared, target, options, kept)
    else:
        quantize_to_static(prepared, target, options, feeds, kept)
    prepared.unlink()


def _check(source: Path, target: Path, scheme: str) -> None:
    import onnx

    before, after = (
        [node.op_type for node in onnx.load(path, load_external_data=False).graph.node]
        for path in (source, target)
    )
    if not any(after.count(mark) > before.count(mark) for mark in MARKS[scheme]):
        target.unlink()
        raise Refused(f"scheme {scheme!r} finds nothing to quantize: {COVERED[scheme]}")


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
