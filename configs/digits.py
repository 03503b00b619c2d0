"""scikit-learn's bundled digits (1,797 images of 8 x 8) and a small residual CNN."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from compressors.base import Task
from compressors.training import fit, train_once

BATCH = 32
EPOCHS = 12
LR = 5e-3
SPLITS = {"train": 900, "calibration": 128, "search": 400, "audit": 369}


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """(batch, 1, 8, 8) pixels in [0, 1] -> (batch, 10) logits; 308,074 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.layer1 = Block(32, 32, 1)
        self.layer2 = Block(32, 64, 2)
        self.layer3 = Block(64, 128, 2)
        self.linear = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn(self.conv(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Digits(Task):
    """Four splits that share no image, drawn once with a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        digits = load_digits()
        images = (digits.images[:, None] / 16).astype(np.float32)
        order = np.random.default_rng(0).permutation(len(images))
        ends = np.cumsum(list(SPLITS.values()))[:-1]
        self.rows = dict(zip(SPLITS, np.split(order, ends), strict=True))
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(digits.target)

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return train_once(
            ResNet(),
            self._train,
            content=(Path(__file__).read_bytes(), self.images.numpy(), self.labels.numpy()),
        )

    def train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        rows = self.rows["train"]
        return self._batches(rows[torch.randperm(len(rows)).numpy()])

    def calibration_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._batches(self.rows["calibration"])

    def eval_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._batches(self.rows["search"])

    def audit_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._batches(self.rows["audit"])

    def _batches(self, rows: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(rows), BATCH):
            chosen = torch.from_numpy(rows[start : start + BATCH])
            yield self.images[chosen], self.labels[chosen]

    def _train(self, model: nn.Module) -> None:
        def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return cross_entropy(outputs, batch[1], label_smoothing=0.1)

        fit(model, self.train_batches, loss, inputs=self.inputs, epochs=EPOCHS, lr=LR)
