"""Exported files: what they compute, what stands in them, and how their work is counted."""

import ast
import contextlib
import copy
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from assets.toy_models import (
    Branching,
    Eigenvalues,
    Masked,
    MaskedByBranches,
    TaskOf,
    TwoHeads,
)
from assets.toy_task import Toy
from assets.vision_models import ViT
from onnx import helper, numpy_helper
from torch import nn

from compressors.arrays import named_arrays
from compressors.base import Context, Refused
from compressors.inspect import forward, tensors_in, weights_digest
from compressors.quantization import OnnxQuantization
from compressors.testing import random_states
from compressors.training import seeded
from search.runtimes.onnx_graph import count_work, tidy
from search.runtimes.onnx_runtime import OnnxRuntime

BATCH_SIZES = (1, 3, 64)


class Nested(nn.Module):
    """Modules in modules, one of them used twice, with normalisation that export folds away."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            nn.Conv2d(4, 4, 1),
        )
        self.heads = nn.ModuleDict({"last": nn.Linear(4, 2)})

    def forward(self, x):
        x = self.blocks(x)
        return self.heads["last"](self.blocks[1](x).mean((2, 3)))


class Chosen(nn.Module):
    """Chooses inside the graph: the nodes of both ways stand in subgraphs."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: self.one(x), lambda x: self.other(x), (x,))


def built(make):
    with seeded(0):
        return make().eval()


def random_inputs(shapes, count):
    """A tensor, a tuple or a dict of them, as `shapes` is."""
    generator = torch.Generator().manual_seed(count)
    if isinstance(shapes, dict):
        return {n: torch.randn(count, *s, generator=generator) for n, s in shapes.items()}
    if isinstance(shapes, list):
        return tuple(torch.randn(count, *shape, generator=generator) for shape in shapes)
    return torch.randn(count, *shapes, generator=generator)


# name -> (the model, shapes of its inputs without the batch)
MODELS = {
    "toy": (lambda: Toy().model(), (1, 8, 8)),
    "nested": (lambda: built(Nested), (1, 8, 8)),
    "tuple": (lambda: built(Masked), [(4,), (4,)]),
    "dict": (lambda: built(Masked), {"mask": (4,), "values": (4,)}),
    "two outputs": (lambda: built(TwoHeads), (8,)),
    "chosen": (lambda: built(Chosen), (4,)),
    "len(x) for the batch size": (lambda: built(ViT), (3, 8, 8)),
}
FALLBACKS = {
    "nested by branches": (lambda: Branching(built(Nested)).eval(), (1, 8, 8)),
    "tuple by branches": (lambda: built(MaskedByBranches), [(4,), (4,)]),
    "dict by branches": (lambda: built(MaskedByBranches), {"mask": (4,), "values": (4,)}),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """name -> (the model, its file, the exporter's note), each exported once for all tests."""
    made = {}

    def export(name):
        if name not in made:
            make, shapes = {**MODELS, **FALLBACKS}[name]
            model, path = make(), tmp_path_factory.mktemp("export") / "model.onnx"
            before, printed = (weights_digest(model), random_states()), io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                note = OnnxRuntime().export(model, random_inputs(shapes, 1), path)
            assert printed.getvalue() == "", name
            assert (weights_digest(model), random_states()) == before, name
            assert not any(module.training for module in model.modules()), name
            made[name] = model, path, note
        return made[name]

    return export


@pytest.mark.parametrize("name", [*MODELS, *FALLBACKS])
def test_a_file_agrees_with_its_model_at_every_batch_size(exported, name):
    model, path, _ = exported(name)
    _, shapes = {**MODELS, **FALLBACKS}[name]
    session = OnnxRuntime().load(path, threads=1)
    for count in BATCH_SIZES:
        inputs = random_inputs(shapes, count)
        with torch.no_grad():
            expected = list(tensors_in(forward(model, inputs)))
        outputs = session(named_arrays(inputs, session.input_names))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for want, got in zip(expected, outputs, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_exports_has_no_note(exported, name):
    assert exported(name)[2] == ""


@pytest.mark.parametrize("name", FALLBACKS)
def test_the_fallback_says_so_and_why_in_one_line(exported, name):
    note = exported(name)[2]
    assert note.startswith("exported by TorchScript; torch.export says GuardOnDataDependent")
    assert "\n" not in note


def test_a_model_that_no_exporter_takes_is_refused_in_one_line(tmp_path):
    with pytest.raises(Refused) as caught:
        OnnxRuntime().export(Eigenvalues(), torch.eye(3)[None], tmp_path / "model.onnx")
    message = str(caught.value)
    assert message.startswith("the model cannot be exported to ONNX: torch.export says ")
    assert "_linalg_eigh" in message.partition("; TorchScript says ")[0]
    assert "linalg_eigvalsh" in message.partition("; TorchScript says ")[2]
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*MODELS, *FALLBACKS])
def test_exporting_is_quiet_and_changes_neither_the_model_nor_random_states(exported, name):
    assert exported(name)[1].is_file()  # the fixture checks it while it exports


def test_two_exports_give_the_same_bytes(exported, tmp_path):
    model, path, _ = exported("toy")
    images = torch.ones(5, 1, 8, 8)  # other values, another batch size
    OnnxRuntime().export(copy.deepcopy(model), images, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == path.read_bytes()


EXPORT_ELSEWHERE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from toy_task import Toy
from search.runtimes.onnx_runtime import OnnxRuntime
toy = Toy()
OnnxRuntime().export(toy.model(), toy.eval_batches()[0][0], Path("other.onnx"))
"""


def test_another_process_in_another_folder_gives_the_same_bytes(exported, tmp_path):
    _, path, _ = exported("toy")
    script = tmp_path / "export_elsewhere.py"
    script.write_text(EXPORT_ELSEWHERE)
    assets = Path(__file__).parent / "assets"
    subprocess.run([sys.executable, script, assets], cwd=tmp_path, check=True)
    assert (tmp_path / "other.onnx").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", [*MODELS, *FALLBACKS])
def test_a_file_says_nothing_of_the_machine_that_wrote_it(exported, name):
    path = exported(name)[1]
    content = path.read_bytes()
    for trace in (b".py", b"stack_trace", b"pkg.torch", b"packages", bytes(path.parent)):
        assert trace not in content, trace
    assert bytes(Path(__file__).parent.parent) not in content
    assert not onnx.load(path).graph.value_info


@pytest.mark.parametrize("name", [*MODELS, *FALLBACKS])
def test_nodes_are_named_by_module_path(exported, name):
    model, path, _ = exported(name)
    nodes = onnx.load(path).graph.node
    modules = {"model", *dict(model.named_modules())}
    assert {node.name.partition("/")[0] for node in nodes} <= modules
    assert {node.name.partition("/")[2].partition("_")[0] for node in nodes} <= {
        node.op_type for node in nodes
    }
    assert len({node.name for node in nodes}) == len(nodes)


def test_a_node_with_weights_has_the_name_of_their_module(exported):
    _, path, _ = exported("toy")
    named = [n.name for n in onnx.load(path).graph.node if n.op_type in ("Conv", "Gemm")]
    assert named == ["stem/Conv", "conv1/Conv", "conv2/Conv", "classifier/Gemm"]


@pytest.mark.parametrize(
    ("name", "prefix"), [("nested", ""), ("nested by branches", "inner.")], ids=["", "fallback"]
)
def test_both_exporters_give_the_same_names(exported, name, prefix):
    _, path, _ = exported(name)
    named = [n.name.removeprefix(prefix) for n in onnx.load(path).graph.node]
    expected = ["blocks.0.0/Conv", "blocks.0.2/Relu", "blocks.1/Conv", "blocks.1/Conv_2"]
    assert named[:4] == expected
    assert named[-1] == "heads.last/Gemm"


def test_inputs_keep_their_names_where_they_have_some(exported):
    runtime = OnnxRuntime()
    for name in ("dict", "dict by branches"):
        session = runtime.load(exported(name)[1], threads=1)
        assert sorted(session.input_names) == ["mask", "values"]
    for name in ("tuple", "tuple by branches"):
        assert runtime.load(exported(name)[1], threads=1).input_names == ["values", "mask"]


def test_several_outputs_come_as_a_tuple(exported):
    session = OnnxRuntime().load(exported("two outputs")[1], threads=1)
    outputs = session({session.input_names[0]: np.zeros((3, 8), np.float32)})
    assert [output.shape for output in outputs] == [(3, 6), (3, 4)]
    assert isinstance(outputs, tuple)


@pytest.mark.parametrize("name", ["toy", "tuple", "nested by branches"])
def test_the_loading_example_runs_with_the_runtime_alone(exported, name, monkeypatch):
    _, path, _ = exported(name)
    _, shapes = {**MODELS, **FALLBACKS}[name]
    runtime = OnnxRuntime()
    session = runtime.load(path, threads=1)
    lines = runtime.loading_example(path, threads=3)
    feed = named_arrays(random_inputs(shapes, 2), session.input_names)
    monkeypatch.chdir(path.parent)
    namespace = dict(feed)
    exec("\n".join(lines), namespace)
    np.testing.assert_array_equal(namespace["outputs"][0], session(feed))
    assert namespace["options"].intra_op_num_threads == 3
    assert imported_by(lines) <= {"onnxruntime", "numpy"}


def imported_by(lines):
    nodes = ast.walk(ast.parse("\n".join(lines)))
    return {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def test_a_loading_example_stands_for_inputs_whose_names_are_no_identifiers(tmp_path):
    path = graph_file(tmp_path, [helper.make_node("Relu", ["in.0"], ["y"])], {"in.0": (4,)})
    lines = OnnxRuntime().loading_example(path, threads=1)
    assert '{"in.0": array}' in lines[-1]
    ast.parse("\n".join(lines))


def test_work_is_what_one_counts_by_hand(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, stride=2, groups=2),
        nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2),
        nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
        nn.Flatten(),
        nn.Linear(6 * 7 * 7, 5),
    )
    images = torch.zeros(1, 4, 8, 8)
    OnnxRuntime().export(model.eval(), images, tmp_path / "model.onnx")
    assert OnnxRuntime().inspect(tmp_path / "model.onnx") == {
        "parameters": (
            (8 * 2 * 9 + 8)  # 4 channels in 2 groups
            + (8 * 3 * 9 + 6)  # 6 channels out in 2 groups
            + (6 * 1 * 9)
            + (5 * 6 * 7 * 7 + 5)
        ),
        "macs": (
            3 * 3 * (8 * 2 * 9)  # of 8x8 images: 3x3 positions, every other one
            + 3 * 3 * (8 * 3 * 9)  # each of the 3x3 inputs is spread over 3x3 outputs
            + 7 * 7 * (6 * 9)
            + 5 * 6 * 7 * 7
        ),
    }


def test_work_of_the_toy_is_that_of_its_folded_layers(exported):
    # Folding turns the BatchNorm of a convolution, 4 numbers per channel, into its bias.
    width, positions = 16, 8 * 8
    weights = 9 * width + 2 * 9 * width**2
    assert OnnxRuntime().inspect(exported("toy")[1]) == {
        "parameters": weights + 3 * width + 4 * width * 4 + 4,
        "macs": positions * weights + 4 * width * 4,
    }


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "dynamic"},
        {"scheme": "static", "activation": "uint8", "calibrator": "minmax"},
        {"scheme": "static", "activation": "int8", "calibrator": "minmax"},
    ],
    ids=["dynamic", "static uint8", "static int8"],
)
@pytest.mark.parametrize("name", ["toy", "tuple"])
def test_quantizing_changes_neither_parameters_nor_macs(exported, tmp_path, name, options):
    model, path, _ = exported(name)
    _, shapes = MODELS[name]
    batch = random_inputs(shapes, 4)
    task = TaskOf(model, batch if isinstance(batch, tuple) else (batch, None))
    task.inputs = lambda _: batch
    result = OnnxQuantization().apply(path, options, Context(task, task.model, 0, tmp_path))
    assert count_work(result) == count_work(path)


def graph_file(folder, nodes, inputs, weights=None):
    """A file of some nodes, of which the last makes the output `y`."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *shape])
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def test_products_of_activations_are_work_without_parameters(tmp_path):
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    path = graph_file(tmp_path, [node], {"a": (2, 5, 7), "b": (2, 7, 3)})
    assert count_work(path) == {"parameters": 0, "macs": 2 * 5 * 7 * 3}


@pytest.mark.parametrize("transposed", [False, True])
def test_work_of_a_gemm_does_not_depend_on_how_its_weight_lies(tmp_path, transposed):
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=int(transposed))
    weights = {"w": zeros(3, 6) if transposed else zeros(6, 3)}
    path = graph_file(tmp_path, [node], {"x": (6,)}, weights)
    assert count_work(path) == {"parameters": 6 * 3, "macs": 6 * 3}


def test_shapes_are_no_parameters_and_scales_of_a_float_model_are(tmp_path):
    nodes = [
        helper.make_node("Mul", ["x", "block.layer_scale"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "shape"], ["y"]),
    ]
    weights = {"block.layer_scale": zeros(6), "shape": np.array([-1, 2, 3])}
    path = graph_file(tmp_path, nodes, {"x": (6,)}, weights)
    assert count_work(path) == {"parameters": 6, "macs": 0}


def test_counting_leaves_the_file_alone(exported):
    path = exported("toy")[1]
    before = path.read_bytes()
    count_work(path)
    assert path.read_bytes() == before


def test_tidying_twice_changes_nothing_more(exported, tmp_path):
    for name in ("toy", "chosen"):
        content = exported(name)[1].read_bytes()
        (tmp_path / "model.onnx").write_bytes(content)
        tidy(tmp_path / "model.onnx")
        assert (tmp_path / "model.onnx").read_bytes() == content


def test_threads_of_a_session_do_not_spin(toy_file):
    options = OnnxRuntime().load(toy_file, threads=2)._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
