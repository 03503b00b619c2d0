"""8-bit integers in a file that ONNX Runtime has prepared for it: static (QDQ) and dynamic."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

from .base import Options
from .calibration import Feed, activation_ranges

# Dynamic quantization of a convolution makes a ConvInteger node, several times slower than float.
DYNAMIC_OPS = ["MatMul", "Gemm"]
STATIC_OPS = {
    "conv_matmul": ["Conv", "MatMul", "Gemm"],
    "all": sorted({*QLinearOpsRegistry, *QDQRegistry}),
}
ACTIVATIONS = {"uint8": QuantType.QUInt8, "int8": QuantType.QInt8}


def quantize_to_static(
    source: Path, target: Path, options: Options, feeds: Sequence[Feed], kept: Collection[str]
) -> None:
    """Write QuantizeLinear and DequantizeLinear around operators, with ranges from data.

    Args:
        source: Prepared by `quant_pre_process`.
        feeds: The inputs that the ranges of activations are taken from.
        kept: The names of nodes that stay in float.
    """
    operators = STATIC_OPS[options["op_types"]]
    ranges = activation_ranges(
        source, feeds, options["calibrator"], operators, workdir=target.parent
    )
    quantizer = QDQQuantizer(
        load_model_with_shape_infer(source),
        options["weight_granularity"] == "per_channel",
        options["reduce_range"],
        QuantType.QInt8,
        ACTIVATIONS[options["activation"]],
        ranges,
        [],
        list(kept),
        operators,
        {},
    )
    quantizer.quantize_model()
    quantizer.model.save_model_to_file(target, False)


def quantize_to_dynamic(
    source: Path, target: Path, options: Options, kept: Collection[str]
) -> None:
    """Write products whose activations are quantized at run time; see `quantize_to_static`."""
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=DYNAMIC_OPS,
        per_channel=True,
        reduce_range=options["reduce_range"],
        weight_type=QuantType.QInt8,
        # A Gemm is made a MatMul and an Add before names are compared.
        nodes_to_exclude=[*kept, *(f"{name}_MatMul" for name in kept)],
    )
