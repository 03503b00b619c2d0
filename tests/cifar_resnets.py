"""The pretrained ResNets for CIFAR-10, and images that they were not trained on."""

from __future__ import annotations

import numpy as np
import torch
from assets.vision_models import CifarResNet
from real_data import real_data
from torch import Tensor, nn

from compressors.base import Task

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 50


class Cifar(Task):
    """A pretrained ResNet, `calibration` training images and the first `images` test images."""

    def __init__(self, depth: int, images: int, calibration: int = 200) -> None:
        super().__init__()
        folder = real_data("cifar10_resnets", "cifar10/cifar10_small.npz")
        (weights,) = (folder / "cifar10_resnets").glob(f"resnet{depth}-*.th")
        state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
        self._model = CifarResNet(depth)
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


def batches(images: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[Tensor, Tensor]]:
    scaled = torch.from_numpy(images[:count]).permute(0, 3, 1, 2) / 255
    normal = (scaled - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    wanted = torch.from_numpy(labels[:count].astype(np.int64))
    return list(zip(normal.split(BATCH), wanted.split(BATCH), strict=True))
