"""Training on another device than the CPU: what goes there, in which numbers, and repeatably."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolved_device(wanted: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        ValueError: `cuda` is wanted, and there is none.
    """
    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise ValueError(
            "cuda was asked for, but torch finds no CUDA device;"
            " install a driver and a CUDA build of torch, or set `device: auto`"
        )
    return "cuda" if has_cuda and wanted != "cpu" else "cpu"


def gpu_facts(device: str, amp: str) -> tuple[str, ...]:
    """What determines a training's bits on this device; empty for the CPU."""
    if device == "cpu":
        return ()
    return device, torch.cuda.get_device_name(), str(torch.version.cuda), amp


def moved(value: Any, device: str) -> Any:
    """A batch, or what is made of it, with its tensors on the device; nothing else is changed."""
    if device == "cpu":  # where a task's batches are
        return value
    if isinstance(value, Mapping):
        return {key: moved(part, device) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [moved(part, device) for part in value]
        if hasattr(value, "_fields"):  # a named tuple
            return type(value)(*parts)
        return parts if isinstance(value, list) else tuple(parts)
    return value.to(device) if hasattr(value, "to") else value


def mixed_precision(device: str, amp: str) -> AbstractContextManager[Any]:
    """Inside, a GPU computes in the numbers of `amp` where that is safe; on a CPU, as always."""
    if device == "cpu" or amp == "none":
        return nullcontext()
    return torch.autocast(device, AMP_TYPES[amp])


def loss_scaler(device: str, amp: str) -> torch.amp.GradScaler:
    """Keeps gradients of fp16 from vanishing; of all other numbers it changes nothing."""
    return torch.amp.GradScaler(device, enabled=device != "cpu" and amp == "fp16")


@contextmanager
def repeatable(device: str) -> Iterator[None]:
    """Inside, a GPU gives the same bits for the same seed; where it cannot, torch warns."""
    if device == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
    were_on = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    had_benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(were_on, warn_only=only_warned)
        torch.backends.cudnn.benchmark = had_benchmark
