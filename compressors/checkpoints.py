"""The state of an optimizer as plain tensors, from which a training goes on bit by bit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

SCALER = "scaler."  # in the names of what the scaler of fp16 gradients remembers


def saved(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
) -> dict[str, torch.Tensor]:
    """What it remembers of each parameter, as `<position>.<name>` on the CPU."""
    tensors = {
        f"{position}.{name}": torch.as_tensor(value).detach().cpu()
        for position, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }
    scales = scaler.state_dict()  # empty where gradients are not scaled
    tensors |= {f"{SCALER}{name}": torch.tensor(value) for name, value in scales.items()}
    return tensors


def restore(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Give an optimizer of the same parameters, and its scaler, what `saved` gave."""
    state: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
    scales: dict[str, Any] = {}
    for key, tensor in tensors.items():
        if key.startswith(SCALER):
            scales[key.removeprefix(SCALER)] = tensor.item()
        else:
            position, _, name = key.partition(".")
            state[int(position)][name] = tensor.clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": dict(state)})
    if scales:
        scaler.load_state_dict(scales)
