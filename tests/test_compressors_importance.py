"""What each importance says of a channel, against arithmetic by hand."""

import copy
import warnings

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf, conv_net, mlp
from assets.vision_models import Bottleneck
from torch import nn

from compressors.base import Context, Refused
from compressors.channel_groups import channel_groups
from compressors.importance import channel_scores, loss_gradients
from compressors.pruning import StructuredPruning

PLAIN = {
    "ratio": 0.5,
    "scope": "uniform",
    "round_to": 1,
    "steps": 1,
    "ignore": "",
    "batchnorm_batches": 0,
    "bias_correction": False,
}


def images():
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def labels():
    return torch.tensor([0, 1, 2, 3, 0, 1])


def survivors(model, importance, tmp_path):
    """Which channels of the first layer stay."""
    task = TaskOf(model, (images(), labels()))
    context = Context(task, lambda: copy.deepcopy(model), 0, tmp_path)
    result, _ = StructuredPruning().apply(model, {**PLAIN, "importance": importance}, context)
    rows, kept = model[0].weight.flatten(1), result[0].weight.flatten(1)
    return [next(i for i, row in enumerate(rows) if torch.equal(row, new)) for new in kept]


def scores(model, importance, inputs, *batches):
    groups, _ = channel_groups(model, inputs)
    found = channel_scores(model, groups, importance, TaskOf(model, *batches))
    return {g.name: s.numpy() for g, s in zip(groups, found, strict=True)}


def upper_half(values):
    return sorted(np.argsort(values, kind="stable")[len(values) // 2 :].tolist())


def ranked_net():
    """Half of the channels have many middling weights, half have a single large one."""
    model = conv_net(width=8)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        spread = torch.arange(8) % 2 == 0
        for weight in (model[0].weight, model[3].weight.transpose(0, 1)):
            weight.mul_(0.01)
            weight[spread] = 0.1 * torch.rand(weight[spread].shape, generator=generator)
            weight[~spread, 0, 0, 0] = 1 + torch.rand(4, generator=generator)
    return model


def group_norms(model, power):
    """The norm of what makes a channel plus the norm of what reads it."""
    makes = np.abs(model[0].weight.detach().numpy()) ** power
    reads = np.abs(model[3].weight.detach().numpy()) ** power
    return makes.sum((1, 2, 3)) + reads.sum((0, 2, 3))


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("l2", 2)])
def test_norms_count_all_weights_that_go_with_the_channel(tmp_path, name, power):
    model = ranked_net()
    assert survivors(model, name, tmp_path) == upper_half(group_norms(model, power))


def test_l1_and_l2_disagree_where_weights_are_uneven():
    model = ranked_net()
    assert upper_half(group_norms(model, 1)) != upper_half(group_norms(model, 2))


def test_the_row_norm_counts_the_channels_own_weights_only(tmp_path):
    model = conv_net(width=8)
    with torch.no_grad():
        model[3].weight.mul_(torch.linspace(9, 1, 8).reshape(1, 8, 1, 1))  # readers say otherwise
    rows = model[0].weight.detach().numpy().reshape(8, -1)
    norms = np.sqrt((rows**2).sum(1))
    assert survivors(model, "row_norm", tmp_path) == upper_half(norms)
    assert upper_half(norms) != upper_half(group_norms(model, 2))
    found = scores(model, "row_norm", images())["0"]
    np.testing.assert_allclose(found, norms / norms.mean(), rtol=1e-5)


def test_taylor_is_the_sum_of_weights_times_gradients():
    model = mlp()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(5, 8, generator=generator)
    targets = torch.tensor([0, 1, 2, 3, 0])
    w1, b1 = (p.detach().numpy().astype(np.float64) for p in model[0].parameters())
    w2, b2 = (p.detach().numpy().astype(np.float64) for p in model[2].parameters())
    x = inputs.numpy().astype(np.float64)
    hidden = x @ w1.T + b1
    logits = np.maximum(hidden, 0) @ w2.T + b2
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    error = (softmax - np.eye(4)[targets.numpy()]) / 5  # cross-entropy, the mean over samples
    gradient2 = error.T @ np.maximum(hidden, 0)
    gradient1 = ((error @ w2) * (hidden > 0)).T @ x
    wanted = np.abs(w1 * gradient1).sum(1) + np.abs(w2 * gradient2).sum(0)
    found = scores(model, "taylor", inputs, (inputs, targets))["0"]
    np.testing.assert_allclose(found, wanted / wanted.mean(), rtol=1e-4)


def test_taylor_agrees_with_torch_pruning():
    import torch_pruning as tp

    model, batches = conv_net(width=8), [(images(), labels()), (images().flip(0), labels())]
    found = scores(model, "taylor", images(), *batches)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(model, images())
    for inputs, targets in batches:
        nn.functional.cross_entropy(model(inputs), targets).backward()
    for name in ("0", "3"):
        layer = model.get_submodule(name)
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(8)))
        wanted = tp.importance.GroupTaylorImportance()(group)
        np.testing.assert_allclose(found[name], wanted.numpy(), rtol=1e-4)


def test_gradients_are_taken_until_there_are_enough_samples():
    model = mlp()
    batches = [(torch.randn(4, 8), torch.arange(4)) for _ in range(3)]
    two = loss_gradients(model, TaskOf(model, *batches), samples=5)
    same = loss_gradients(model, TaskOf(model, *batches[:2]))
    assert all(torch.equal(two[name], same[name]) for name in same)
    assert not torch.equal(loss_gradients(model, TaskOf(model, *batches))["0.bias"], two["0.bias"])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_that_is_not_finite_is_refused():
    model = mlp()
    batch = (torch.full((2, 8), torch.inf), torch.tensor([0, 1]))
    with pytest.raises(Refused, match="finite loss on calibration data, got nan"):
        loss_gradients(model, TaskOf(model, batch))


def test_the_scale_of_batch_norm_ranks_channels(tmp_path):
    model = conv_net(nn.BatchNorm2d(8), width=8)
    scales = torch.tensor([0.1, -0.9, 0.3, 0.7, -0.2, 0.8, 0.6, 0.4])
    with torch.no_grad():
        model[1].weight.copy_(scales)
    assert survivors(model, "bn_scale", tmp_path) == [1, 3, 5, 6]
    found = scores(model, "bn_scale", images())
    np.testing.assert_allclose(found["0"], scales.abs() / scales.abs().mean(), rtol=1e-5)
    np.testing.assert_allclose(found["3"], scores(model, "l2", images())["3"])  # it has none


def test_a_model_without_batch_norm_is_refused_by_its_scale(tmp_path):
    with pytest.raises(Refused, match="bn_scale ranks channels by the scale of their BatchNorm"):
        survivors(conv_net(width=8), "bn_scale", tmp_path)


def test_what_goes_together_in_a_grouped_convolution_is_averaged():
    torch.manual_seed(0)
    model = Bottleneck(groups=2).eval()
    found = scores(model, "l1", images())
    conv = model.first[3].weight.detach().abs().numpy()  # 8 outputs that read 4 inputs each
    makes = model.first[0].weight.detach().abs().numpy().sum((1, 2, 3))
    norm = model.first[1].weight.detach().abs().numpy()
    reads = np.concatenate([conv[:4].sum((0, 2, 3)), conv[4:].sum((0, 2, 3))])
    each = makes + norm + reads
    wanted = (each[:4] + each[4:]) / 2
    np.testing.assert_allclose(found["first.0"], wanted / wanted.mean(), rtol=1e-5)


def test_a_group_without_any_weight_left_has_equal_scores():
    model = conv_net(width=8)
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[3].weight)
    assert scores(model, "l1", images())["0"].tolist() == [0.0] * 8
