"""Weights stored as float16, for half of the file; everything is computed in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .base import Refused


def store_as_float16(source: Path, target: Path) -> None:
    """Round float32 constants to float16, each with a Cast back to float32 behind it.

    ONNX Runtime folds the casts when it loads the file, so what runs is the float32 network with
    rounded weights. A constant that would take no less room with its Cast stays as it is.

    Raises:
        Refused: A weight lies beyond the range of float16.
    """
    model = onnx.load(source)
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        name, stored = tensor.name, f"{tensor.name}_float16"
        cast = helper.make_node("Cast", [stored], [name], f"{stored}/Cast", to=TensorProto.FLOAT)
        if array.nbytes // 2 <= cast.ByteSize() + len("_float16"):
            continue
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float16)
        if (np.isinf(rounded) & np.isfinite(array)).any():
            most = np.finfo(np.float16).max
            raise Refused(f"float16 ends at {most:g}, and {name!r} has greater weights")
        tensor.CopyFrom(numpy_helper.from_array(rounded, stored))
        casts.append(cast)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, target)
