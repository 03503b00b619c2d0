"""Matrices stored in few bits, block by block; everything is computed in float."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer


def quantize_weights(
    source: Path, target: Path, *, bits: int, block_size: int, kept: Collection[str]
) -> None:
    """Store the constant matrices of products as `MatMulNBits`, an operator of ONNX Runtime.

    Each `block_size` consecutive weights of an output have a scale and a zero point of their own.

    Args:
        bits: 8 or 4.
        kept: The names of nodes that stay as they are.
    """
    model = onnx.load(source)
    _split_gemms(model.graph, kept)
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=bits,
        block_size=block_size,
        nodes_to_exclude=list(kept),
        op_types_to_quantize=("MatMul",),
    )
    quantizer.process()
    result = quantizer.model.model
    distinct = {tensor.name: tensor for tensor in result.graph.initializer}
    del result.graph.initializer[:]  # a matrix of two products was written twice
    result.graph.initializer.extend(distinct.values())
    onnx.save(result, target)


def _split_gemms(graph: onnx.GraphProto, kept: Collection[str]) -> None:
    """Write a linear layer, exported as Gemm, as the product that it is, and a sum."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    matrices: dict[str, onnx.TensorProto] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Gemm" or node.name in kept or not _is_linear(node, constants):
            nodes.append(node)
            continue
        weight, bias = node.input[1], node.input[2] if len(node.input) > 2 else ""
        if _setting(node, "transB", 0):
            transposed = f"{weight}_transposed"
            if transposed not in matrices:
                array = np.ascontiguousarray(numpy_helper.to_array(constants[weight]).T)
                matrices[transposed] = numpy_helper.from_array(array, transposed)
            weight = transposed
        product = f"{node.output[0]}_product" if bias else node.output[0]
        nodes.append(
            helper.make_node("MatMul", [node.input[0], weight], [product], f"{node.name}_MatMul")
        )
        if bias:
            nodes.append(helper.make_node("Add", [product, bias], node.output, f"{node.name}_Add"))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(matrices.values())


def _is_linear(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return node.input[1] in constants and all(
        _setting(node, name, value) == value for name, value in plain.items()
    )


def _setting(node: onnx.NodeProto, name: str, default: float) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            return float(helper.get_attribute_value(attribute))
    return default
