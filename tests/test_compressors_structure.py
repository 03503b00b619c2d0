"""Structures as JSON, facts about models, and inputs as arrays."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from assets.toy_models import Attention, Masked, TwoHeads, conv_net, mlp
from assets.toy_task import ToyNet
from torch import nn

from compressors.arrays import named_arrays, with_batch_size
from compressors.inspect import output_layers, parameter_count, tensors_in, weights_digest
from compressors.structure import structure_difference, with_structure
from compressors.training import seeded


def through_json(recipe):
    return json.loads(json.dumps(recipe, allow_nan=False))


def layers(width, groups=1):
    """Every kind of layer that pruning changes, at some width."""
    with seeded(width):
        return nn.Sequential(
            nn.Conv2d(3, width, 3),
            nn.BatchNorm2d(width),
            nn.Conv2d(width, width, 3, padding=1, groups=groups),
            nn.GroupNorm(2, width),
            nn.ConvTranspose2d(width, width, 2, stride=2),
            nn.PReLU(width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.LayerNorm(width),
            nn.Linear(width, 4),
        ).eval()


@pytest.mark.parametrize(("old", "new"), [((8, 1), (4, 1)), ((8, 2), (4, 2)), ((8, 8), (4, 4))])
def test_a_recipe_and_the_weights_rebuild_the_changed_model(old, new):
    original, changed = layers(*old), layers(*new)
    recipe = through_json(structure_difference(original, changed))
    rebuilt = with_structure(original, recipe)
    rebuilt.load_state_dict(changed.state_dict(), strict=True)
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rebuilt(images), changed(images))
    assert repr(rebuilt) == repr(changed)  # attributes too: out_channels, groups, ...
    assert structure_difference(rebuilt, changed) == {"attributes": {}, "shapes": {}}


def test_a_recipe_names_what_differs_and_nothing_else():
    recipe = structure_difference(
        mlp(), nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 4))
    )
    assert recipe == {
        "attributes": {"0": {"out_features": 5}, "2": {"in_features": 5}},
        "shapes": {"0.weight": [5, 8], "0.bias": [5], "2.weight": [4, 5]},
    }


def test_equal_structures_give_an_empty_recipe():
    with seeded(1):
        other = ToyNet()  # other weights, another mode
    assert structure_difference(ToyNet().eval(), other.train()) == {"attributes": {}, "shapes": {}}


def test_with_structure_leaves_its_model_and_frozen_weights_alone():
    original = layers(8).requires_grad_(False)
    before = weights_digest(original)
    rebuilt = with_structure(original, structure_difference(original, layers(4)))
    assert weights_digest(original) == before
    assert not any(parameter.requires_grad for parameter in rebuilt.parameters())
    assert isinstance(rebuilt[0].weight, nn.Parameter)
    assert "running_mean" in dict(rebuilt[1].named_buffers())


def test_an_empty_recipe_gives_a_copy():
    model = mlp()
    copied = with_structure(model, {})
    assert weights_digest(copied) == weights_digest(model)
    assert copied[0].weight is not model[0].weight


def test_models_with_other_modules_have_no_difference_to_write_down():
    other = nn.Sequential(*mlp(), nn.ReLU())
    with pytest.raises(ValueError, match=r"must have the same modules, got 3"):
        structure_difference(mlp(), other)


def test_models_with_other_tensors_have_no_difference_to_write_down():
    other = mlp()
    other[2].bias = None
    with pytest.raises(ValueError, match=r"must have the same tensors, got 2\.bias"):
        structure_difference(mlp(), other)


IMAGES = torch.zeros(2, 3, 8, 8)
NUMBERS = torch.zeros(2, 8)


def names_of_output_layers(model, inputs):
    names = {module: name for name, module in model.named_modules()}
    return [names[layer] for layer in output_layers(model, inputs)]


@pytest.mark.parametrize(
    ("model", "inputs", "names"),
    [
        (lambda: mlp(), NUMBERS, ["2"]),
        (lambda: conv_net(), IMAGES, ["6"]),
        (lambda: nn.Sequential(*mlp(), nn.Softmax(-1)), NUMBERS, ["2"]),
        (lambda: nn.Sequential(*mlp(), nn.ReLU(inplace=True)), NUMBERS, ["2"]),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Flatten()),
            IMAGES,
            ["1"],
        ),
        (lambda: TwoHeads(), NUMBERS, ["first", "second"]),
        (lambda: Masked(), (torch.zeros(2, 4), torch.zeros(2, 4)), ["linear"]),
        (lambda: Masked(), {"mask": torch.zeros(2, 4), "values": torch.zeros(2, 4)}, ["linear"]),
        (lambda: Attention(), torch.zeros(2, 5, 8), ["linear"]),
        (lambda: Residual(), NUMBERS, ["inner", "outer"]),
        (lambda: nn.ReLU(), NUMBERS, []),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_output_layers_are_those_next_to_an_output(model, inputs, names, frozen):
    model = model().eval().requires_grad_(not frozen)
    assert names_of_output_layers(model, inputs) == names
    assert all(parameter.requires_grad != frozen for parameter in model.parameters())


class Residual(nn.Module):
    """The sum of two layers' outputs is the output: both have its width."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.inner(x)
        return x + self.outer(x.relu())


def test_output_layers_leave_no_hook_behind():
    model = mlp()
    output_layers(model, NUMBERS)
    assert not any(module._forward_hooks for module in model.modules())


def test_without_gradients_the_last_layer_counts_as_the_output():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            with torch.no_grad():
                return self.inner(x)

    assert names_of_output_layers(Detached(), NUMBERS) == ["inner.2"]


def test_parameters_are_counted_once():
    assert parameter_count(mlp()) == 8 * 16 + 16 + 16 * 4 + 4


def reshape_bias(model):
    model.classifier.bias = nn.Parameter(model.classifier.bias.detach().reshape(2, 2))


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.stem.weight.data[0, 0, 0, 0].add_(1e-6),
        lambda model: model.norm1.running_mean.add_(1e-6),
        lambda model: model.norm2.num_batches_tracked.add_(1),
        lambda model: model.classifier.half(),
        reshape_bias,
    ],
    ids=["a weight", "a statistic", "a counter", "a type", "a shape"],
)
def test_weights_digest_sees(change):
    with seeded(0):
        plain = ToyNet()
    changed = copy.deepcopy(plain)
    change(changed)
    assert weights_digest(plain) != weights_digest(changed)


def test_weights_digest_is_of_the_content_alone():
    model = ToyNet()
    twin = copy.deepcopy(model)
    twin.classifier.weight.data = twin.classifier.weight.data.t().contiguous().t()  # strides
    assert weights_digest(twin.train()) == weights_digest(model.eval())


def test_weights_digest_is_the_sha256_it_says():
    model = nn.Linear(1, 1, bias=False)
    content = b"weight/(1, 1)/torch.float32\n" + model.weight.detach().numpy().tobytes()
    assert weights_digest(model) == hashlib.sha256(content).hexdigest()


def test_tensors_in_finds_all_in_order():
    a, b, c = torch.zeros(3, 1)
    found = list(tensors_in({"x": a, "y": [b, (c, "text", None)]}))
    assert [id(tensor) for tensor in found] == [id(a), id(b), id(c)]


def test_named_arrays_take_a_tensor_a_tuple_and_a_dict():
    a, b = torch.tensor([1.0]), torch.tensor([2])
    assert named_arrays(a, ["x"])["x"].tolist() == [1.0]
    assert {k: v.tolist() for k, v in named_arrays((a, b), ["x", "y"]).items()} == {
        "x": [1.0],
        "y": [2],
    }
    by_name = named_arrays({"y": b, "x": a}, ["x", "y"])
    assert list(by_name) == ["x", "y"]
    assert by_name["y"].dtype == np.int64


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((NUMBERS, NUMBERS), r"takes \['x'\], the task's inputs\(\) gives 2 tensors"),
        ({"y": NUMBERS}, r"takes \['x'\], the task's inputs\(\) gives \['y'\]"),
    ],
)
def test_named_arrays_say_what_does_not_fit(inputs, message):
    with pytest.raises(ValueError, match=message):
        named_arrays(inputs, ["x"])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_with_batch_size_cuts_or_repeats_samples(size):
    feed = {"x": np.arange(6).reshape(3, 2), "scale": np.array(2.0)}
    result = with_batch_size(feed, size)
    assert result["x"][:, 0].tolist() == [0, 2, 4, 0, 2, 4, 0][:size]
    assert result["x"].flags.c_contiguous
    assert result["scale"] == 2.0
