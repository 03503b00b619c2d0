"""Mixed precision: one knob for each block or layer, and which nodes of a file it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from strategies.space import Choice, Condition, Knob

from .base import Options
from .inspect import PRUNABLE

PREFIX = "precision@"
LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ROOT = "model"  # before the slash in names of nodes that belong to no submodule


def precision_knobs(model: nn.Module) -> list[Knob]:
    """`precision@<module path>` for the layers and blocks of a model, in the model's order."""
    layers = blocks_of_layers(model)
    blocks = set(layers.values())
    knobs: list[Knob] = []
    for name, _ in model.named_modules():
        kinds = [kind for kind, of in (("block", blocks), ("layer", layers)) if name in of]
        if kinds:
            knobs.append(
                Choice(
                    name=f"{PREFIX}{name}",
                    values=("fp32", "int8"),
                    neutral="fp32",
                    ordered=True,
                    direction=1,
                    active_when=Condition("granularity", "in", tuple(kinds)),
                )
            )
    return knobs


def blocks_of_layers(model: nn.Module) -> dict[str, str]:
    """The block that each convolution and linear layer belongs to.

    A block is the innermost module of two or more layers that stands in a list (`Sequential`,
    `ModuleList`, `ModuleDict`) or beside another module of its class, is no list itself, and
    holds at most half of the model's layers. One inside another is part of that. A layer in no
    block is a block of its own.
    """
    modules = dict(model.named_modules())
    layers = [name for name, module in modules.items() if isinstance(module, PRUNABLE) and name]
    found = {name: _block(name, modules, layers) for name in layers}
    blocks = set(found.values())
    return {
        name: next((outer for outer in _upwards(block)[::-1] if outer in blocks), block)
        for name, block in found.items()
    }


def _block(layer: str, modules: Mapping[str, nn.Module], layers: list[str]) -> str:
    for path in _upwards(layer)[1:]:
        held = sum(name.startswith(f"{path}.") for name in layers)
        if not isinstance(modules[path], LISTS) and 2 <= held <= len(layers) / 2:
            parent = modules[path.rpartition(".")[0]]
            alike = [part for part in parent.children() if type(part) is type(modules[path])]
            if isinstance(parent, LISTS) or len(alike) > 1:
                return path
    return layer


def _upwards(path: str) -> list[str]:
    """The module and those around it, innermost first, without the model itself."""
    parts = path.split(".")
    return [".".join(parts[:n]) for n in range(len(parts), 0, -1)]


def chosen_precisions(options: Options) -> dict[str, bool]:
    """Whether to quantize, by the path of a block or layer; empty for the model as a whole."""
    return {
        name.removeprefix(PREFIX): value == "int8"
        for name, value in options.items()
        if name.startswith(PREFIX)
    }


def present(precisions: Mapping[str, bool], nodes: Iterable[Any]) -> dict[str, bool]:
    """Those that the file still has: pruning may have dropped some."""
    owners = {owner for node in nodes for owner in _upwards(_module(node.name, precisions))}
    return {path: choice for path, choice in precisions.items() if path in owners}


def kept_in_float(precisions: Mapping[str, bool], nodes: Iterable[Any]) -> list[str]:
    """The names of the nodes that are not to be quantized.

    A node in a block or layer goes with it. One outside of all (a sum at a block's end, pooling
    between layers) is quantized if all blocks or layers are in the nearest module around the node
    that has any.

    Args:
        precisions: Of what the file has; empty = all of it is quantized.
        nodes: Their names are `<module path>/<operator>`.
    """
    if not precisions:
        return []
    verdicts: dict[str, bool] = {}
    kept = []
    for node in nodes:
        module = _module(node.name, precisions)
        if module not in verdicts:
            verdicts[module] = _is_quantized(module, precisions)
        if not verdicts[module]:
            kept.append(node.name)
    return kept


def _is_quantized(module: str, precisions: Mapping[str, bool]) -> bool:
    around = _upwards(module)
    for path in around:
        if path in precisions:
            return precisions[path]
    for path in around:
        inside = [choice for name, choice in precisions.items() if name.startswith(f"{path}.")]
        if inside:
            return all(inside)
    return all(precisions.values())


def _module(node: str, precisions: Mapping[str, bool]) -> str:
    path = node.partition("/")[0]
    if path == ROOT and not any(name.split(".")[0] == ROOT for name in precisions):
        return ""
    return path
