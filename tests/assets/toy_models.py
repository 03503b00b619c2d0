"""Small models, each with one property that compressors and runtimes must cope with."""

import torch
from torch import nn
from torch.nn.functional import pad

from compressors.base import Task
from compressors.training import seeded


class TaskOf(Task):
    """A task around any model; all its splits are the same batches of (inputs, labels)."""

    def __init__(self, model, *batches):
        super().__init__()
        self._model = model
        self._batches = list(batches)

    def model(self):
        return self._model

    def train_batches(self):
        return self._batches

    def calibration_batches(self):
        return self._batches

    def eval_batches(self):
        return self._batches


def conv_net(middle=None, width=32):
    """Takes 3x8x8 images; `middle` stands between the two convolutions, and keeps the width."""
    with seeded(0):
        return nn.Sequential(
            nn.Conv2d(3, width, 3),
            nn.Identity() if middle is None else middle,
            nn.ReLU(),
            nn.Conv2d(width, width, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 4),
        ).eval()


def mlp():
    """Takes 8 numbers."""
    with seeded(0):
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


class TwoHeads(nn.Module):
    """Takes 8 numbers and gives 6 and 4; an activation stands behind both heads."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(8, 16)
        self.first = nn.Linear(16, 6)
        self.second = nn.Linear(16, 4)

    def forward(self, x):
        x = self.trunk(x).relu()
        return self.first(x).sigmoid(), self.second(x).softmax(-1)


class Masked(nn.Module):
    """Takes two arguments that are easily confused: the second one is subtracted."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, values, mask):
        return self.linear(values) - mask


class MaskedByBranches(Masked):
    def forward(self, values, mask):
        return values if values.sum() > 1e9 else super().forward(values, mask)


class Branching(nn.Module):
    """Python decides by the data which way to go: torch.export refuses, tracing takes one way."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x if x.sum() > 1e9 else self.inner(x)


class Eigenvalues(nn.Module):
    """ONNX has no operator for it."""

    def forward(self, x):
        return torch.linalg.eigvalsh(x)


class PaddedShortcut(nn.Module):
    """The parameter-free shortcut of the CIFAR ResNets, on which torch-pruning fails."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 16, 3, padding=1)
        self.linear = nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.conv(x) + pad(x, (0, 0, 0, 0, 4, 4))).relu()
        return self.linear(x.mean((2, 3)))


class FixedWidth(nn.Module):
    """The width is written into the code of forward()."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        return self.linear(self.conv(x).mean((2, 3)).reshape(-1, 8))


class DetachedFeatures(nn.Module):
    """Gives features too, without their history: nothing says that a layer makes an output."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(8, 16)
        self.linear = nn.Linear(16, 4)

    def forward(self, x):
        x = self.trunk(x)
        return x.detach(), self.linear(x.relu())


class Attention(nn.Module):
    """Takes sequences of 8 numbers."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 4)

    def forward(self, x):
        x = self.embed(x)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.linear(x.mean(1))
