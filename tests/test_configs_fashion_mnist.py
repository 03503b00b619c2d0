"""The example on Fashion-MNIST: its splits, its model, its config."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, one_line
from real_data import real_data

from compressors.inspect import parameter_count
from compressors.training import seeded
from search.config import load_config, parse_config
from search.prepare import prepare
from search.registry import load_reference

CONFIG = REPOSITORY / "configs" / "fashion_mnist.yaml"
FILE = "fashion_mnist/fashion_mnist.npz"


def write_copy(folder, train=300, test=100):
    """Noise instead of clothes; each image holds its number in its first pixels."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, count in (("train", train), ("test", test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, :2] = np.stack([np.arange(count) // 256, np.arange(count) % 256], 1)
        arrays |= {f"x_{name}": images, f"y_{name}": np.sort(rng.integers(0, 10, count))}
    (folder / "fashion_mnist").mkdir()
    np.savez(folder / FILE, **arrays)
    return arrays


def task(**options):
    return load_reference("fashion_mnist.py:FashionMnist", CONFIG.parent)(**options)


def numbers(batches, mean=0.286041, std=0.353024):
    pixels = torch.cat([images for images, _ in batches])[:, 0, 0, :2]
    values = (255 * (pixels * std + mean)).round().long()
    return (256 * values[:, 0] + values[:, 1]).tolist()


def test_search_and_audit_are_all_test_images_and_share_none(tmp_path):
    arrays = write_copy(tmp_path)
    found = task(data=str(tmp_path))
    search, audit = numbers(found.eval_batches()), numbers(found.audit_batches())
    assert sorted(search + audit) == list(range(100))
    assert len(search) == 50
    labels = torch.cat([labels for _, labels in found.eval_batches()])
    assert labels.tolist() == arrays["y_test"][search].tolist()
    assert len(set(labels[:25].tolist())) > 2  # shuffled: the file has class after class


def test_an_epoch_of_recovery_is_a_part_of_the_training_images_drawn_anew(tmp_path):
    write_copy(tmp_path)
    found = task(data=str(tmp_path), epoch_images=150)
    with seeded(0):
        first, second = found.train_batches(), found.train_batches()
    with seeded(0):
        again = found.train_batches()
    assert [len(batches) for batches in (first, second)] == [2, 2]
    labels = [torch.cat([y for _, y in batches]) for batches in (first, second, again)]
    assert all(len(part) == 150 for part in labels)
    assert not torch.equal(labels[0], labels[1])
    assert torch.equal(labels[0], labels[2])


def test_without_data_the_error_says_what_to_set(naslite, monkeypatch, tmp_path):
    monkeypatch.delenv("NASLITE_DATA", raising=False)
    said = one_line(naslite("check", CONFIG))
    assert "set NASLITE_DATA or the task option `data`" in said
    assert "github.com/zalandoresearch/fashion-mnist" in said
    monkeypatch.setenv("NASLITE_DATA", str(tmp_path))
    assert "there is no" in one_line(naslite("check", CONFIG))


def test_the_config_can_be_searched(tmp_path, monkeypatch):
    """On noise, with a model that was trained for a moment; everything else is the example's."""
    write_copy(tmp_path)
    monkeypatch.setenv("NASLITE_DATA", str(tmp_path))
    config, problems = parse_config(
        {**load_config(CONFIG), "task_options": {"epochs": 1, "epoch_images": 100}}
    )
    assert problems == []
    prepared = prepare(config, CONFIG.parent, problems, str(CONFIG))
    assert prepared.config.budget.trials >= 20
    assert prepared.config.budget.minutes <= 20
    assert "latency_ratio <= 1" in prepared.config.constraints
    assert len(prepared.config.enqueue) == len(config.enqueue)
    assert parameter_count(prepared.loaded.model) <= 200_000


@pytest.mark.slow
def test_the_model_learns_from_a_tenth_of_the_real_images(tmp_path):
    with np.load(real_data(FILE) / FILE) as arrays:
        pixels = arrays["x_train"] / 255
        np.testing.assert_allclose([pixels.mean(), pixels.std()], [0.286041, 0.353024], atol=1e-6)
        tenth = {name: arrays[name][: len(arrays[name]) // 10] for name in arrays.files}
    (tmp_path / "fashion_mnist").mkdir()
    np.savez(tmp_path / FILE, **tenth)
    found = task(data=str(tmp_path), epochs=2)
    with torch.no_grad():
        model = found.model()
        records = [found.records(model(x).numpy(), (x, y)) for x, y in found.eval_batches()]
    assert found.score(np.concatenate(records)) > 0.8
