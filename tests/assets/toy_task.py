"""A whole task in a moment: a tiny residual CNN that needs no training, and its data."""

from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, relu

from compressors.base import Task
from compressors.training import reestimate_batch_norm, seeded

CLASSES = 4
NOISE = 0.7  # of the images; the patterns have standard deviation 1
SHARPNESS = 2.0  # of the logits
BATCH_SIZE = 32
SPLITS = {"train": 128, "calibration": 32, "search": 96}


class ToyNet(nn.Module):
    """A convolution, one residual block and a classifier, with BatchNorm; takes 1x8x8 images."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(4 * width, CLASSES)

    def forward(self, images):
        return self.classifier(self.features(images))

    def features(self, images):
        x = relu(self.stem_norm(self.stem(images)))
        y = relu(self.norm1(self.conv1(x)))
        return avg_pool2d(relu(x + self.norm2(self.conv2(y))), 4).flatten(1)


class Toy(Task):
    """Tells four noisy patterns apart; the labels are what the model says, so its accuracy is 1.

    Training batches are shuffled by the global generator, as a user's DataLoader does it.
    """

    def __init__(self, **options):
        super().__init__(**options)
        images, patterns = _noisy_patterns(sum(SPLITS.values()))
        self._model = _fitted_by_hand(images, patterns)
        with torch.no_grad():
            labels = self._model(images).argmax(-1)
        ends = np.cumsum(list(SPLITS.values()))
        self._data = {
            name: (images[end - size : end], labels[end - size : end])
            for (name, size), end in zip(SPLITS.items(), ends, strict=True)
        }

    def model(self):
        return self._model

    def train_batches(self):
        return self._batches("train", torch.randperm(SPLITS["train"]))

    def calibration_batches(self):
        return self._batches("calibration", torch.arange(SPLITS["calibration"]))

    def eval_batches(self):
        return self._batches("search", torch.arange(SPLITS["search"]))

    def _batches(self, split, order):
        images, labels = self._data[split]
        return [(images[rows], labels[rows]) for rows in order.split(BATCH_SIZE)]


def _noisy_patterns(count):
    """Images, and which of the patterns each of them is."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, 1, 8, 8, generator=generator)
    which = torch.randint(CLASSES, (count,), generator=generator)
    noise = torch.randn(count, 1, 8, 8, generator=generator)
    return patterns[which] + NOISE * noise, which


def _fitted_by_hand(images, patterns):
    """Random features, and on top of them the classifier that picks the nearest class mean."""
    with seeded(0):
        model = ToyNet().eval()
    reestimate_batch_norm(model, images.split(BATCH_SIZE), lambda batch: batch, limit=len(images))
    with torch.no_grad():
        features = model.features(images)
        means = torch.stack([features[patterns == k].mean(0) for k in range(CLASSES)])
        directions = means - means.mean(0)
        thresholds = directions @ means.mean(0) + (directions**2).sum(1) / 2
        model.classifier.weight.copy_(SHARPNESS * directions)
        model.classifier.bias.copy_(-SHARPNESS * thresholds)
    return model


@cache
def toy_task():
    """One for all tests that do not change it."""
    return Toy()
