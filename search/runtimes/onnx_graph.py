"""ONNX graphs: removing what must not ship, and counting parameters and MACs."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from compressors.short_names import QUANTIZERS

SCOPES = "pkg.torch.onnx.name_scopes"
NO_SCOPE = "_empty_nn_module_stack"  # torch.export's word for code of no module
MATMULS = {"MatMul", "MatMulInteger", "Gemm"}
CONVS = {"Conv", "ConvInteger", "ConvTranspose"}


def tidy(path: Path) -> None:
    """Name nodes by their module and drop the exporter's metadata, in place.

    The dynamo exporter writes stack traces with paths of this machine into every node: they leak,
    and they make the file's hash depend on where things are installed.
    """
    model = onnx.load(path, load_external_data=False)
    weights = {tensor.name for tensor in model.graph.initializer}
    taken: Counter[str] = Counter()
    for node in _all_nodes(model.graph):
        name = f"{_module_path(node, weights) or 'model'}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
    _strip(model)
    del model.graph.value_info[:]  # runtimes infer them again
    onnx.save(model, path)


def count_work(path: Path) -> dict[str, float]:
    """`parameters`: elements of all weights and biases of the graph, without the scales and zero
    points of quantization and without integers that only describe shapes.
    `macs`: multiply-accumulates of convolutions and matrix products for one sample.
    """
    model = onnx.load(path, load_external_data=True)
    constants = {t.name: t for t in model.graph.initializer}
    weights = {name: tuple(t.dims) for name, t in constants.items() if _is_weight(t)}
    nodes = model.graph.node
    found_at_run_time = {n.output[1] for n in nodes if n.op_type == "DynamicQuantizeLinear"}
    for node in nodes:
        if node.op_type == "Mul" and found_at_run_time.intersection(node.input):
            for name in node.input:  # the scale of activations times that of weights
                weights.pop(name, None)
        elif node.op_type in QUANTIZERS:
            for name in node.input[1:]:
                weights.pop(name, None)
        elif node.op_type in ("ConvInteger", "MatMulInteger", "MatMulNBits"):
            for name in node.input[2:]:
                weights.pop(name, None)
        if node.op_type == "MatMulNBits":  # packed, and padded to whole blocks
            weights[node.input[1]] = _product_shape(node)
    return {
        "parameters": float(sum(math.prod(shape) for shape in weights.values())),
        "macs": float(_count_macs(model)),
    }


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of its branches and loop bodies."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_nodes(inner)


def _module_path(node: onnx.NodeProto, weights: set[str]) -> str:
    """The module that owns the node's weight (a fused BatchNorm is part of its convolution), else
    the innermost one whose code made the node."""
    for name in node.input[1:]:
        if name in weights and name.endswith(".weight"):
            return str(name).removesuffix(".weight")
    for prop in node.metadata_props:
        if prop.key == SCOPES:
            scopes = [s for s in ast.literal_eval(prop.value) if not s.startswith(NO_SCOPE)]
            return str(scopes[-2]) if len(scopes) > 1 else ""
    path: list[str] = []  # TorchScript names a node /layer1/layer1.0/conv1/Conv
    for scope in str(node.name).strip("/").split("/")[:-1]:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)


def _strip(message: Any) -> None:
    """Remove the documentation and metadata of a message and of all messages inside it."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in (value,) if hasattr(value, "ListFields") else value:
                _strip(part)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    integers = {onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
    return tensor.data_type not in integers


def _product_shape(node: onnx.NodeProto) -> tuple[int, int]:
    """(inputs, outputs) of a MatMulNBits."""
    sizes = {attribute.name: attribute.i for attribute in node.attribute}
    return sizes["K"], sizes["N"]


def _count_macs(model: onnx.ModelProto) -> int:
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":  # shape inference knows standard operators only
            matrix = helper.make_tensor_value_info(
                f"{node.input[1]}_unpacked", onnx.TensorProto.FLOAT, _product_shape(node)
            )
            product = helper.make_node("MatMul", [node.input[0], matrix.name], node.output)
            node.CopyFrom(product)
            model.graph.input.append(matrix)
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim in dims:
            if dim.dim_param:  # the batch, and lengths that are free
                dim.ClearField("dim_param")
                dim.dim_value = 1
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    graph = inferred.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(dim.dim_value or 1 for dim in dims)
    total = 0
    for node in graph.node:
        if node.op_type in CONVS:
            weight, output = shapes.get(node.input[1], ()), shapes.get(node.output[0], ())
            spatial = shapes.get(node.input[0], ()) if node.op_type == "ConvTranspose" else output
            positions = math.prod(spatial[2:]) * (spatial[0] if spatial else 0)
            total += positions * math.prod(weight)
        elif node.op_type in MATMULS:
            inner = shapes.get(node.input[0], ())
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            length = inner[0 if transposed else -1] if inner else 0
            total += math.prod(shapes.get(node.output[0], (0,))) * length
    return total
