"""Training on another device: what is moved there, and what a GPU gives."""

import copy
from collections import namedtuple

import pytest
import torch
from assets.toy_task import Toy

from compressors.base import Context
from compressors.devices import loss_scaler, mixed_precision, moved, repeatable, resolved_device
from compressors.distillation import ADDED, Distillation
from compressors.inspect import weights_digest
from compressors.testing import random_states
from compressors.training import seeded

OPTIONS = {"epochs": 2, "temperature": 2.0, "alpha": 0.9, "lr": 0.01, **ADDED}
Pair = namedtuple("Pair", "images labels")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_everything_that_holds_tensors_is_moved():
    tensor = torch.zeros(2)
    batch = {"pair": Pair(tensor, [tensor, 3]), "plain": (tensor, "text", None)}
    there = moved(batch, "meta")  # a device that every build of torch has
    assert type(there["pair"]) is Pair
    assert isinstance(there["pair"].labels, list)
    tensors = [there["pair"].images, there["pair"].labels[0], there["plain"][0]]
    assert [t.device.type for t in tensors] == ["meta"] * 3
    assert (there["pair"].labels[1], there["plain"][1:]) == (3, ("text", None))
    assert tensor.device.type == "cpu"


def test_on_the_cpu_a_batch_stays_the_very_object():
    batch = {"odd": object()}
    assert moved(batch, "cpu") is batch


def test_on_the_cpu_numbers_are_as_always():
    with mixed_precision("cpu", "bf16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert not loss_scaler("cpu", "fp16").is_enabled()
    with repeatable("cpu"):
        assert not torch.are_deterministic_algorithms_enabled()


def test_devices_are_resolved():
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    assert [resolved_device(wanted) for wanted in ("cpu", "auto")] == ["cpu", auto]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_said():
    with pytest.raises(
        ValueError, match=r"finds no CUDA device; install .* or set `device: auto`"
    ):
        resolved_device("cuda")


def distilled(folder, amp, **options):
    toy = Toy()
    context = Context(toy, lambda: copy.deepcopy(toy.model()), 3, folder, device="cuda", amp=amp)
    return Distillation().apply(toy.model(), {**OPTIONS, **options}, context)[0]


@needs_cuda
@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
@pytest.mark.parametrize("schedule", ["one_cycle", "constant"])
def test_a_gpu_repeats_its_bits_and_gives_the_model_back(tmp_path, amp, schedule):
    states = random_states()
    models = [distilled(tmp_path, amp, schedule=schedule) for _ in range(2)]
    assert weights_digest(models[0]) == weights_digest(models[1]) != weights_digest(Toy().model())
    assert {p.device.type for p in models[0].parameters()} == {"cpu"}
    assert {p.dtype for p in models[0].parameters()} == {torch.float32}
    assert random_states() == states


@needs_cuda
def test_seeds_restore_the_generator_of_a_gpu():
    torch.rand(1, device="cuda")
    before = torch.cuda.get_rng_state()
    with seeded(7):
        first = torch.rand(1, device="cuda").item()
    assert torch.equal(torch.cuda.get_rng_state(), before)
    with seeded(7):
        assert torch.rand(1, device="cuda").item() == first
