"""Fashion-MNIST (70,000 grey images of 28 x 28, 10 classes) and a CNN that is trained on it once.

`fashion_mnist/` in the data folder holds fashion_mnist.npz with x_train, y_train, x_test and
y_test, or the four published *-ubyte.gz files, or train/CLASS/*.png and test/CLASS/*.png.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from image_batches import Batches, drawn, shifted_and_mirrored
from image_data import data_folder, read_images
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compressors.base import Task
from compressors.training import fit, train_once

PUBLISHED = "https://github.com/zalandoresearch/fashion-mnist"
MEAN, STD = (0.286041,), (0.353024,)  # of the training pixels in [0, 1]
TRAIN_BATCH, BATCH = 128, 250
EPOCHS = 15
LR = 6e-3
CALIBRATION = 500


class Net(nn.Sequential):
    """(batch, 1, 28, 28) -> (batch, 10) logits; 187,402 parameters.

    It begins by seeing 2 x 2 pixels as four channels (space to depth, as in Ridnik et al.,
    TResNet, 2021): a convolution of one channel at full resolution would be most of the time of
    an int8 file, since fast int8 kernels take channels by fours.
    """

    def __init__(self) -> None:
        super().__init__()
        self.space_to_depth = nn.PixelUnshuffle(2)
        self.stem = _convolution(4, 32)
        self.conv1 = _convolution(32, 64)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = _convolution(64, 96)
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = _convolution(96, 128)
        self.pool3 = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(128, 10)


class FashionMnist(Task):
    """Search and audit split are halves of the test images, which share none.

    Args:
        data: The folder that holds `fashion_mnist/`; default: NASLITE_DATA.
        epoch_images: What an epoch of recovery trains on: so many of the 60,000 training images,
            drawn anew for each epoch, since all of them would make a trial last minutes.
        epochs: Of the training from scratch, each on all training images.
    """

    def __init__(
        self, data: str | None = None, epoch_images: int = 15_000, epochs: int = EPOCHS
    ) -> None:
        super().__init__()
        folder = data_folder(data, "fashion_mnist", PUBLISHED)
        self.train = read_images(folder, "train", PUBLISHED)
        self.test = read_images(folder, "test", PUBLISHED)
        self.epoch_images, self.epochs = epoch_images, epochs
        halves = np.array_split(np.random.default_rng(0).permutation(len(self.test)), 2)
        self.rows = {"search": halves[0], "audit": halves[1]}

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        files = (Path(__file__), Path(__file__).with_name("image_batches.py"))
        content = [path.read_bytes() for path in files]
        arrays = self.train.pixels, self.train.labels
        return train_once(Net(), self._train, content=(*content, *arrays, self.epochs))

    def train_batches(self) -> Batches:
        return self._train_batches(self.epoch_images)

    def calibration_batches(self) -> Batches:
        rows = np.random.default_rng(0).permutation(len(self.train))[:CALIBRATION]
        return Batches(self.train, rows, BATCH, mean=MEAN, std=STD)

    def eval_batches(self) -> Batches:
        return Batches(self.test, self.rows["search"], BATCH, mean=MEAN, std=STD)

    def audit_batches(self) -> Batches:
        return Batches(self.test, self.rows["audit"], BATCH, mean=MEAN, std=STD)

    def _train_batches(self, count: int) -> Batches:
        rows = drawn(np.arange(len(self.train)), count)
        change = shifted_and_mirrored(2)
        return Batches(self.train, rows, TRAIN_BATCH, mean=MEAN, std=STD, change=change)

    def _train(self, model: nn.Module) -> None:
        def batches() -> Batches:
            return self._train_batches(len(self.train))

        def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
            return cross_entropy(outputs, batch[1], label_smoothing=0.1)

        fit(model, batches, loss, inputs=self.inputs, epochs=self.epochs, lr=LR)


def _convolution(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
