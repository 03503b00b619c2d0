"""Facts about a torch model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)


def forward(model: nn.Module, inputs: Any) -> Any:
    """Call a model with a tensor, a tuple of positional or a dict of named arguments."""
    if isinstance(inputs, dict):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)):
        return model(*inputs)
    return model(inputs)


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def weights_digest(model: nn.Module) -> str:
    """SHA-256 (hex) over names, shapes, types and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}/{tuple(tensor.shape)}/{tensor.dtype}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().tobytes())


def output_layers(model: nn.Module, inputs: Any) -> list[nn.Module]:
    """The prunable layers that make the model's outputs: those whose output is an output of the
    model, else the last one that runs. Their width is the user's interface."""
    seen: list[tuple[nn.Module, torch.Tensor]] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            seen.append((module, output))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, PRUNABLE)]
    try:
        with torch.no_grad():
            outputs = forward(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    pointers = {tensor.data_ptr() for tensor in tensors_in(outputs)}
    found = [module for module, tensor in seen if tensor.data_ptr() in pointers]
    return found or [module for module, _ in seen[-1:]]


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)
