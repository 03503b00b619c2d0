"""Batches of images: normalised, in order, and changed at random only where they should be."""

from __future__ import annotations

import numpy as np
import torch
from image_batches import Batches, drawn, shifted_and_mirrored
from image_data import Images

from compressors.training import seeded


def images(count=10, height=6, width=5, channels=2):
    rng = np.random.default_rng(0)
    shape = count, height, width, channels
    return Images(rng.integers(1, 256, shape, dtype=np.uint8), np.arange(count))


def batches(rows, size, **options):
    return Batches(images(), np.asarray(rows), size, mean=[0.5, 0.25], std=[0.2, 0.1], **options)


def test_batches_are_the_rows_in_order_normalised():
    found = batches([7, 1, 4, 9, 0], 2)
    assert len(found) == len(list(found)) == 3
    assert [labels.tolist() for _, labels in found] == [[7, 1], [4, 9], [0]]
    pixels = images().pixels[[4, 9]].astype(np.float64).transpose(0, 3, 1, 2) / 255
    expected = (pixels - np.reshape([0.5, 0.25], (2, 1, 1))) / np.reshape([0.2, 0.1], (2, 1, 1))
    np.testing.assert_allclose(found[1][0].numpy(), expected, rtol=1e-5, atol=1e-5)
    assert found[1][0].is_contiguous(memory_format=torch.channels_last)
    assert found[1][0].dtype == torch.float32


def test_rows_are_drawn_anew_each_time_but_repeat_by_seed():
    rows = np.arange(100, 200)
    with seeded(0):
        first, second = drawn(rows, 30), drawn(rows, 30)
    with seeded(0):
        again = drawn(rows, 30)
    assert len(set(first)) == 30
    assert set(first) <= set(rows)
    assert first.tolist() != second.tolist()
    assert first.tolist() == again.tolist()
    assert sorted(drawn(rows, 1000)) == rows.tolist()


def test_an_image_is_moved_as_a_whole_black_coming_in_and_half_of_them_are_mirrored():
    pixels = torch.from_numpy(images(200).pixels)
    with seeded(0):
        changed = shifted_and_mirrored(2)(pixels)
    assert changed.shape == pixels.shape
    found = []
    for before, after in zip(pixels, changed, strict=True):
        padded = torch.nn.functional.pad(before, (0, 0, 2, 2, 2, 2))
        moves = [
            (down, right, mirrored)
            for down in range(5)
            for right in range(5)
            for mirrored in (False, True)
            if torch.equal(
                after,
                padded[down : down + 6, right : right + 5].flip(1)
                if mirrored
                else padded[down : down + 6, right : right + 5],
            )
        ]
        assert len(moves) == 1
        found += moves
    assert {down for down, _, _ in found} == {right for _, right, _ in found} == set(range(5))
    assert 70 < sum(mirrored for _, _, mirrored in found) < 130


def test_changes_repeat_by_seed():
    def one():
        with seeded(3):
            return batches(range(10), 10, change=shifted_and_mirrored(1))[0][0]

    assert torch.equal(one(), one())
    assert not torch.equal(one(), batches(range(10), 10)[0][0])
