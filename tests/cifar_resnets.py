"""The pretrained ResNets for CIFAR-10, and images that they were not trained on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from compressors.base import Task

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 50


class Block(nn.Module):
    """Two convolutions and a shortcut without weights: a slice among channels of zeros."""

    def __init__(self, planes_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.added = stride, planes - planes_in

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        half = self.added // 2
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return relu(y + pad(shortcut, (0, 0, 0, 0, half, half)))


class ResNet(nn.Module):
    """6n + 2 layers; takes normalised 3x32x32 images (He et al., CVPR 2016, section 4.2)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        count = (depth - 2) // 6
        self.layer1 = stage(16, 16, 1, count)
        self.layer2 = stage(16, 32, 2, count)
        self.layer3 = stage(32, 64, 2, count)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(relu(self.bn1(self.conv1(x))))))
        output: Tensor = self.linear(x.mean((2, 3)))
        return output


def stage(planes_in: int, planes: int, stride: int, count: int) -> nn.Sequential:
    blocks = [Block(planes_in, planes, stride)]
    return nn.Sequential(*blocks, *(Block(planes, planes, 1) for _ in range(count - 1)))


class Cifar(Task):
    """A pretrained ResNet, `calibration` training images and the first `images` test images."""

    def __init__(self, depth: int, images: int, calibration: int = 200) -> None:
        super().__init__()
        folder = data_folder()
        (weights,) = (folder / "cifar10_resnets").glob(f"resnet{depth}-*.th")
        state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
        self._model = ResNet(depth)
        self._model.load_state_dict({k.removeprefix("module."): v for k, v in state.items()})
        with np.load(folder / "cifar10" / "cifar10_small.npz") as data:
            self._train = batches(data["x_train"], data["y_train"], calibration)
            self._test = batches(data["x_test"], data["y_test"], images)

    def model(self) -> nn.Module:
        return self._model.eval()

    def calibration_batches(self) -> list[tuple[Tensor, Tensor]]:
        return self._train

    def eval_batches(self) -> list[tuple[Tensor, Tensor]]:
        return self._test


def data_folder() -> Path:
    folder = Path(os.environ.get("NASLITE_DATA", ""))
    if not (folder / "cifar10_resnets").is_dir():
        pytest.skip(
            "the pretrained ResNets are not here; set NASLITE_DATA to the folder with them"
        )
    return folder


def batches(images: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[Tensor, Tensor]]:
    scaled = torch.from_numpy(images[:count]).permute(0, 3, 1, 2) / 255
    normal = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    wanted = torch.from_numpy(labels[:count].astype(np.int64))
    return list(zip(normal.split(BATCH), wanted.split(BATCH), strict=True))
