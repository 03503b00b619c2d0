"""The one training loop, seeding, and weights that are trained once."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .base import Earlier
from .checkpoints import restore, saved
from .devices import loss_scaler, mixed_precision, moved, repeatable
from .inspect import PRUNABLE, forward, weights_digest

log = logging.getLogger("naslite.compressors")

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("one_cycle", "constant")
FIT_VERSION = 1  # raised, and `Distillation.version` too, when `fit` gives other weights


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, numpy and random, and restore them afterwards.

    Users' data loaders and third-party libraries draw from them; ours never do.
    """
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=_cuda_devices()):
        _seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def fit(
    model: nn.Module,
    batches: Callable[[], Iterable[Any]],
    loss: Callable[[Any, Any], torch.Tensor],
    *,
    inputs: Callable[[Any], Any],
    epochs: int,
    lr: float,
    weight_decay: float = 0.01,
    optimizer: str = "adamw",
    schedule: str = "one_cycle",
    device: str = "cpu",
    amp: str = "none",
    seed: int | None = None,
    earlier: Earlier | None = None,
    epoch_ended: Callable[[int], None] = lambda epoch: None,
) -> dict[str, torch.Tensor]:
    """Train in place, by default with AdamW under a one-cycle schedule (Smith and Topin 2019), in
    which the momentum falls from 0.95 to 0.85 while the rate rises, and comes back.

    Weights of convolutions and linear layers that are zero stay zero, so what was pruned stays
    pruned; a layer that begins as nothing but zeros is trained.

    Args:
        batches: Gives one epoch of batches per call.
        loss: (outputs, batch) -> scalar tensor.
        inputs: batch -> what the model is called with.
        lr: The peak learning rate of `one_cycle`; with `constant`, that of all steps.
        optimizer: adamw, or sgd (Nesterov's momentum; 0.9 where the schedule is constant).
        device: Where it happens; the model lies on the CPU before and after.
        amp: none, bf16 or fp16 (see `devices.mixed_precision`).
        seed: Each epoch begins with generators seeded by it and its number; None leaves them
            alone.
        earlier: Go on from there, with the bits of a training from the beginning; needs a seed
            and the `constant` schedule.
        epoch_ended: Called with the number of each epoch, from 1.

    Returns:
        The optimizer's state, which `earlier` takes.

    Raises:
        ValueError: The loss is not finite, or there is no batch.
    """
    steps = _length(batches())
    if steps == 0:
        raise ValueError("training needs at least one batch, got none from train_batches()")
    pruned = [(weight, weight == 0) for weight in _pruned_weights(model.to(device))]
    chosen = _optimizer(optimizer, model, lr, weight_decay)
    cycle = None
    if schedule == "one_cycle":
        total = epochs * steps
        cycle = torch.optim.lr_scheduler.OneCycleLR(chosen, lr, total_steps=total)
    scaler = loss_scaler(device, amp)
    if earlier is not None:
        assert cycle is None, "what a cycle did before depends on its length"
        model.load_state_dict(earlier.model.state_dict())
        restore(chosen, scaler, earlier.state)
    was_training = model.training
    model.train()
    with repeatable(device):
        for epoch in range(earlier.epochs if earlier else 0, epochs):
            if seed is not None:
                _seed(_epoch_seed(seed, epoch))
            for step, batch in enumerate(batches()):
                if step == steps:
                    break
                there = moved(batch, device)
                with mixed_precision(device, amp):
                    value = loss(forward(model, inputs(there)), there)
                if not torch.isfinite(value):
                    raise ValueError(f"the training loss is {value.item()} in epoch {epoch + 1}")
                chosen.zero_grad(set_to_none=True)
                scaler.scale(value).backward()  # type: ignore[no-untyped-call]
                scaler.step(chosen)
                scaler.update()
                for weight, zero in pruned:
                    weight.masked_fill_(zero, 0.0)
                if cycle is not None:
                    cycle.step()
            epoch_ended(epoch + 1)
    model.train(was_training).to("cpu")
    return saved(chosen, scaler)


def reestimate_batch_norm(
    model: nn.Module, batches: Iterable[Any], inputs: Callable[[Any], Any], *, limit: int
) -> None:
    """Replace the running statistics of BatchNorm by plain averages over up to `limit` batches.

    Raises:
        ValueError: There is no batch.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    layers = [m for m in layers if m.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    was_training = model.training
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
        layer.train()
    count = 0
    with torch.no_grad():
        for batch in islice(batches, limit):
            forward(model, inputs(batch))
            count += 1
    if count == 0:
        raise ValueError("re-estimating BatchNorm needs at least one batch, got none")
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.train(was_training)


def train_once(
    model: nn.Module, train: Callable[[nn.Module], None], *, content: Iterable[Any], seed: int = 0
) -> nn.Module:
    """Train a model, or load the weights that the same training gave before.

    The weights lie in NASLITE_CACHE (default ~/.cache/naslite), named by a SHA-256 of the initial
    weights, `content`, the seed, FIT_VERSION, torch's version, its threads and the CPU's
    capability.

    Args:
        train: Trains the model in place.
        content: What determines the training: source text, arrays, hyper-parameters.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model, save_model

    digest = hashlib.sha256(weights_digest(model).encode())
    machine = (torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    for part in (*content, seed, FIT_VERSION, machine):
        data = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else part
        digest.update(data if isinstance(data, bytes) else repr(data).encode())
        digest.update(b"\0")
    folder = Path(os.environ.get("NASLITE_CACHE", Path.home() / ".cache" / "naslite"))
    path = folder / f"{digest.hexdigest()}.safetensors"
    if path.exists():
        try:
            load_model(model, path)
        except SafetensorError as error:
            log.warning("%s is damaged (%s); training again", path, error)
        else:
            return model.eval()
    log.info("training the model, once; its weights will be kept as %s", path)
    with seeded(seed):
        train(model)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        save_model(model, str(Path(scratch) / path.name))
        (Path(scratch) / path.name).replace(path)
    return model.eval()


def _cuda_devices() -> list[int]:
    """The GPUs whose generators somebody may have used."""
    is_used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return list(range(torch.cuda.device_count())) if is_used else []


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(hashlib.sha256(f"{seed}/{epoch}".encode()).hexdigest()[:15], 16)


def _optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    parameters = model.parameters()
    if name == "sgd":
        return torch.optim.SGD(
            parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=weight_decay
        )
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)


def _pruned_weights(model: nn.Module) -> list[torch.Tensor]:
    layers = [m for m in model.modules() if isinstance(m, PRUNABLE)]
    weights = [m.weight.data for m in layers if m._parameters.get("weight") is not None]
    return [weight for weight in weights if 0 < weight.count_nonzero() < weight.numel()]


def _length(batches: Iterable[Any]) -> int:
    if isinstance(batches, Sized):
        return len(batches)
    return sum(1 for _ in batches)
