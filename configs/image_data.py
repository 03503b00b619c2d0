"""Images with labels from a user's own copy: npz, a folder for each class, CIFAR's and MNIST's
binary files. Nothing is unpickled and nothing is downloaded."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "NASLITE_DATA"
SUFFIXES = (".jpeg", ".jpg", ".png")
CIFAR_RECORD = 1 + 3 * 32 * 32  # a label, then the planes red, green, blue
IDX_NAMES = {"train": "train", "test": "t10k"}


class DataError(ValueError):
    """The data is not where it should be, or not what it should be."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images of one size with their labels.

    Args:
        pixels: (count, height, width, channels), uint8.
        labels: (count,), int64, from 0.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def checked(cls, pixels: np.ndarray, labels: np.ndarray, source: object) -> Images:
        """Images of grey or coloured pixels, and as many labels.

        Raises:
            DataError: They are something else.
        """
        labels = labels.reshape(-1)
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
            raise DataError(
                f"{source}: images must be uint8 of shape (count, height, width) or"
                f" (count, height, width, channels), got {pixels.dtype} {pixels.shape}"
            )
        if not np.issubdtype(labels.dtype, np.integer) or len(labels) != len(pixels):
            raise DataError(
                f"{source}: each of the {len(pixels)} images must have a whole number as its"
                f" label, got {len(labels)} of {labels.dtype}"
            )
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        return cls(pixels, labels.astype(np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Images]) -> Images:
        return cls(
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )


def data_folder(given: str | None, name: str, published: str) -> Path:
    """The folder `name` in the one that the task option `data` or NASLITE_DATA names.

    Args:
        given: The option; a path that is not absolute begins at the task's own folder.
        published: Where a copy can be had.

    Raises:
        DataError: There is none.
    """
    root = os.environ.get(VARIABLE)
    if given is None and not root:
        raise DataError(
            f"no data: set {VARIABLE} or the task option `data` to the folder that holds"
            f" {name}/ (published at {published})"
        )
    folder = Path(__file__).parent / given if given is not None else Path(str(root)).absolute()
    if not (folder / name).is_dir():
        setting = "the task option `data`" if given is not None else VARIABLE
        raise DataError(
            f"{setting} must name a folder that holds {name}/, but there is no {folder / name}"
            f" (published at {published})"
        )
    return folder / name


def read_images(folder: Path, split: str, published: str) -> Images:
    """The images of a split, whichever of the known forms they have in their folder.

    Args:
        split: `train` or `test`.

    Raises:
        DataError: There are none, or they cannot be read.
    """
    archive = folder / f"{folder.name}.npz"
    if archive.is_file():
        return read_npz(archive, split)
    if (folder / split).is_dir():
        return read_class_folders(folder / split)
    for place in (folder, folder / "cifar-10-batches-bin"):
        batches = sorted(place.glob("data_batch_*.bin" if split == "train" else "test_batch.bin"))
        if batches:
            return read_cifar(batches)
    for suffix in ("", ".gz"):
        if (folder / f"{IDX_NAMES[split]}-images-idx3-ubyte{suffix}").is_file():
            return read_idx(folder, split, suffix)
    raise DataError(
        f"no {split} images in {folder}: it must hold {archive.name} with x_{split} and"
        f" y_{split}, or {split}/CLASS/*.png, or CIFAR's data_batch_*.bin and test_batch.bin, or"
        f" MNIST's {IDX_NAMES[split]}-*-ubyte.gz (published at {published})"
    )


def read_npz(path: Path, split: str) -> Images:
    """`x_train` and `y_train`, or `x_test` and `y_test`; arrays of Python objects are refused."""
    pixels, labels = _arrays(path, f"x_{split}", f"y_{split}")
    return Images.checked(pixels, labels, path)


def read_class_folders(folder: Path) -> Images:
    """A directory for each class, in the order of their names, with PNG or JPEG files in it.

    All images have the size of the first; they are grey if it is, else red, green and blue.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    mode = ""
    for label, place in enumerate(classes):
        for path in sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES):
            image = _opened(path, path)
            mode = mode or ("L" if image.mode in ("1", "L") else "RGB")
            pixels.append(np.asarray(image.convert(mode)))
            labels.append(label)
            if pixels[-1].shape != pixels[0].shape:
                raise DataError(
                    f"{path}: all images must have one size, the first has"
                    f" {pixels[0].shape[:2]}, this one {pixels[-1].shape[:2]}; resize them"
                )
    if not pixels:
        raise DataError(f"{folder}: no CLASS/*.png or *.jpg in it")
    return Images.checked(np.stack(pixels), np.array(labels), folder)


def read_cifar(paths: Sequence[Path]) -> Images:
    """The binary version of CIFAR-10; its Python version is made of pickles, which run code."""
    parts = []
    for path in paths:
        content = np.frombuffer(path.read_bytes(), np.uint8)
        if len(content) == 0 or len(content) % CIFAR_RECORD:
            raise DataError(
                f"{path}: must hold records of {CIFAR_RECORD} bytes, got {len(content)} bytes"
            )
        records = content.reshape(-1, CIFAR_RECORD)
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts.append(Images.checked(np.ascontiguousarray(pixels), records[:, 0], path))
    return Images.joined(parts)


def read_idx(folder: Path, split: str, suffix: str = ".gz") -> Images:
    """The files that MNIST and Fashion-MNIST are published as."""
    stem = IDX_NAMES[split]
    images = folder / f"{stem}-images-idx3-ubyte{suffix}"
    labels = folder / f"{stem}-labels-idx1-ubyte{suffix}"
    return Images.checked(_idx(images), _idx(labels), images)


def read_jpegs(path: Path, rows: range) -> Images:
    """Some rows of an npz of JPEG files: all their bytes in `jpeg`, where they end and begin in
    `offsets`, and `labels`."""
    content, offsets, labels = _arrays(path, "jpeg", "offsets", "labels")
    if len(labels) < rows.stop:
        raise DataError(f"{path}: rows up to {rows.stop} are needed, it has {len(labels)}")
    pixels = []
    for row in rows:
        file = io.BytesIO(content[offsets[row] : offsets[row + 1]].tobytes())
        pixels.append(np.asarray(_opened(file, f"{path}, row {row}").convert("RGB")))
    return Images.checked(np.stack(pixels), labels[rows.start : rows.stop], path)


def as_jpegs(images: Images, quality: int = 75) -> Images:
    """The images as they come back from JPEG; 75 is what Pillow writes where nobody asks.

    Args:
        quality: From 1 to 95.
    """
    pixels = []
    for image in images.pixels:
        file = io.BytesIO()
        _pillow("as_jpegs").fromarray(image).save(file, "JPEG", quality=quality)
        pixels.append(np.asarray(_opened(file, "as_jpegs")))
    return Images(np.stack(pixels), images.labels)


def _arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Some arrays of an npz; what is not numbers is refused, since it would be unpickled."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if missing := [name for name in names if name not in arrays]:
                raise DataError(f"{path}: no array {missing[0]!r}; it holds {arrays.files}")
            return [arrays[name] for name in names]
    except DataError:
        raise
    except Exception as error:  # of zip, of zlib, of the format: many types
        raise DataError(f"{path}: cannot be read: {error}") from error


def _opened(file: Path | io.BytesIO, name: object) -> Any:
    try:
        image = _pillow(name).open(file)
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name}: not an image that can be read: {error}") from error
    return image


def _pillow(name: object) -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise DataError(
            f"{name}: PNG and JPEG files need Pillow: pip install 'naslite[images]'"
        ) from None
    return Image


def _idx(path: Path) -> np.ndarray:
    """An array of bytes: two zeros, 8, the number of dimensions, then each as 32 bits."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    dimensions = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    head = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:head], ">u4").astype(int)
    if not dimensions or len(shape) != dimensions or len(content) != head + shape.prod():
        raise DataError(f"{path}: not an array of bytes in the IDX format")
    return np.frombuffer(content[head:], np.uint8).reshape(shape)
