"""Groups of channels: which there are, which can go, and that removing them is exact."""

import copy

import pytest
import torch
from assets.toy_models import (
    Attention,
    DetachedFeatures,
    FixedWidth,
    PaddedShortcut,
    TwoHeads,
    conv_net,
    mlp,
)
from assets.vision_models import (
    Bottleneck,
    CifarResNet,
    ConvNeXt,
    Dense,
    Gated,
    Heads,
    Shuffle,
    SqueezeExcite,
    UNet,
    ViT,
)
from torch import nn

from compressors.channel_groups import channel_groups, keep_channels
from compressors.channel_slices import width_of
from compressors.training import seeded


def made(kind, *args):
    """A model in evaluation mode, its BatchNorms as uneven as those of a trained one."""
    with seeded(0):
        model = kind(*args).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                nn.init.uniform_(module.running_mean, -0.5, 0.5)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def images(size=8):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def names(model, inputs):
    return [group.name for group in channel_groups(model, inputs)[0]]


FOUND = {
    "plain": (lambda: conv_net(), ["0", "3"]),
    "two heads": (lambda: made(TwoHeads), ["trunk"]),
    "bottleneck": (
        lambda: made(Bottleneck),
        ["stem", "project", "first.0", "first.3", "second.0", "second.3"],
    ),
    "grouped": (
        lambda: made(Bottleneck, 2),
        ["stem", "project", "first.0", "first.3", "second.0", "second.3"],
    ),
    "squeeze and excite": (lambda: made(SqueezeExcite), ["stem", "expand", "squeeze"]),
    "dense": (lambda: made(Dense), ["stem", "convs.0", "convs.1", "convs.2"]),
    "shuffle": (lambda: made(Shuffle), ["first", "head"]),
    "ConvNeXt": (lambda: made(ConvNeXt), ["stem", "blocks.0.expand", "blocks.1.expand"]),
    "ViT": (lambda: made(ViT), ["blocks.0.fc1", "blocks.1.fc1"]),
    "U-Net": (lambda: made(UNet), ["down", "bottom", "up", "join"]),
}


@pytest.mark.parametrize("kind", FOUND)
def test_groups_are_named_by_their_first_layers(kind):
    make, expected = FOUND[kind]
    inputs = torch.randn(4, 8) if kind == "two heads" else images()
    assert names(make(), inputs) == expected


def test_what_is_inside_blocks_with_padded_shortcuts_can_go():
    model = made(CifarResNet)
    found, reasons = channel_groups(model, images(32))
    assert [g.name for g in found] == [
        f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)
    ]
    assert set(reasons) == {"conv1"}  # with all that adds to the stream


@pytest.mark.parametrize(
    ("kind", "inputs", "name", "reason"),
    [
        (FixedWidth, images(), "conv", "RuntimeError"),
        (DetachedFeatures, torch.randn(4, 8), "trunk", "told apart by their places"),
        (Shuffle, images(), "stem", "torch-pruning expects channel"),
        (ViT, images(), "blocks.0.qkv", "not the same part in all of its channels"),
        (PaddedShortcut, images(), "stem", "told apart by their places"),
    ],
)
def test_a_group_that_cannot_go_has_a_reason(kind, inputs, name, reason):
    found, reasons = channel_groups(made(kind), inputs)
    assert name not in [g.name for g in found]
    assert reason in reasons[name]
    assert reasons[name]


def test_the_model_is_left_as_it_was():
    model = made(CifarResNet).train()
    tensors = {name: (id(t), t._version) for name, t in model.state_dict(keep_vars=True).items()}
    channel_groups(model, images(32))
    after = {name: (id(t), t._version) for name, t in model.state_dict(keep_vars=True).items()}
    assert after == tensors
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


EXACT = {  # no norm over channels: what is removed is as if nobody read it
    "plain": lambda: conv_net(),
    "grouped middle": lambda: conv_net(nn.Conv2d(32, 32, 3, padding=1, groups=4)),
    "depthwise middle": lambda: conv_net(nn.Conv2d(32, 32, 3, padding=1, groups=32)),
    "bottleneck": lambda: made(Bottleneck),
    "grouped": lambda: made(Bottleneck, 2),
    "squeeze and excite": lambda: made(SqueezeExcite),
    "dense": lambda: made(Dense),
    "shuffle": lambda: made(Shuffle),
    "U-Net": lambda: made(UNet),
}


@pytest.mark.parametrize("kind", EXACT)
def test_removing_channels_is_as_if_nobody_read_them(kind):
    model = EXACT[kind]()
    inputs = images()
    groups, _ = channel_groups(model, inputs)
    kept = [(g, g.everywhere(torch.arange(0, g.local_width, 2))) for g in groups]
    deaf = copy.deepcopy(model)
    for group, channels in kept:
        for member in group.members:
            if member.side != "in":
                continue
            layer = deaf.get_submodule(member.layer)
            gone = [
                c
                for c, root in zip(member.channels, member.roots, strict=True)
                if root not in set(channels.tolist())
            ]
            layer.register_forward_pre_hook(_deaf_to(gone, isinstance(layer, nn.Linear)))
    smaller = copy.deepcopy(model)
    left = keep_channels(smaller, kept)
    with torch.no_grad():
        torch.testing.assert_close(smaller(inputs), deaf(inputs), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(smaller(inputs), model(inputs), atol=1e-3)
    for name, channels in left.items():
        before, after = (width_of(m.get_submodule(name), "both") for m in (model, smaller))
        assert len(channels) == after < before


def _deaf_to(channels, is_linear):
    def silence(_, args):
        x = args[0].clone()
        if is_linear:
            x[..., channels] = 0
        else:
            x[:, channels] = 0
        return (x, *args[1:])

    return silence


def test_a_flattened_channel_is_all_of_its_pixels():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    (group,), _ = channel_groups(model, images())
    smaller = copy.deepcopy(model)
    keep_channels(smaller, [(group, torch.tensor([1, 3]))])
    wanted = model[3].weight.reshape(5, 4, 36)[:, [1, 3]].reshape(5, 72)
    assert torch.equal(smaller[3].weight, wanted)
    assert smaller[3].in_features == 72


def test_attention_loses_as_much_of_each_head():
    model = made(Attention)
    groups = {g.name: g for g in channel_groups(model, torch.randn(2, 5, 8))[0]}
    assert groups["embed"].parts == 2
    smaller = copy.deepcopy(model)
    keep_channels(smaller, [(groups["embed"], groups["embed"].everywhere(torch.arange(3)))])
    assert smaller.attention.in_proj_weight.shape == (18, 6)
    rows = model.attention.in_proj_weight[[0, 1, 2, 8, 9, 10]][:, [0, 1, 2, 8, 9, 10]]
    assert torch.equal(smaller.attention.in_proj_weight[:6], rows)
    assert smaller(torch.randn(2, 5, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("kind", "name", "parts"), [(Gated, "both", 2), (Heads, "q", 3), (Heads, "patches", 1)]
)
def test_parts_that_code_tells_apart_lose_as_much_each(kind, name, parts):
    model = made(kind)
    group = next(g for g in channel_groups(model, images())[0] if g.name == name)
    assert group.parts == parts
    smaller = copy.deepcopy(model)
    keep_channels(smaller, [(group, group.everywhere(torch.arange(group.local_width // 2)))])
    assert smaller(images()).shape == (2, 5)


def test_gates_go_with_what_they_gate():
    model = made(Gated)
    (group,), _ = channel_groups(model, images())
    smaller = copy.deepcopy(model)
    left = keep_channels(smaller, [(group, group.everywhere(torch.tensor([1, 4])))])
    assert left["both"].tolist() == [1, 4, 9, 12]
    assert torch.equal(smaller.linear.weight, model.linear.weight[:, [1, 4]])
    with torch.no_grad():
        x, gate = model.both(images())[:, [1, 4, 9, 12]].chunk(2, 1)
        wanted = smaller.linear((x * gate.sigmoid()).mean((2, 3)))
        torch.testing.assert_close(smaller(images()), wanted)


def test_weights_that_are_computed_cannot_go():
    model = conv_net()
    model[3] = torch.nn.utils.parametrizations.weight_norm(model[3])
    found, reasons = channel_groups(model, images())
    assert found == []
    assert "3.weight is computed, not stored" in reasons["0"]


def test_tensors_that_stay_are_shared_by_nobody():
    model = mlp()
    groups, _ = channel_groups(model, torch.randn(2, 8))
    smaller = copy.deepcopy(model)
    keep_channels(smaller, [(groups[0], torch.arange(8))])
    assert smaller[0].weight.untyped_storage().nbytes() == 8 * 8 * 4


def test_weights_that_layers_share_cannot_go():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 2))
    model[2].weight = model[0].weight
    found, reasons = channel_groups(model, torch.randn(2, 6))
    assert [group.name for group in found] == []
    assert "shared with another layer" in " ".join(reasons.values())
