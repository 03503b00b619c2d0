"""Structured pruning: scopes, steps, ignored layers, recovery, and padded shortcuts."""

import copy

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf, conv_net
from assets.toy_task import Toy
from assets.vision_models import Bottleneck, CifarResNet, ConvNeXt, ViT
from cifar_resnets import Cifar
from torch import nn

from compressors.base import Context, Refused, Task
from compressors.inspect import parameter_count
from compressors.pruning import StructuredPruning
from compressors.training import seeded
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


def images(size=8, count=6):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def pruned(model, inputs, tmp_path, *, task=None, **options):
    task = task or TaskOf(model, (inputs, torch.arange(len(inputs)) % 4))
    context = Context(task, lambda: copy.deepcopy(model), 0, tmp_path)
    result, _ = StructuredPruning().apply(model, {**HALF, **options}, context)
    return result


def widths(model):
    return {n: m.out_channels for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}


class Padded(Task):
    """A small ResNet with padded shortcuts on noise."""

    def model(self):
        with seeded(0):
            return CifarResNet(8, width=4).eval()

    def train_batches(self):
        return [(images(16), torch.arange(6))]

    calibration_batches = eval_batches = train_batches


class TestPaddedShortcuts(ExportedModelContract):
    options = [
        HALF,
        {**HALF, "importance": "taylor", "scope": "global", "steps": 2, "batchnorm_batches": 1},
    ]

    def make(self):
        return StructuredPruning()

    def task(self):
        return Padded()


class Vision(Padded):
    def model(self):
        with seeded(0):
            return ViT().eval()

    def train_batches(self):
        return [(images(8), torch.arange(6) % 5)]

    calibration_batches = eval_batches = train_batches


class TestTransformer(ExportedModelContract):
    options = [HALF, {**HALF, "importance": "taylor", "bias_correction": True}]

    def make(self):
        return StructuredPruning()

    def task(self):
        return Vision()


class Normed(Vision):
    def model(self):
        with seeded(0):
            return ConvNeXt().eval()


class TestLayerNorm(ExportedModelContract):
    options = [HALF, {**HALF, "importance": "l1", "scope": "global", "round_to": 2}]

    def make(self):
        return StructuredPruning()

    def task(self):
        return Normed()


def test_what_is_inside_padded_blocks_is_pruned_and_the_stream_is_left_alone(tmp_path):
    torch.manual_seed(0)
    model = CifarResNet(20).eval()
    result = pruned(model, images(32, 2), tmp_path)
    before = widths(model)
    for name, width in widths(result).items():
        is_inside = name.startswith("layer") and name.endswith("conv1")
        assert width == (before[name] // 2 if is_inside else before[name]), name
    assert parameter_count(result) < 0.55 * parameter_count(model)


def test_each_group_loses_what_its_own_knob_says(tmp_path):
    model = Bottleneck().eval()
    ratios = {"stem": 0.25, "project": 0.0, "first.0": 0.5, "first.3": 0.9, "second.0": 0.0}
    options = {f"ratio@{name}": ratio for name, ratio in ratios.items()}
    found = widths(pruned(model, images(), tmp_path, scope="group", ratio=0.75, **options))
    expected = {"stem": 12, "project": 32, "first.0": 4, "first.3": 2, "second.0": 8}
    assert {name: found[name] for name in expected} == expected  # 0.9 is more than `ratio` allows
    assert found["second.3"] == 8  # no knob, no pruning


def test_groups_that_lose_nothing_are_whole_whatever_is_rounded_to(tmp_path):
    model = conv_net(width=20)
    result = pruned(model, images(), tmp_path, scope="group", round_to=8, **{"ratio@3": 0.5})
    assert widths(result) == {"0": 20, "3": 8}


def test_a_model_that_loses_nothing_is_not_changed_at_all(tmp_path):
    toy = Toy()
    result = pruned(
        toy.model(),
        None,
        tmp_path,
        task=toy,
        scope="group",
        batchnorm_batches=4,
        bias_correction=1,
    )
    state = result.state_dict()
    assert all(torch.equal(value, state[n]) for n, value in toy.model().state_dict().items())


def test_there_is_a_knob_for_each_group_of_the_model():
    model = Bottleneck().eval()
    knobs = StructuredPruning().knobs(model, TaskOf(model, (images(), None)))
    found = {knob.name: knob for knob in knobs if "@" in knob.name}
    names = ["stem", "project", "first.0", "first.3", "second.0", "second.3"]
    assert list(found) == [f"ratio@{name}" for name in names]
    for knob in found.values():
        assert (knob.neutral, knob.direction, knob.ordered) == (0.0, 1, True)
        assert (knob.active_when.knob, knob.active_when.value) == ("scope", "group")


def test_ignored_layers_keep_their_channels(tmp_path):
    model = Bottleneck().eval()
    found = widths(pruned(model, images(), tmp_path, ignore="first | project"))
    assert found["first.0"] == found["first.3"] == 8
    assert found["project"] == found["second.6"] == 32  # one stream
    assert (found["stem"], found["second.0"], found["second.3"]) == (8, 4, 4)
    with pytest.raises(Refused, match="no layer is left to prune: `ignore`"):
        pruned(model, images(), tmp_path, ignore="*")


def test_after_all_steps_as_much_is_gone_as_after_one(tmp_path):
    model = Bottleneck().eval()
    once, often = (pruned(model, images(), tmp_path, ratio=0.75, steps=n) for n in (1, 3))
    assert widths(once) == widths(often)


def test_every_step_ranks_anew(tmp_path):
    """What only a doomed channel reads goes after it."""
    model = conv_net(width=4)
    reads = [
        [0.0, 1.0, 0.0, 0.0],
        [0.4, 0.1, 0.9, 0.1],
        [0.4, 0.1, 0.9, 0.0],
        [0.4, 0.1, 0.9, 0.0],
    ]
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:, 0, 0, 0] = torch.tensor([0.001, 0.002, 0.003, 0.004])
        model[3].weight.zero_()
        model[3].weight[:, :, 0, 0] = torch.tensor(reads)
        model[6].weight.fill_(1.0)
    survivors = {}
    for steps in (1, 2):
        result = pruned(model, images(), tmp_path, steps=steps, importance="l1")
        survivors[steps] = (1000 * result[0].weight[:, 0, 0, 0]).round().int().tolist()
    # The sums of columns are 1.2, 1.3, 2.7 and 0.1; without the first row the second is 0.3.
    assert survivors == {1: [2, 3], 2: [1, 3]}


def test_bias_correction_brings_mean_outputs_of_channels_back(tmp_path):
    model, inputs = conv_net(width=8), images()
    plain = pruned(model, inputs, tmp_path)
    corrected = pruned(model, inputs, tmp_path, bias_correction=True)
    with torch.no_grad():
        wanted, got, before = (m(inputs).numpy().mean(0) for m in (model, corrected, plain))
        rows = model[3].weight.flatten(1).sum(1)
        kept = [int((rows - row).abs().argmin()) for row in _summed_rows(model, plain)]
        means = model[:4](inputs).numpy().mean((0, 2, 3))[kept]
        after = corrected[:4](inputs).numpy().mean((0, 2, 3))
    assert not np.allclose(before, wanted, atol=1e-3)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    np.testing.assert_allclose(after, means, atol=1e-5)
    assert torch.equal(corrected[3].weight, plain[3].weight)


def _summed_rows(model, plain):
    """The rows of the second layer before pruning of which each remaining one is a part."""
    first = [_index(row, model[0].weight) for row in plain[0].weight]
    reduced = model[3].weight[:, first]
    return [model[3].weight[_index(row, reduced)].sum() for row in plain[3].weight]


def _index(row, rows):
    return next(i for i, other in enumerate(rows) if torch.equal(row, other))


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l1", "row_norm", "taylor", "bn_scale"])
def test_the_published_resnet_is_pruned_inside_its_blocks(tmp_path, importance):
    published = Cifar(20, images=512, calibration=512)  # of training images, to cut by
    model, batches = published.model(), published.eval_batches()
    task = TaskOf(model, *published.calibration_batches())
    options = {"ratio": 0.3, "batchnorm_batches": 8, "importance": importance}
    result = pruned(model, None, tmp_path, task=task, **options)
    assert parameter_count(result) < 0.75 * parameter_count(model)
    before, after = (
        {n: m.out_channels for n, m in net.named_modules() if isinstance(m, nn.Conv2d)}
        for net in (model, result)
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.startswith("layer") and "conv1" in name}
    assert _accuracy(model, batches) > 0.89
    assert _accuracy(result, batches) > 0.5


def _accuracy(model, batches):
    with torch.no_grad():
        right = [(model(x).argmax(-1) == y).float() for x, y in batches]
    return float(torch.cat(right).mean())
