"""Facts about a torch model."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from .arrays import call_arguments
from .errors import Refused

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)


def forward(model: nn.Module, inputs: Any) -> Any:
    """Call a model with a tensor, a tuple of positional or a dict of named arguments."""
    arguments, named = call_arguments(inputs)
    return model(*arguments, **named)


def weighted_layers(model: nn.Module, ignored: Container[str] = ()) -> dict[str, Any]:
    """Convolutions and linear layers by name, but for those that are ignored.

    Raises:
        Refused: The weight of one is computed from other tensors (weight norm, for instance), so
            that what is done to it is lost.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, PRUNABLE) and name not in ignored
    }
    for name, layer in layers.items():
        if layer._parameters.get("weight") is None:
            raise Refused(
                f"the weight of {name!r} is computed from other tensors, so what is done to it"
                " would be lost; remove that parametrization in model()"
            )
    return layers


def sample_count(inputs: Any) -> int:
    """How many samples a batch of a model's inputs holds: a tensor, or a tuple or dict of them."""
    found = [tensor for tensor in tensors_in(inputs) if tensor.ndim]
    return max((len(tensor) for tensor in found), default=1)


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
    """The prunable layers that make the model's outputs: those between which and an output no
    other prunable layer lies, else the last one that runs. Their width is the user's interface."""
    ran: list[nn.Module] = []
    makers: dict[Any, nn.Module] = {}  # node of the autograd graph -> the layer whose output it is

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            ran.append(module)
            makers[output.grad_fn] = module

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, PRUNABLE)]
    try:
        with all_trainable(model), torch.enable_grad():
            outputs = forward(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    found: set[nn.Module] = set()
    pending = [t.grad_fn for t in tensors_in(outputs) if t.grad_fn is not None]
    reached = set(pending)
    while pending:
        node = pending.pop()
        if node in makers:
            found.add(makers[node])
        else:
            new = {parent for parent, _ in node.next_functions if parent is not None} - reached
            reached |= new
            pending.extend(new)
    return [module for module in model.modules() if module in found] or ran[-1:]


@contextmanager
def all_trainable(model: nn.Module) -> Iterator[None]:
    """Inside, autograd sees every parameter, frozen ones too."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    try:
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        yield
    finally:
        for name, parameter in model.named_parameters():  # by name: pruning makes new ones
            parameter.requires_grad_(name not in frozen)


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


def layers_matching(model: nn.Module, pattern: str) -> list[str]:
    """The names of the prunable layers that a pattern means.

    Args:
        pattern: Shell patterns, separated by `|`; one that matches a module means all inside it.
    """
    parts = [part.strip() for part in pattern.split("|") if part.strip()]
    layers = [name for name, module in model.named_modules() if isinstance(module, PRUNABLE)]
    return [name for name in layers if any(_is_inside(name, part) for part in parts)]


def _is_inside(name: str, pattern: str) -> bool:
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:n]), pattern) for n in range(1, len(parts) + 1))
