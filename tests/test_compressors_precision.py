"""Mixed precision: which blocks and layers a model has, and which nodes of its file they mean."""

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf
from assets.toy_task import toy_task
from assets.vision_models import CifarResNet
from onnx_files import (
    DYNAMIC,
    STATIC,
    WEIGHT_ONLY,
    ToyFileContract,
    applied,
    initializers,
    nodes,
    text_batches,
    text_file,
    text_model,
)
from torch import nn

from compressors.precision import blocks_of_layers
from compressors.quantization import OnnxQuantization
from search.runtimes.onnx_runtime import OnnxRuntime
from strategies.space import Space

TOY_LAYERS = ("stem", "conv1", "conv2", "classifier")
TEXT_LAYERS = ("first", "second", "head")


@pytest.fixture(scope="module")
def toy():
    return toy_task()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    model = text_model()
    path = text_file(model, tmp_path_factory.mktemp("text"))
    return path, TaskOf(model, *text_batches((4, 5)))


def layers(options, names, *quantized):
    precisions = {f"precision@{n}": "int8" if n in quantized else "fp32" for n in names}
    return {**options, "granularity": "layer", **precisions}


class TestMixedPrecision(ToyFileContract):
    options = [
        layers(STATIC, TOY_LAYERS, "conv1", "classifier"),
        layers(DYNAMIC, TOY_LAYERS, "classifier"),
        layers(WEIGHT_ONLY, TOY_LAYERS, "classifier"),
        layers(STATIC, TOY_LAYERS),
    ]

    def make(self):
        return OnnxQuantization()


def rounded_layers(path):
    """The modules whose nodes take a weight of 8 bits, by the names of the nodes."""
    made = {output: node for node in nodes(path).values() for output in node.output}
    arrays = initializers(path)
    found = set()
    for name, node in nodes(path).items():
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            source = made.get(node.input[1])
            if source is not None and source.op_type == "DequantizeLinear":
                assert arrays[source.input[0]].dtype == np.int8
                found.add(name.partition("/")[0])
        elif node.op_type in ("MatMulInteger", "MatMulNBits"):
            found.add(name.partition("/")[0])
    return found


@pytest.mark.parametrize("chosen", [("conv1",), ("stem", "classifier"), ("conv1", "conv2")])
def test_static_quantizes_the_chosen_layers_alone(toy, toy_file, tmp_path, chosen):
    path = applied(toy_file, layers(STATIC, TOY_LAYERS, *chosen), toy, tmp_path / "work")
    assert rounded_layers(path) == set(chosen)


@pytest.mark.parametrize("options", [DYNAMIC, WEIGHT_ONLY], ids=["dynamic", "weight only"])
@pytest.mark.parametrize("chosen", [("first",), ("second", "head")])
def test_products_of_the_chosen_layers_alone_are_quantized(text, tmp_path, options, chosen):
    path, task = text
    result = applied(path, layers(options, TEXT_LAYERS, *chosen), task, tmp_path / "work")
    assert rounded_layers(result) == set(chosen)


@pytest.mark.parametrize(
    "options", [STATIC, DYNAMIC, WEIGHT_ONLY], ids=["static", "dynamic", "weight only"]
)
def test_all_layers_in_8_bits_are_the_model_in_8_bits(text, tmp_path, options):
    path, task = text
    every = applied(path, layers(options, TEXT_LAYERS, *TEXT_LAYERS), task, tmp_path / "every")
    whole = applied(path, options, task, tmp_path / "whole")
    assert every.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("options", [STATIC, DYNAMIC, WEIGHT_ONLY])
def test_all_layers_in_float_are_the_float_file(toy, toy_file, tmp_path, options):
    result = applied(toy_file, layers(options, TOY_LAYERS), toy, tmp_path / "work")
    assert result.read_bytes() == toy_file.read_bytes()


def test_a_sum_between_layers_is_quantized_when_all_of_them_are(toy, toy_file, tmp_path):
    for chosen, expected in ((TOY_LAYERS, True), (("conv1", "conv2"), False)):
        options = layers(STATIC, TOY_LAYERS, *chosen)
        path = applied(toy_file, options, toy, tmp_path / str(expected))
        (addition,) = (node for node in nodes(path).values() if node.op_type == "Add")
        readers = {n.op_type for n in nodes(path).values() if addition.output[0] in n.input}
        assert readers == ({"QuantizeLinear"} if expected else {"Relu"})


def test_knobs_of_layers_that_were_pruned_away_mean_nothing(toy, toy_file, tmp_path):
    gone = {"precision@dropped.0.conv": "fp32", "precision@dropped.0": "int8"}
    options = layers(STATIC, TOY_LAYERS, *TOY_LAYERS)
    with_gone = applied(toy_file, {**options, **gone}, toy, tmp_path / "with")
    without = applied(toy_file, options, toy, tmp_path / "without")
    assert with_gone.read_bytes() == without.read_bytes()
    only_gone = applied(toy_file, {**layers(STATIC, TOY_LAYERS), **gone}, toy, tmp_path / "only")
    assert only_gone.read_bytes() == toy_file.read_bytes()


def test_blocks_quantize_what_is_in_them(tmp_path):
    model = CifarResNet(8).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "model.onnx"
    OnnxRuntime().export(model, images, path)
    names = sorted(set(blocks_of_layers(model).values()))
    assert names == ["conv1", "layer1.0", "layer2.0", "layer3.0", "linear"]
    precisions = {f"precision@{n}": "int8" if n == "layer2.0" else "fp32" for n in names}
    options = {**STATIC, "granularity": "block", **precisions}
    result = applied(path, options, TaskOf(model, (images, None)), tmp_path / "work")
    assert rounded_layers(result) == {"layer2.0.conv1", "layer2.0.conv2"}


class Convolution(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(4, 4, 1), nn.ReLU())


class Inverted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(Convolution(), Convolution(), nn.Conv2d(4, 4, 1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.out = (nn.Linear(4, 4) for _ in range(3))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Attention()
        self.linear = nn.Linear(4, 4)


def mobile():
    return nn.Sequential(Convolution(), Inverted(), Inverted(), nn.Linear(4, 2))


def encoders():
    model = nn.Module()
    model.embedding = nn.Embedding(3, 4)
    model.layers = nn.ModuleList([Encoder(), Encoder(), Encoder()])
    model.head = nn.Linear(4, 2)
    return model


@pytest.mark.parametrize(
    ("model", "blocks"),
    [
        (mobile(), ["0.0", "1", "2", "3"]),
        (encoders(), ["layers.0", "layers.1", "layers.2", "head"]),
        (nn.Sequential(mobile(), nn.Linear(2, 2)), ["0.0.0", "0.1", "0.2", "0.3", "1"]),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), ["0", "2"]),
        (
            CifarResNet(20),
            ["conv1", *(f"layer{n}.{k}" for n in (1, 2, 3) for k in (0, 1, 2)), "linear"],
        ),
    ],
    ids=["inverted residuals", "encoders", "wrapped", "plain", "resnet"],
)
def test_blocks_are_what_repeats(model, blocks):
    assert list(dict.fromkeys(blocks_of_layers(model).values())) == blocks


def test_knobs_of_blocks_and_layers_are_active_where_the_granularity_says_so():
    knobs = OnnxQuantization().knobs(CifarResNet(8), None)
    per_module = {k.name.removeprefix("precision@"): k for k in knobs if "@" in k.name}
    names = ["conv1", "layer1.0", "layer1.0.conv1", "layer1.0.conv2", "linear"]
    assert set(names) <= set(per_module)
    assert per_module["layer1.0"].active_when.value == ("block",)
    assert per_module["layer1.0.conv1"].active_when.value == ("layer",)
    assert per_module["linear"].active_when.value == ("block", "layer")
    for knob in per_module.values():
        assert (knob.ordered, knob.neutral, knob.values) == (True, "fp32", ("fp32", "int8"))
    space = Space(
        knob.resolve("static" if knob.name == "scheme" else "layer")
        if knob.name in ("scheme", "granularity")
        else knob.resolve()
        for knob in knobs
    )
    assert not [name for name in space.baseline() if "@" in name]  # scheme none has no layers
    layer_names = {n.removeprefix("precision@") for n in space.extreme() if "@" in n}
    assert layer_names == set(blocks_of_layers(CifarResNet(8)))


def test_without_a_model_there_are_no_knobs_of_layers():
    assert not [knob for knob in OnnxQuantization().knobs(None, None) if "@" in knob.name]
