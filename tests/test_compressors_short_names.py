"""Tensors inside a quantized file have short names; all else in it is as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from assets.toy_task import toy_task
from onnx import helper, numpy_helper
from onnx_files import DYNAMIC, FLOAT16, STATIC, WEIGHT_ONLY, applied

from compressors.base import Context
from compressors.quantization import OnnxQuantization
from compressors.short_names import QUANTIZERS, shorten_names
from search.runtimes.onnx_runtime import OnnxRuntime


@pytest.fixture(scope="module")
def toy():
    return toy_task()


@pytest.fixture
def quantized(toy, toy_file, tmp_path):
    return applied(toy_file, STATIC, toy, tmp_path / "work")


def outputs(path, toy):
    session = OnnxRuntime().load(path, threads=1)
    return [session({session.input_names[0]: images.numpy()}) for images, _ in toy.eval_batches()]


def test_the_model_computes_the_same(quantized, toy):
    before, size = outputs(quantized, toy), quantized.stat().st_size
    shorten_names(quantized)
    for expected, found in zip(before, outputs(quantized, toy), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert quantized.stat().st_size < 0.9 * size
    onnx.checker.check_model(onnx.load(quantized), full_check=True)


def test_inputs_outputs_and_the_nodes_of_layers_keep_their_names(quantized):
    before = onnx.load(quantized).graph
    shorten_names(quantized)
    after = onnx.load(quantized).graph
    assert after.input == before.input
    assert after.output == before.output
    for old, new in zip(before.node, after.node, strict=True):
        assert new.name == ("" if old.op_type in QUANTIZERS else old.name)
        assert (new.op_type, new.attribute) == (old.op_type, old.attribute)
    inside = [name for node in after.node for name in node.output]
    inside += [tensor.name for tensor in after.initializer]
    assert len(set(inside)) == len(inside)
    own = {value.name for value in (*after.input, *after.output)}
    assert max(len(name) for name in set(inside) - own) <= 3


@pytest.mark.parametrize(
    "options", [STATIC, DYNAMIC, WEIGHT_ONLY, FLOAT16], ids=lambda options: options["scheme"]
)
def test_every_quantized_file_is_shortened(tmp_path, toy, toy_file, options):
    long = applied(toy_file, options, toy, tmp_path / "long")
    (tmp_path / "short").mkdir()
    context = Context(toy, toy.model, 0, tmp_path / "short")
    short = OnnxQuantization().apply(toy_file, options, context)
    for expected, found in zip(outputs(long, toy), outputs(short, toy), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert short.stat().st_size < long.stat().st_size
    shorten_names(long)
    assert long.read_bytes() == short.read_bytes()


def number(name):
    return numpy_helper.from_array(np.float32([1]), name)


def saved(path, graph):
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_names_of_the_model_itself_are_not_given_twice(tmp_path):
    """Its input is called 0, which would be the first number."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["0", "one"], ["sum"]),
            helper.make_node("Clip", ["sum", "", "one"], ["1"]),
        ],
        "g",
        [value("0", 1, [1])],
        [value("1", 1, [1])],
        [number("one")],
    )
    path = saved(tmp_path / "model.onnx", graph)
    shorten_names(path)
    add, clip = onnx.load(path).graph.node
    assert list(add.input) == ["0", "2"]
    assert list(clip.input) == ["3", "", "2"]
    assert list(clip.output) == ["1"]


def test_names_that_an_inner_graph_may_use_stay(tmp_path):
    value = helper.make_tensor_value_info
    inner = [
        helper.make_graph(
            [helper.make_node(op, ["sum", "one"], [op])], op, [], [value(op, 1, [1])]
        )
        for op in ("Mul", "Sub")
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "one"], ["sum"]),
            helper.make_node(
                "If", ["is_first"], ["y"], then_branch=inner[0], else_branch=inner[1]
            ),
        ],
        "g",
        [value("x", 1, [1]), value("is_first", 9, [])],
        [value("y", 1, [1])],
        [number("one")],
    )
    path = saved(tmp_path / "model.onnx", graph)
    before = path.read_bytes()
    shorten_names(path)
    assert path.read_bytes() == before
