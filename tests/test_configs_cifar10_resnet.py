"""The example on the CIFAR ResNets: their weights, the splits, the configs."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, one_line
from real_data import real_data

from compressors.inspect import parameter_count
from search import check
from search.config import load_config, parse_config
from search.prepare import prepare
from search.registry import load_reference
from search.workbench import make_workbench
from storage.artifacts import file_stores

FOLDER = REPOSITORY / "configs"
CONFIGS = [FOLDER / "cifar10_resnet.yaml", FOLDER / "cifar10_resnet_untrained.yaml"]
PARAMETERS = {20: 269_722, 56: 853_018}
NEEDED = "cifar10/cifar10_small.npz", "cifar10/cifar10_test_jpeg.npz", "cifar10_resnets"


def load(name):
    return load_reference(f"cifar10_resnet.py:{name}", FOLDER)


def write_copy(folder, train=64, test=2_100):
    """Noise in the binary form; each test image holds its number in its first two bytes."""
    rng = np.random.default_rng(0)
    (folder / "cifar10").mkdir()
    for name, count in (("data_batch_1", train), ("test_batch", test)):
        records = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records[:, 1:3] = np.stack([np.arange(count) // 256, np.arange(count) % 256], 1)
        (folder / "cifar10" / f"{name}.bin").write_bytes(records.tobytes())


def write_weights(folder, depth=20):
    """Weights as they are published; returns the model that they are of."""
    torch.manual_seed(0)
    model = load("ResNet")(depth)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    (folder / "cifar10_resnets").mkdir(exist_ok=True)
    path = folder / "cifar10_resnets" / f"resnet{depth}-0.th"
    torch.save({"state_dict": state, "best_prec1": 0.1}, path)
    return model.eval()


@pytest.fixture
def copy(tmp_path):
    write_copy(tmp_path)
    return tmp_path


@pytest.mark.parametrize("depth", PARAMETERS)
def test_the_networks_have_the_published_names_and_sizes(depth):
    model = load("ResNet")(depth)
    assert parameter_count(model) == PARAMETERS[depth]
    last = (depth - 2) // 6 - 1
    names = dict(model.named_modules())
    for name in ("conv1", "bn1", "layer1.0.conv1", f"layer3.{last}.bn2", "linear"):
        assert name in names
    assert f"layer3.{last + 1}" not in names


def test_weights_are_read_without_their_prefix_from_the_folder_or_a_file(copy):
    expected = write_weights(copy)
    path = copy / "cifar10_resnets" / "resnet20-0.th"
    make = load("Cifar10ResNet")
    images, _ = make(data=str(copy)).eval_batches()[0]
    own = copy / "own.pt"
    torch.save(expected.state_dict(), own)
    with torch.no_grad():
        for options in ({}, {"weights": str(path)}, {"weights": str(own)}):
            assert torch.equal(
                make(data=str(copy), **options).model()(images), expected(images)
            ), options


def test_wrong_weights_are_refused_with_their_path(copy):
    make = load("Cifar10ResNet")
    with pytest.raises(ValueError, match=r"cifar10_resnets/.*pytorch_resnet_cifar10"):
        make(data=str(copy))
    write_weights(copy)
    with pytest.raises(ValueError, match=r"must hold one resnet56-\*\.th, got 0"):
        make(data=str(copy), depth=56)
    with pytest.raises(ValueError, match=r"depth must be one of \(20, 56\), got 21"):
        make(data=str(copy), depth=21)
    with pytest.raises(ValueError, match=r"`weights` names .*none\.pt, which does not exist"):
        make(data=str(copy), weights="none.pt")
    shallow = copy / "cifar10_resnets" / "resnet20-0.th"
    with pytest.raises(ValueError, match="does not fit ResNet-56"):
        make(data=str(copy), depth=56, weights=str(shallow)).model()


def test_a_file_of_weights_runs_no_code(copy):
    ran = copy / "ran"

    class Harmful:
        def __reduce__(self):
            return type(ran).touch, (ran,)

    path = copy / "harmful.th"
    torch.save({"state_dict": Harmful()}, path)
    with pytest.raises(pickle.UnpicklingError):
        load("Cifar10ResNet")(data=str(copy), weights=str(path)).model()
    assert not ran.exists()


def test_a_complete_copy_is_split_without_overlap(copy):
    write_weights(copy)
    task = load("Cifar10ResNet")(data=str(copy), epoch_images=50)
    assert len(task.search) == 2_000
    found = []
    for images in (task.search, task.audit):
        first = images.pixels[:, 0, :2, 0].astype(int)
        found += (256 * first[:, 0] + first[:, 1]).tolist()
    assert sorted(found) == list(range(2_100))
    assert sum(len(labels) for _, labels in task.train_batches()) == 50


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_without_data_the_error_says_what_to_set(path, naslite, monkeypatch):
    monkeypatch.delenv("NASLITE_DATA", raising=False)
    said = one_line(naslite("check", path))
    assert "set NASLITE_DATA or the task option `data`" in said
    assert "cs.toronto.edu/~kriz/cifar.html" in said


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_can_be_searched(path, copy, monkeypatch):
    """On noise, with random weights; everything else is the example's."""
    monkeypatch.setenv("NASLITE_DATA", str(copy))
    content = load_config(path)
    write_weights(copy, content["task_options"]["depth"])
    config, problems = parse_config(content)
    assert problems == []
    assert config.study == path.stem
    prepared = prepare(config, FOLDER, problems, str(path))
    assert prepared.config.budget.trials >= 20
    assert prepared.config.budget.minutes <= 60
    assert "latency_ratio <= 1" in prepared.config.constraints
    assert {"uint8", "int8"} == set(prepared.space["onnx_quantization.activation"].values)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_what_a_config_tries_first_can_be_built(path, copy, monkeypatch):
    """Its first candidate by hand, on noise and trained for a moment."""
    monkeypatch.setenv("NASLITE_DATA", str(copy))
    content = load_config(path)
    content["task_options"] = {"depth": 20, "epoch_images": 32}
    for entry in content["pipeline"]:
        if "distillation" in entry:
            entry["distillation"]["epochs"] = 1
    write_weights(copy)
    config, problems = parse_config(content)
    prepared = prepare(config, FOLDER, problems, str(path))
    bench = make_workbench(prepared, file_stores(copy / "files"))
    built = bench.build(bench.space.complete(config.enqueue[0]))
    assert built.state == "complete", built.cause
    assert built.artifact.size_bytes < 0.45 * bench.build({}).artifact.size_bytes
    assert {"export", "onnx_quantization"} <= {stage.name for stage in built.stages}


@pytest.fixture
def real(monkeypatch):
    folder = real_data(*NEEDED)
    monkeypatch.setenv("NASLITE_DATA", str(folder))
    return folder


def accuracy(task, images):
    batches = load("_all")(images)
    model = task.model()
    with torch.no_grad():
        records = [task.records(model(x).numpy(), (x, y)) for x, y in batches]
    return float(np.concatenate(records).mean())


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "lossless", "lossy"), [(20, 0.915, 0.810), (56, None, 0.832)])
def test_real_weights_have_the_known_accuracies(real, depth, lossless, lossy):
    task = load("Cifar10ResNet")(depth=depth)
    images = type(task.search)
    assert len(task.search) == 2_117
    assert len(task.audit) == 8_883
    test = images(task.search.pixels[:1_000], task.search.labels[:1_000])
    if lossless is not None:
        assert accuracy(task, test) == pytest.approx(lossless, abs=5e-5)
    rest = images(task.search.pixels[1_000:], task.search.labels[1_000:])
    assert accuracy(task, images.joined([rest, task.audit])) == pytest.approx(lossy, abs=5e-4)


@pytest.mark.slow
def test_the_splits_share_no_real_image(real):
    """An image without loss and its JPEG differ little, two images much."""
    task = load("Cifar10ResNet")()
    small = [
        images.pixels.reshape(-1, 4, 8, 4, 8, 3).mean((2, 4)).reshape(len(images), -1)
        for images in (task.search, task.audit)
    ]
    search, audit = (torch.from_numpy(part).float() for part in small)
    lossless, jpegs = search[:1_000], search[1_000:]
    assert torch.cdist(lossless, jpegs).min(1).values.max() < 20  # each is there twice
    nearest = torch.cdist(lossless, audit).min(1).values
    assert nearest.min() > 20


@pytest.mark.slow
def test_each_real_training_image_is_there_as_it_is_and_as_a_jpeg(real):
    train = load("Cifar10ResNet")().train
    assert len(train) == 20_000
    plain, jpegs = train.pixels[:10_000].astype(int), train.pixels[10_000:].astype(int)
    assert 2 < np.abs(plain - jpegs).mean() < 10
    assert (train.labels[:10_000] == train.labels[10_000:]).all()


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_with_real_data(path, real):
    prepared = check(path)
    assert prepared.space.size is not None
