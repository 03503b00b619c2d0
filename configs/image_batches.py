"""Batches of images as a model takes them, shifted and mirrored at random for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from image_data import Images
from torch import Tensor
from torch.nn.functional import pad

Change = Callable[[Tensor], Tensor]  # of uint8 images, (count, height, width, channels)


class Batches(Sequence[tuple[Tensor, Tensor]]):
    """Pairs of normalised images (count, channels, height, width) and labels, made when asked for.

    Args:
        rows: Which images, in this order.
        mean: Of each channel, of pixels in [0, 1].
        std: Likewise.
        change: Done to the images of a batch before they are normalised; it may draw from torch's
            global generator, which naslite seeds.
    """

    def __init__(
        self,
        images: Images,
        rows: np.ndarray,
        size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        change: Change | None = None,
    ) -> None:
        self._images, self._rows, self._size, self._change = images, rows, size, change
        self._mean, self._std = 255 * torch.tensor(mean), 255 * torch.tensor(std)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        if not 0 <= position < len(self):
            raise IndexError(position)
        rows = self._rows[position * self._size :][: self._size]
        pixels = torch.from_numpy(self._images.pixels[rows])
        if self._change is not None:
            pixels = self._change(pixels)
        normal = (pixels.float() - self._mean) / self._std
        # The channels stay last in memory, with which torch trains faster on a CPU.
        return normal.permute(0, 3, 1, 2), torch.from_numpy(self._images.labels[rows])


def drawn(rows: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the rows in random order, from torch's global generator."""
    return rows[torch.randperm(len(rows))[:count].numpy()]


def shifted_and_mirrored(most: int) -> Change:
    """Moves each image by up to `most` pixels each way, black coming in, and mirrors every other
    one (the augmentation of He et al. 2016 for CIFAR-10, with `most` = 4)."""

    def change(pixels: Tensor) -> Tensor:
        count, height, width, _ = pixels.shape
        padded = pad(pixels, (0, 0, most, most, most, most))
        down, right = torch.randint(2 * most + 1, (2, count, 1))
        rows, columns = down + torch.arange(height), right + torch.arange(width)
        moved = padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        is_mirrored = torch.rand(count, 1, 1, 1) < 0.5
        return torch.where(is_mirrored, moved.flip(2), moved)

    return change
