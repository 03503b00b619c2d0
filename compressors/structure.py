"""The structure of a model as JSON: what differs from another model with the same modules."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from .base import Recipe


def structure_difference(original: nn.Module, changed: nn.Module) -> Recipe:
    """The shapes and the plain attributes (`out_channels`, ...) in which `changed` differs.

    Raises:
        ValueError: The two have not the same modules, parameters and buffers.
    """
    modules, others = dict(original.named_modules()), dict(changed.named_modules())
    if modules.keys() != others.keys():
        raise ValueError(f"the models must have the same modules, got {_only(modules, others)}")
    attributes: dict[str, dict[str, Any]] = {}
    for name, module in modules.items():
        old, new = _plain_attributes(module), _plain_attributes(others[name])
        different = {k: v for k, v in new.items() if k not in old or old[k] != v}
        if different:
            attributes[name] = different
    before, after = original.state_dict(), changed.state_dict()
    if before.keys() != after.keys():
        raise ValueError(f"the models must have the same tensors, got {_only(before, after)}")
    shapes = {k: list(v.shape) for k, v in after.items() if v.shape != before[k].shape}
    return {"attributes": attributes, "shapes": shapes}


def with_structure(model: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of the model with the structure of a recipe; the resized tensors are all zero."""
    result = copy.deepcopy(model)
    for name, values in recipe.get("attributes", {}).items():
        module = result.get_submodule(name)
        for attribute, value in values.items():
            setattr(module, attribute, tuple(value) if isinstance(value, list) else value)
    for name, shape in recipe.get("shapes", {}).items():
        owner_name, _, tensor_name = name.rpartition(".")
        owner = result.get_submodule(owner_name)
        old = getattr(owner, tensor_name)
        new = torch.zeros(shape, dtype=old.dtype, device=old.device)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(owner, tensor_name, new)
    return result


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The public attributes that are numbers or tuples of numbers, as JSON values."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name == "training":
            continue
        if isinstance(value, (bool, int, float)):
            found[name] = value
        elif isinstance(value, tuple) and all(isinstance(v, (int, float)) for v in value):
            found[name] = list(value)
    return found


def _only(a: dict[str, Any], b: dict[str, Any]) -> str:
    return ", ".join(sorted(a.keys() ^ b.keys())[:3])
