"""Images from users' own copies: each form gives back what was written; errors name the file."""

from __future__ import annotations

import gzip
import io
import sys

import numpy as np
import pytest
from image_data import (
    VARIABLE,
    DataError,
    Images,
    as_jpegs,
    data_folder,
    read_cifar,
    read_class_folders,
    read_idx,
    read_images,
    read_jpegs,
    read_npz,
)
from PIL import Image

URL = "https://example.org/data"


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(count, classes=10):
    return np.random.default_rng(1).integers(0, classes, count)


def cifar_file(path, images, classes):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    path.write_bytes(np.column_stack([classes.astype(np.uint8), planes]).tobytes())


def idx_bytes(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.tobytes()


def equal(images, expected, classes):
    np.testing.assert_array_equal(images.pixels, expected)
    np.testing.assert_array_equal(images.labels, classes)
    assert images.pixels.dtype == np.uint8
    assert images.labels.dtype == np.int64


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 1), (5, 4, 6, 3)])
def test_npz(tmp_path, shape):
    images, classes = pixels(*shape), labels(5)
    empty = pixels(0, 4, 6)
    path = tmp_path / "a.npz"
    np.savez(path, x_train=empty, y_train=empty[:, 0, 0], x_test=images, y_test=classes[:, None])
    expected = images if len(shape) == 4 else images[..., None]
    equal(read_npz(path, "test"), expected, classes)
    assert len(read_npz(path, "train")) == 0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_test": pixels(2, 4, 4)}, "no array 'y_test'; it holds ['x_test']"),
        ({"x_test": pixels(2, 4, 4) / 255, "y_test": labels(2)}, "must be uint8 of shape"),
        ({"x_test": pixels(2, 4), "y_test": labels(2)}, "got uint8 (2, 4)"),
        ({"x_test": pixels(2, 4, 4), "y_test": labels(3)}, "each of the 2 images"),
        ({"x_test": pixels(2, 4, 4), "y_test": labels(2) + 0.5}, "got 2 of float64"),
        ({"x_test": pixels(2, 4, 4), "y_test": np.array([{}, 1])}, "allow_pickle=False"),
    ],
)
def test_an_npz_that_holds_something_else_is_refused(tmp_path, arrays, words):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError) as caught:
        read_npz(path, "test")
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip at all", "cut"])
def test_a_damaged_npz_is_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    np.savez(path, x_test=pixels(9, 4, 4), y_test=labels(9))
    path.write_bytes(path.read_bytes()[:-400] if content == "cut" else content)
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(path, "test")


@pytest.mark.parametrize(("channels", "suffix"), [(1, "png"), (3, "png"), (3, "PNG")])
def test_folders_are_classes_in_the_order_of_their_names(tmp_path, channels, suffix):
    images, classes = pixels(6, 4, 5, channels), np.array([0, 0, 1, 1, 1, 2])
    for number, (image, label) in enumerate(zip(images, classes, strict=True)):
        folder = tmp_path / ["bag", "coat", "shirt"][label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image.squeeze()).save(folder / f"{number}.{suffix}", "PNG")
    (tmp_path / "coat" / "notes.txt").write_text("no image")
    (tmp_path / "readme.txt").write_text("no class")
    equal(read_class_folders(tmp_path), images, classes)


def test_folders_may_hold_jpegs(tmp_path):
    smooth = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    for name in ("a.jpg", "b.JPEG"):
        (tmp_path / "one").mkdir(exist_ok=True)
        Image.fromarray(smooth).save(tmp_path / "one" / name, "JPEG", quality=95)
    images = read_class_folders(tmp_path)
    assert images.pixels.shape == (2, 8, 8, 3)
    assert np.abs(images.pixels.astype(int) - smooth).max() <= 4
    assert images.labels.tolist() == [0, 0]


def test_folders_of_the_wrong_images_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"no CLASS/\*.png"):
        read_class_folders(tmp_path)
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels(4, 4)).save(tmp_path / "one" / "a.png")
    Image.fromarray(pixels(4, 5)).save(tmp_path / "one" / "b.png")
    with pytest.raises(DataError, match=r"b\.png: all images must have one size.*\(4, 5\)"):
        read_class_folders(tmp_path)
    (tmp_path / "one" / "b.png").write_bytes(b"\x89PNG and no more")
    with pytest.raises(DataError, match=r"b\.png: not an image"):
        read_class_folders(tmp_path)


def test_without_pillow_the_error_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels(4, 4)).save(tmp_path / "one" / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'naslite\[images\]'"):
        read_class_folders(tmp_path)


def test_cifar_binary(tmp_path):
    images, classes = pixels(7, 32, 32, 3), labels(7)
    first, second = tmp_path / "data_batch_1.bin", tmp_path / "data_batch_2.bin"
    cifar_file(first, images[:4], classes[:4])
    cifar_file(second, images[4:], classes[4:])
    equal(read_cifar([first, second]), images, classes)
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2\.bin: must hold records of 3073 bytes"):
        read_cifar([first, second])


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_idx(tmp_path, suffix):
    images, classes = pixels(5, 4, 6), labels(5).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", classes)):
        content = idx_bytes(array)
        content = gzip.compress(content) if suffix else content
        (tmp_path / f"t10k-{name}-ubyte{suffix}").write_bytes(content)
    equal(read_idx(tmp_path, "test", suffix), images[..., None], classes)
    equal(read_images(tmp_path, "test", URL), images[..., None], classes)


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\0\x0d\x01\0\0\0\x01x", b"\0\0\x08\x01\0\0\0\x02x", b"plain"]
)
def test_what_is_no_idx_file_is_refused(tmp_path, content):
    for name in ("images-idx3", "labels-idx1"):
        (tmp_path / f"train-{name}-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="IDX format"):
        read_idx(tmp_path, "train", "")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path, "test", "")


def test_images_as_jpegs_are_what_pillow_writes_and_reads():
    images = Images(pixels(3, 16, 16, 3), labels(3))
    found = as_jpegs(images)
    file = io.BytesIO()
    Image.fromarray(images.pixels[1]).save(file, "JPEG")  # its own default is 75
    np.testing.assert_array_equal(found.pixels[1], np.asarray(Image.open(file)))
    np.testing.assert_array_equal(found.labels, images.labels)
    coarse = np.abs(as_jpegs(images, 10).pixels.astype(int) - images.pixels).mean()
    assert coarse > np.abs(found.pixels.astype(int) - images.pixels).mean() > 0


def test_rows_of_packed_jpegs(tmp_path):
    colours = pixels(4, 3)
    files = []
    for colour in colours:
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    path = tmp_path / "a.npz"
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=np.arange(4),
    )
    images = read_jpegs(path, range(1, 3))
    assert images.labels.tolist() == [1, 2]
    assert np.abs(images.pixels.mean((1, 2)) - colours[1:3]).max() <= 4
    with pytest.raises(DataError, match="rows up to 5 are needed, it has 4"):
        read_jpegs(path, range(5))
    with pytest.raises(DataError, match="cannot be read"):
        read_jpegs(tmp_path / "none.npz", range(1))


def test_the_form_of_a_copy_is_found_by_its_files(tmp_path):
    folder = tmp_path / "cifar10"
    batches = folder / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    images, classes = pixels(3, 32, 32, 3), labels(3)
    for number in (1, 2):
        cifar_file(batches / f"data_batch_{number}.bin", images, classes)
    assert len(read_images(folder, "train", URL)) == 6
    with pytest.raises(DataError, match="no test images in") as caught:
        read_images(folder, "test", URL)
    assert URL in str(caught.value)
    cifar_file(batches / "test_batch.bin", images, classes)
    equal(read_images(folder, "test", URL), images, classes)
    (folder / "test" / "one").mkdir(parents=True)
    Image.fromarray(pixels(4, 4)).save(folder / "test" / "one" / "a.png")
    assert read_images(folder, "test", URL).pixels.shape == (1, 4, 4, 1)
    np.savez(folder / "cifar10.npz", x_test=pixels(2, 5, 5), y_test=labels(2))
    assert read_images(folder, "test", URL).pixels.shape == (2, 5, 5, 1)


def test_the_folder_comes_from_the_option_or_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(DataError, match=f"set {VARIABLE} or the task option `data`.*{URL}"):
        data_folder(None, "cifar10", URL)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(DataError, match=rf"{VARIABLE} must name .*/cifar10 \(published at {URL}"):
        data_folder(None, "cifar10", URL)
    (tmp_path / "cifar10").mkdir()
    assert data_folder(None, "cifar10", URL) == tmp_path / "cifar10"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, ".")
    assert data_folder(None, "cifar10", URL) == tmp_path / "cifar10"
    monkeypatch.setenv(VARIABLE, "nowhere")
    assert data_folder(str(tmp_path), "cifar10", URL) == tmp_path / "cifar10"
    with pytest.raises(DataError, match="the task option `data` must name"):
        data_folder("nowhere", "cifar10", URL)
