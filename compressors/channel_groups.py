"""Groups of channels that can only go together, and whether they can go at all."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .arrays import call_arguments
from .channel_slices import (
    Side,
    Slices,
    UnknownLayer,
    parts_of,
    slices_of,
    take,
    take_slices,
    width_of,
)
from .errors import is_of_the_machine
from .inspect import PRUNABLE, all_trainable, forward, output_layers, tensors_in

HEADS = ("num_heads", "n_heads", "heads")  # what code calls the number of them
CLOSE = 1e-4  # of the greatest output: what the order of a sum may change


@dataclass(frozen=True, slots=True)
class Member:
    """What of one layer belongs to a group.

    Args:
        layer: Its path in the model.
        channels: Indices of its channels on that side.
        roots: Of each of them, the group's channel that it goes with.
        bare: The slices of a parameter that stands in a module of the user's own, else None.
    """

    layer: str
    side: Side
    channels: tuple[int, ...]
    roots: tuple[int, ...]
    bare: Slices | None = None

    def slices(self, model: nn.Module) -> list[Slices]:
        layer = model.get_submodule(self.layer)
        return [self.bare] if self.bare else slices_of(layer, self.side)

    def width(self, model: nn.Module) -> int:
        """How many channels the layer has on that side, whether they are the group's or not."""
        layer = model.get_submodule(self.layer)
        if self.bare:
            return int(getattr(layer, self.bare.tensor).shape[self.bare.dim])
        return width_of(layer, self.side) or len(self.channels)


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels of layers that depend on each other: one goes with all that belongs to it.

    Args:
        name: The path of the first layer, in the model's order, whose outputs they are.
        width: How many there are.
        parts: From each of so many equal parts as many must go: heads, groups of a convolution.
    """

    name: str
    width: int
    parts: int
    members: tuple[Member, ...]

    @property
    def layers(self) -> list[str]:
        """The layers and norms that lose outputs."""
        return [m.layer for m in self.members if m.side != "in" and not m.bare]

    @property
    def local_width(self) -> int:
        """How many channels each part has."""
        return self.width // self.parts

    def everywhere(self, local: Tensor) -> Tensor:
        """The indices of some channels of a part, in all parts."""
        return torch.cat([local + part * self.local_width for part in range(self.parts)])


def channel_groups(model: nn.Module, inputs: Any) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups of a model whose channels can be removed, in the model's order.

    Those of the output layers are left out. The layers of a group are found by torch-pruning
    (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023). Each group is tried: its
    channels change places, which must change no output, and then half of them are removed.

    Args:
        inputs: What the model is called with.

    Returns:
        The groups, and for each other layer's group why it cannot be pruned.
    """
    model = copy.deepcopy(model).eval()
    outputs = output_layers(model, inputs)
    interface = {name for name, module in model.named_modules() if module in outputs}
    groups, reasons = _dependent(model, inputs)
    with torch.no_grad():
        before = list(tensors_in(forward(model, inputs)))
    found = []
    for group in groups:
        if interface.intersection(group.layers):
            continue
        refusals = []
        for way in _ways(model, group):
            reason = _why_not(model, way, inputs, before)
            if reason is None:
                found.append(way)
                break
            refusals.append(reason)
        else:
            reasons[group.name] = refusals[0]
    return found, {name: why for name, why in reasons.items() if name not in interface}


def keep_channels(
    model: nn.Module, kept: Iterable[tuple[ChannelGroup, Tensor]]
) -> dict[str, Tensor]:
    """Remove all other channels of some groups, in place.

    Args:
        kept: Groups of this very model, each with the indices of the channels that stay.

    Returns:
        Of every layer that has lost outputs, the indices of those that it still has.
    """
    removed: dict[tuple[str, Side, Slices | None], set[int]] = {}
    widths: dict[tuple[str, Side, Slices | None], int] = {}
    for group, channels in kept:
        stay = set(channels.tolist())
        for member in group.members:
            place = member.layer, member.side, member.bare
            widths[place] = member.width(model)
            gone = [c for c, r in zip(member.channels, member.roots, strict=True) if r not in stay]
            removed.setdefault(place, set()).update(gone)
    left: dict[str, Tensor] = {}
    for (name, side, bare), gone_channels in removed.items():
        width = widths[name, side, bare]
        rest = torch.tensor([c for c in range(width) if c not in gone_channels], dtype=torch.long)
        layer = model.get_submodule(name)
        if bare:
            take_slices(layer, bare, rest, width)
        else:
            take(layer, side, rest)
            if side != "in":
                left[name] = rest
    return left


def _dependent(model: nn.Module, inputs: Any) -> tuple[list[ChannelGroup], dict[str, str]]:
    """What torch-pruning says depends on each other, and where it fails."""
    import torch_pruning as tp

    groups: list[ChannelGroup] = []
    reasons: dict[str, str] = {}
    seen: set[str] = set()
    with warnings.catch_warnings(), all_trainable(model), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(
            model, inputs, forward_fn=forward, output_transform=_followed, verbose=False
        )
        for name, layer in model.named_modules():
            if not isinstance(layer, PRUNABLE) or name in seen or layer not in graph.module2node:
                continue
            remove = graph.get_pruner_of_module(layer).prune_out_channels
            try:
                width = graph.get_out_channels(layer)
                items = graph.get_pruning_group(layer, remove, list(range(width)))
                members = tuple(_members(model, graph, items))
            except Exception as error:
                if is_of_the_machine(error):
                    raise
                reasons[name] = f"{type(error).__name__}: {error}"
                continue
            parts = math.lcm(*(_parts(model, member) for member in members))
            groups.append(ChannelGroup(name, width, parts, members))
            seen.update(groups[-1].layers)
    return groups, reasons


def _followed(outputs: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(outputs) if tensor.grad_fn is not None]


def _members(model: nn.Module, graph: Any, items: Any) -> Iterable[Member]:
    names = {id(module): name for name, module in model.named_modules()}
    for item in items:
        target, handler = item.dep.target.module, item.dep.handler
        channels, roots = tuple(item.idxs), tuple(item.root_idxs)
        if isinstance(target, nn.Parameter):
            owner, _, tensor = graph._param_to_name[target].rpartition(".")
            bare = Slices(tensor, item.dep.target.pruning_dim)
            member = Member(owner, "both", channels, roots, bare)
        elif id(target) in names:
            makes, reads = (
                graph.is_out_channel_pruning_fn(handler),
                graph.is_in_channel_pruning_fn(handler),
            )
            side: Side = "both" if makes and reads else "out" if makes else "in"
            member = Member(names[id(target)], side, channels, roots)
        else:
            continue  # an operation without weights
        width = member.width(model)
        if max(channels) >= width:
            raise IndexError(
                f"torch-pruning expects channel {max(channels)} in {member.layer!r},"
                f" which has {width}"
            )
        yield member


def _parts(model: nn.Module, member: Member) -> int:
    return 1 if member.bare else parts_of(model.get_submodule(member.layer), member.side)


def _ways(model: nn.Module, group: ChannelGroup) -> Iterable[ChannelGroup]:
    """The group as it is, and in parts that code may tell apart: halves, heads of attention."""
    yield group
    owner = model.get_submodule(group.name.rpartition(".")[0])
    heads = [getattr(owner, name, 0) for name in HEADS]
    for parts in (2, *(count for count in heads if isinstance(count, int) and count > 1)):
        yield replace(group, parts=math.lcm(group.parts, parts))


def _why_not(
    model: nn.Module, group: ChannelGroup, inputs: Any, before: list[Tensor]
) -> str | None:
    """Why the channels of a group cannot be removed; None if they can."""
    if group.width % group.parts or group.local_width < 2:
        return f"{group.width} channels in {group.parts} parts leave none to remove"
    try:
        with torch.no_grad():
            shuffled = functional_call(model, _shuffled(model, group), *call_arguments(inputs))
            if not _are_close(list(tensors_in(shuffled)), before):
                return "its channels are told apart by their places"
            kept = group.everywhere(torch.arange(group.local_width // 2))
            smaller = _sharing(model)
            keep_channels(smaller, [(group, kept)])
            after = [tensor.shape for tensor in tensors_in(forward(smaller, inputs))]
    except Exception as error:
        if is_of_the_machine(error):
            raise
        return f"{type(error).__name__}: {error}"
    shapes = [tensor.shape for tensor in before]
    if after != shapes:
        return f"the outputs' shapes would change from {shapes} to {after}"
    return None


def _shuffled(model: nn.Module, group: ChannelGroup) -> dict[str, Tensor]:
    """The tensors of a group with its channels in another order, by their names in the model."""
    local = torch.randperm(group.local_width, generator=torch.Generator().manual_seed(0))
    if torch.equal(local, torch.arange(group.local_width)):
        local = local.roll(1)
    source = dict(enumerate(group.everywhere(local).tolist()))
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed: dict[str, Tensor] = {}
    for member in group.members:
        width = member.width(model)
        order = torch.tensor(_order(member, source, width))
        for slices in member.slices(model):
            name = f"{member.layer}.{slices.tensor}".lstrip(".")
            tensor = changed.get(name, state.get(name))
            if tensor is None:
                is_tied = name in dict(model.named_parameters(remove_duplicate=False))
                why = "shared with another layer" if is_tied else "computed, not stored"
                raise UnknownLayer(f"{name} is {why}")
            changed[name] = tensor.index_select(slices.dim, slices.positions(order, width))
    return changed


def _order(member: Member, source: Mapping[int, int], width: int) -> list[int]:
    """Which channel comes to stand in the place of each when the group's change places."""
    places: dict[int, list[int]] = {}
    for channel, root in sorted(zip(member.channels, member.roots, strict=True)):
        places.setdefault(root, []).append(channel)
    order = list(range(width))
    for root, own in places.items():
        others = places.get(source[root], [])
        if len(others) != len(own):
            raise ValueError(f"{member.layer!r} has not the same part in all of its channels")
        for place, channel in zip(own, others, strict=True):
            order[place] = channel
    return order


def _are_close(after: list[Tensor], before: list[Tensor]) -> bool:
    for new, old in zip(after, before, strict=True):
        limit = CLOSE * float(old.abs().max()) if old.numel() else 0.0
        if not torch.allclose(new.double(), old.double(), rtol=0.0, atol=limit, equal_nan=True):
            return False
    return True


def _sharing(model: nn.Module) -> nn.Module:
    """A copy of a model's modules with the very tensors of the model."""
    tensors = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
