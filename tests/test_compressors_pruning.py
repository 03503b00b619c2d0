"""Structured pruning: which channels go, how many, and what must never change."""

import copy
import gc
import weakref

import pytest
import torch
from assets.toy_models import (
    DetachedFeatures,
    FixedWidth,
    PaddedShortcut,
    TaskOf,
    TwoHeads,
    conv_net,
    mlp,
)
from assets.toy_task import CLASSES, ToyNet, toy_task
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressors.base import Context, Refused
from compressors.inspect import parameter_count
from compressors.pruning import MIN_KEPT, StructuredPruning, kept_channels
from search.testing_exports import ExportedModelContract

HALF = {
    "ratio": 0.5,
    "importance": "l2",
    "scope": "uniform",
    "round_to": 1,
    "steps": 1,
    "ignore": "",
    "batchnorm_batches": 0,
    "bias_correction": False,
}


class TestStructuredPruning(ExportedModelContract):
    options = [
        HALF,
        {**HALF, "importance": "l1", "scope": "global", "round_to": 4, "bias_correction": True},
        {**HALF, "scope": "group", "ratio@stem": 0.0, "ratio@conv1": 0.5},
        {**HALF, "importance": "taylor", "steps": 2},
        {**HALF, "importance": "bn_scale", "ignore": "stem", "ratio": 0.3},
        {**HALF, "importance": "row_norm", "scope": "global", "ratio": 0.3},
    ]
    seeded_options = [
        {**HALF, "importance": "random"},
        {**HALF, "batchnorm_batches": 2},  # two of four batches, which the task shuffles
    ]

    def make(self):
        return StructuredPruning()

    def task(self):
        return toy_task()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def pruned(model, inputs, tmp_path, *, seed=0, task=None, **options):
    task = task or TaskOf(model, (inputs, None))
    context = Context(task, lambda: copy.deepcopy(model), seed, tmp_path)
    result, _ = StructuredPruning().apply(model, {**HALF, **options}, context)
    return result


def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def numbers():
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def survivors(before, after):
    """The indices of the output channels of a layer that are still there, in their order."""
    rows = before.weight.flatten(1)
    kept = after.weight.flatten(1)
    return [next(i for i, row in enumerate(rows) if torch.equal(row, new)) for new in kept]


def test_tensors_become_physically_smaller(tmp_path):
    toy = toy_task()
    result = pruned(toy.model(), None, tmp_path, task=toy)
    width = 8  # half of the 16 channels that all three convolutions have
    convolutions, norms = 9 * (width + 2 * width**2), 3 * 2 * width
    assert parameter_count(result) == convolutions + norms + 4 * width * CLASSES + CLASSES
    assert result.conv1.out_channels == width
    assert result.conv1.weight.shape == (width, width, 3, 3)
    assert result.norm1.running_var.shape == (width,)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.95])
def test_output_layer_keeps_its_width(tmp_path, ratio, scope):
    toy = toy_task()
    result = pruned(toy.model(), None, tmp_path, task=toy, ratio=ratio, scope=scope)
    assert result.classifier.out_features == CLASSES


def test_every_head_behind_an_activation_keeps_its_width(tmp_path):
    model = TwoHeads().eval()
    result = pruned(model, numbers(), tmp_path)
    assert [tuple(output.shape) for output in result(numbers())] == [(4, 6), (4, 4)]
    assert result.trunk.out_features == 8


def test_random_importance_draws_by_the_seed(tmp_path):
    model = conv_net()
    drawn = [
        tuple(
            survivors(model[0], pruned(model, images(), tmp_path, importance="random", seed=s)[0])
        )
        for s in (1, 2, 1)
    ]
    assert drawn[0] == drawn[2] != drawn[1]


def test_global_scope_takes_channels_where_they_matter_least(tmp_path):
    model = conv_net(width=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        model[3].weight[:8] = 0.01  # half of the second layer's channels hardly matter
        model[6].weight[:, :8] = 0.01
    widths = {
        scope: [result[0].out_channels, result[3].out_channels]
        for scope in ("uniform", "global")
        for result in [pruned(model, images(), tmp_path, ratio=0.25, scope=scope)]
    }
    assert widths == {"uniform": [12, 12], "global": [16, 8]}


MIDDLES = {
    "plain": lambda: None,
    "grouped": lambda: nn.Conv2d(32, 32, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(32, 32, 3, padding=1, groups=32),
    "group norm": lambda: nn.GroupNorm(4, 32),
}


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("round_to", [2, 4, 8])
@pytest.mark.parametrize("middle", MIDDLES)
def test_round_to_gives_multiples(tmp_path, middle, round_to, scope):
    model = conv_net(MIDDLES[middle]())
    for ratio in (0.3, 0.7):
        result = pruned(model, images(), tmp_path, ratio=ratio, round_to=round_to, scope=scope)
        assert result[0].out_channels % round_to == 0
        assert result[3].out_channels % round_to == 0


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("middle", MIDDLES)
def test_no_layer_is_left_whole_because_it_would_become_empty(tmp_path, middle, round_to):
    model = conv_net(MIDDLES[middle]())
    half, most = (
        pruned(model, images(), tmp_path, ratio=ratio, round_to=round_to) for ratio in (0.5, 0.95)
    )
    for layer in (0, 3):
        assert most[layer].out_channels < half[layer].out_channels == 16
    assert parameter_count(most) < parameter_count(half)


def test_toy_shrinks_further_at_95_than_at_50_percent(tmp_path):
    toy, model = toy_task(), ToyNet(width=32).eval()
    half, most = (
        pruned(model, None, tmp_path, task=toy, ratio=ratio, round_to=8) for ratio in (0.5, 0.95)
    )
    assert parameter_count(most) < parameter_count(half)


widths = st.integers(1, 600)
steps = st.integers(1, 64)


@given(st.data(), widths, steps)
def test_kept_channels_are_a_multiple_or_all(data, current, round_to):
    kept = kept_channels(data.draw(st.integers(0, current)), current, round_to)
    assert kept == current or kept % round_to == 0
    assert min(current, round_to) <= kept <= current
    assert kept >= MIN_KEPT * current


@given(st.data(), widths, steps)
def test_kept_channels_are_the_nearest_multiple_that_is_allowed(data, current, round_to):
    wanted = data.draw(st.integers(0, current))
    kept = kept_channels(wanted, current, round_to)
    allowed = [n for n in range(round_to, current + 1, round_to) if n >= MIN_KEPT * current]
    if kept in allowed:
        assert abs(kept - wanted) == min(abs(n - wanted) for n in allowed)


@pytest.mark.parametrize(("wanted", "current", "kept"), [(24, 32, 32), (40, 64, 48), (56, 64, 64)])
def test_of_two_multiples_as_near_more_channels_are_kept(wanted, current, kept):
    assert kept_channels(wanted, current, 16) == kept


@given(st.data(), widths, steps)
def test_kept_channels_grow_with_what_is_wanted(data, current, round_to):
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, current)] * 2)))
    assert kept_channels(low, current, round_to) <= kept_channels(high, current, round_to)


def test_reestimated_batch_norm_beats_stale_statistics(tmp_path):
    toy = toy_task()
    stale, fresh = (
        pruned(toy.model(), None, tmp_path, task=toy, ratio=0.3, batchnorm_batches=batches)
        for batches in (0, 4)
    )
    assert accuracy(fresh, toy) > accuracy(stale, toy)


def accuracy(model, toy):
    with torch.no_grad():
        right = [(model(x).argmax(-1) == y).float() for x, y in toy.eval_batches()]
    return torch.cat(right).mean()


def test_a_frozen_model_is_pruned_all_the_same_and_stays_frozen(tmp_path):
    result = pruned(mlp().requires_grad_(False), numbers(), tmp_path)
    assert result[0].out_features == 8
    assert not any(parameter.requires_grad for parameter in result.parameters())


def test_no_model_is_kept_alive(tmp_path):
    result = pruned(conv_net(nn.GroupNorm(4, 32)), images(), tmp_path)
    layer = weakref.ref(result[1])
    del result
    gc.collect()
    assert layer() is None


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (PaddedShortcut, images, "no layer's channels can be removed, such as those of 'stem'"),
        (FixedWidth, images, r"such as those of 'conv' \(RuntimeError"),
        (DetachedFeatures, numbers, r"'trunk' \(its channels are told apart by their places"),
    ],
)
def test_a_model_that_cannot_be_pruned_is_refused_with_the_reason(tmp_path, model, inputs, reason):
    with pytest.raises(Refused, match=reason):
        pruned(model().eval(), inputs(), tmp_path)
