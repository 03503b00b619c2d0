"""CIFAR-10 and its published ResNets of 20 or 56 layers, trained by others.

`cifar10/` in the data folder holds the binary version's data_batch_*.bin and test_batch.bin, or
train/CLASS/*.png and test/CLASS/*.png, or cifar10_small.npz and cifar10_test_jpeg.npz: 10,000
training and 1,000 test images without loss, and all test images as JPEG. `cifar10_resnets/` holds
the weights, resnet20-*.th and resnet56-*.th.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from image_batches import Batches, drawn, shifted_and_mirrored
from image_data import (
    DataError,
    Images,
    as_jpegs,
    data_folder,
    read_images,
    read_jpegs,
    read_npz,
)
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from compressors.base import Task

PUBLISHED = "https://www.cs.toronto.edu/~kriz/cifar.html"
WEIGHTS_PUBLISHED = "https://github.com/akamaster/pytorch_resnet_cifar10"
DEPTHS = (20, 56)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the ResNets were trained with
TRAIN_BATCH, BATCH = 32, 200
CALIBRATION = 512
SEARCH = 2_000  # test images of a complete copy; the rest is for the audit
RECURRING = 1_117  # the first JPEG rows hold the test images that are there without loss, too


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without weights (He et al. 2016, option A): where the
    shape changes it takes every other pixel and adds channels of zeros."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.added = width - width_in

    def forward(self, x: Tensor) -> Tensor:
        inner = relu(self.bn1(self.conv1(x)))
        inner = self.bn2(self.conv2(inner))
        if self.added:
            sides = self.added // 2, self.added - self.added // 2
            x = pad(x[:, :, ::2, ::2], (0, 0, 0, 0, *sides))
        return relu(inner + x)


class ResNet(nn.Module):
    """(batch, 3, 32, 32) -> (batch, 10) logits; 269,722 parameters with 20 layers, 853,018 with
    56."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(count, 16, 16, 1)
        self.layer2 = _stage(count, 16, 32, 2)
        self.layer3 = _stage(count, 32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def _stage(count: int, width_in: int, width: int, stride: int) -> nn.Sequential:
    rest = (Block(width, width, 1) for _ in range(count - 1))
    return nn.Sequential(Block(width_in, width, stride), *rest)


class Cifar10ResNet(Task):
    """Search and audit split are test images, and share none; the ResNets have seen every training
    image, so none of those can judge.

    Args:
        depth: 20 or 56.
        data: The folder that holds `cifar10/` and `cifar10_resnets/`; default: NASLITE_DATA.
        weights: A file of weights instead of those; a path that is not absolute begins at this
            file's folder.
        epoch_images: So many of the training images, drawn anew for each epoch, make an epoch.
    """

    def __init__(
        self,
        depth: int = 20,
        data: str | None = None,
        weights: str | None = None,
        epoch_images: int = 10_000,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {DEPTHS}, got {depth!r}")
        self.depth, self.data, self.weights = depth, data, weights
        self.epoch_images = epoch_images
        folder = data_folder(data, "cifar10", PUBLISHED)
        self.train, self.search, self.audit = _splits(folder)
        self.weights_file = self._weights_file()

    def model(self) -> nn.Module:
        model = ResNet(self.depth)
        content = torch.load(self.weights_file, map_location="cpu", weights_only=True)
        state = {
            name.removeprefix("module."): tensor
            for name, tensor in content.get("state_dict", content).items()
        }
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            raise DataError(
                f"{self.weights_file} does not fit ResNet-{self.depth}: {first}"
            ) from error
        return model.eval()

    def train_batches(self) -> Batches:
        rows = drawn(np.arange(len(self.train)), self.epoch_images)
        change = shifted_and_mirrored(4)
        return Batches(self.train, rows, TRAIN_BATCH, mean=MEAN, std=STD, change=change)

    def calibration_batches(self) -> Batches:
        rows = np.random.default_rng(0).permutation(len(self.train))[:CALIBRATION]
        return Batches(self.train, rows, BATCH, mean=MEAN, std=STD)

    def eval_batches(self) -> Batches:
        return _all(self.search)

    def audit_batches(self) -> Batches:
        return _all(self.audit)

    def _weights_file(self) -> Path:
        if self.weights is not None:
            path = Path(__file__).parent / self.weights
            if not path.is_file():
                raise DataError(f"the task option `weights` names {path}, which does not exist")
            return path
        folder = data_folder(self.data, "cifar10_resnets", WEIGHTS_PUBLISHED)
        found = sorted(folder.glob(f"resnet{self.depth}-*.th"))
        if len(found) != 1:
            raise DataError(
                f"{folder} must hold one resnet{self.depth}-*.th, got {len(found)}; set the task"
                f" option `weights` to a file (published at {WEIGHTS_PUBLISHED})"
            )
        return found[0]


def _all(images: Images) -> Batches:
    return Batches(images, np.arange(len(images)), BATCH, mean=MEAN, std=STD)


def _splits(folder: Path) -> tuple[Images, Images, Images]:
    """Training, search and audit images. Where test images are JPEGs, training images are there as
    such, too: nets forget what these are like when they are trained on others."""
    small, lossy = folder / "cifar10_small.npz", folder / "cifar10_test_jpeg.npz"
    if small.is_file() and lossy.is_file():
        test = read_npz(small, "test")
        jpegs = read_jpegs(lossy, range(10_000))
        recurring = Images(jpegs.pixels[:RECURRING], jpegs.labels[:RECURRING])
        rest = Images(jpegs.pixels[RECURRING:], jpegs.labels[RECURRING:])
        train = read_npz(small, "train")
        return Images.joined([train, as_jpegs(train)]), Images.joined([test, recurring]), rest
    train, test = (read_images(folder, split, PUBLISHED) for split in ("train", "test"))
    order = np.random.default_rng(0).permutation(len(test))  # folders come class by class
    search, audit = order[:SEARCH], order[SEARCH:]
    return (
        train,
        Images(test.pixels[search], test.labels[search]),
        Images(test.pixels[audit], test.labels[audit]),
    )
