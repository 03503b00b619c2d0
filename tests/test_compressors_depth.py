"""Depth pruning: which blocks can go, which go first, and that the rest is as it was."""

import copy

import pytest
import torch
from assets.toy_models import TaskOf, conv_net
from torch import nn
from torch.nn.functional import pad, relu

from compressors.base import Context, Refused, Task
from compressors.depth import DepthPruning, least_missed, residual_blocks
from compressors.training import seeded
from search.testing_exports import ExportedModelContract

PLAIN = {"batchnorm_batches": 0, "bias_correction": False}


class Block(nn.Module):
    def __init__(self, width, strength=1.0, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(width, width * stride, 3, padding=1, stride=stride)
        self.norm = nn.BatchNorm2d(width * stride)
        self.stride = stride
        nn.init.constant_(self.norm.weight, strength)

    def forward(self, x):
        y = self.norm(self.conv(x))
        if self.stride == 2:  # an option-A shortcut, which changes the shape
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))
        return relu(x + y)


class Residual(nn.Module):
    """A stem, five blocks of which one changes the shape, and a classifier; 1x8x8 images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.first = nn.Sequential(Block(8, 0.5), Block(8, 0.01), Block(8, 1.0))
        self.second = nn.Sequential(Block(8, stride=2), Block(16, 0.1))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.second(self.first(relu(self.stem(x)))).mean((2, 3)))


class PreNorm(nn.Module):
    """A transformer's block: only the whole of it adds to its own input."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Images(Task):
    def model(self):
        with seeded(0):
            return Residual().eval()

    def train_batches(self):
        return [_batch(n) for n in torch.randperm(4).tolist()]

    def calibration_batches(self):
        return [_batch(n) for n in range(4)]

    eval_batches = calibration_batches


def _batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % 4


class TestDepthPruning(ExportedModelContract):
    options = [{"blocks": 1, **PLAIN}, {"blocks": 2, **PLAIN, "bias_correction": True}]
    seeded_options = [{"blocks": 1, **PLAIN, "batchnorm_batches": 2}]

    def make(self):
        return DepthPruning()

    def task(self):
        return Images()


def test_blocks_that_keep_their_shape_can_go():
    model = Images().model()
    assert residual_blocks(model, _batch(0)[0]) == ["first.0", "first.1", "first.2", "second.1"]
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_a_branch_inside_a_block_cannot_go():
    model = nn.Sequential(nn.Linear(8, 8), PreNorm(), PreNorm(), nn.Linear(8, 2))
    assert residual_blocks(model, torch.randn(3, 8)) == ["1", "2"]


def test_a_block_that_runs_twice_cannot_go():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.block = PreNorm()

        def forward(self, x):
            return self.block(self.block(self.first(x)))

    assert residual_blocks(Twice(), torch.randn(3, 8)) == []


def test_blocks_without_which_the_model_does_not_run_stay(tmp_path):
    """They are given a mask as well, by name, or the code asks them for something."""

    class Masked(PreNorm):
        gain = 1.0

        def forward(self, x, mask=None):
            return super().forward(x)

    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
            self.masked, self.asked, self.plain = Masked(), Masked(), PreNorm()

        def forward(self, x):
            x = self.masked(self.first(x), mask=None)
            return self.last(self.plain(self.asked(x) * self.asked.gain))

    model, inputs = Asks(), torch.randn(3, 8)
    assert residual_blocks(model, inputs) == ["masked", "asked", "plain"]
    task = TaskOf(model, (inputs, None))
    assert DepthPruning().knobs(model, task)[0].resolve().size == 2
    _, recipe = DepthPruning().apply(
        model, {"blocks": 1, **PLAIN}, Context(task, lambda: model, 0, tmp_path)
    )
    assert recipe == {"dropped": ["plain"]}


def test_a_plain_network_has_no_block_to_drop(tmp_path):
    model, images = conv_net(), torch.randn(2, 3, 8, 8)
    task = TaskOf(model, (images, None))
    knob = DepthPruning().knobs(model, task)[0]
    assert knob.resolve().size == 1
    with pytest.raises(Refused, match="only 0 residual blocks"):
        DepthPruning().apply(
            model, {"blocks": 1, **PLAIN}, Context(task, lambda: model, 0, tmp_path)
        )


def test_the_block_that_matters_least_goes_first(tmp_path):
    task = Images()
    model = task.model()
    images = torch.cat([batch[0] for batch in task.calibration_batches()])
    with torch.no_grad():
        whole = model(images)
        missed = {}
        for name in residual_blocks(model, images):
            without = copy.deepcopy(model)
            setattr(without.get_submodule(name.split(".")[0]), name.split(".")[1], nn.Identity())
            missed[name] = float((without(images) - whole).square().mean())
    wanted = sorted(missed, key=missed.get)
    assert wanted[0] == "first.1"
    assert least_missed(model, images, list(missed)) == wanted
    context = Context(task, task.model, 0, tmp_path)
    shallow, recipe = DepthPruning().apply(model, {"blocks": 2, **PLAIN}, context)
    assert recipe == {"dropped": wanted[:2]}
    dropped = [n for n, m in shallow.named_modules() if isinstance(m, nn.Identity)]
    assert sorted(dropped) == sorted(wanted[:2])
    rest = shallow.state_dict()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in rest.items())
