"""Which slices of which tensors belong to the channels of a layer, and taking some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

# What of a layer has the channels: what it makes, what it reads, or both, which are one.
Side = Literal["out", "in", "both"]


class UnknownLayer(Exception):
    """A layer of a kind whose channels cannot be taken away."""


@dataclass(frozen=True, slots=True)
class Slices:
    """The slices of one tensor, one for each channel.

    Args:
        tensor: Its name in the layer.
        dim: The dimension along which they lie.
        blocks: So many times they repeat, block after block, such as query, key and value.
        folded: So many equal parts of the channels have one slice together, as what a grouped
            convolution reads: the nth channels of all its groups.
    """

    tensor: str
    dim: int
    blocks: int = 1
    folded: int = 1

    def positions(self, channels: Tensor, width: int) -> Tensor:
        """Where the slices of some channels lie along `dim`.

        Args:
            channels: Indices; where slices are folded, of as many channels of each part.
            width: How many channels there are.
        """
        local = channels[channels < width // self.folded]
        return torch.cat([local + block * width for block in range(self.blocks)])


def slices_of(layer: nn.Module, side: Side) -> list[Slices]:
    """The slices of a layer's own tensors.

    Raises:
        UnknownLayer: It is of a kind that is not known here.
    """
    if isinstance(layer, _ConvNd):
        return _of_convolution(layer, side)
    if isinstance(layer, nn.Linear):
        if side == "in":
            return [Slices("weight", 1)]
        return [Slices("weight", 0), *_bias(layer.bias)]
    if isinstance(layer, nn.Embedding):
        return [Slices("weight", 1)]
    if isinstance(layer, nn.MultiheadAttention):
        return _of_attention(layer)
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return []
    if isinstance(layer, (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm, nn.PReLU)):
        tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        return [Slices(name, -1) for name, tensor in tensors if tensor.ndim]
    raise UnknownLayer(f"channels of {type(layer).__name__} cannot be removed")


def width_of(layer: nn.Module, side: Side) -> int | None:
    """How many channels a layer has on a side; None if it takes any number."""
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return None
    value = getattr(layer, _width_name(layer, side))
    return int(value[-1] if isinstance(value, (tuple, list)) else value)


def parts_of(layer: nn.Module, side: Side) -> int:
    """Into how many parts its channels fall from each of which as many must go."""
    if isinstance(layer, _ConvNd):
        return 1 if side == "both" else layer.groups
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    return layer.num_heads if isinstance(layer, nn.MultiheadAttention) else 1


def take(layer: nn.Module, side: Side, channels: Tensor) -> None:
    """Leave a layer these channels, in place; its tensors are replaced, not changed."""
    width = width_of(layer, side)
    if width is None:
        return
    for slices in slices_of(layer, side):
        take_slices(layer, slices, channels, width)
    _set_width(layer, side, len(channels))


def take_slices(layer: nn.Module, slices: Slices, channels: Tensor, width: int) -> None:
    """Leave one tensor of a layer the slices of these channels."""
    path, _, name = slices.tensor.rpartition(".")
    owner = layer.get_submodule(path)
    old = owner._parameters.get(name, owner._buffers.get(name))
    if old is None:
        raise UnknownLayer(f"{type(layer).__name__}.{slices.tensor} is computed, not stored")
    new = old.detach().index_select(slices.dim, slices.positions(channels, width))
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(owner, name, new)


def _bias(bias: Tensor | None) -> list[Slices]:
    return [] if bias is None else [Slices("bias", 0)]


def _of_convolution(layer: _ConvNd, side: Side) -> list[Slices]:
    if side == "both":  # depthwise
        return [Slices("weight", 0), *_bias(layer.bias)]
    # The weights are [out, in / groups, ...], or [in, out / groups, ...] of a transposed one.
    dim = int(layer.transposed) if side == "out" else 1 - int(layer.transposed)
    weight = Slices("weight", dim, folded=layer.groups if dim else 1)
    return [weight, *(_bias(layer.bias) if side == "out" else [])]


def _of_attention(layer: nn.MultiheadAttention) -> list[Slices]:
    if layer.in_proj_weight is None or layer.bias_k is not None:
        raise UnknownLayer("attention with widths or biases of its own cannot be pruned")
    found = [Slices("in_proj_weight", 0, blocks=3), Slices("in_proj_weight", 1)]
    found += [Slices("out_proj.weight", 0), Slices("out_proj.weight", 1)]
    if layer.in_proj_bias is not None:
        found += [Slices("in_proj_bias", 0, blocks=3), Slices("out_proj.bias", 0)]
    return found


def _width_name(layer: nn.Module, side: Side) -> str:
    if isinstance(layer, _ConvNd):
        return "in_channels" if side == "in" else "out_channels"
    if isinstance(layer, nn.Linear):
        return "in_features" if side == "in" else "out_features"
    names = {
        _BatchNorm: "num_features",
        _InstanceNorm: "num_features",
        nn.GroupNorm: "num_channels",
        nn.LayerNorm: "normalized_shape",
        nn.PReLU: "num_parameters",
        nn.Embedding: "embedding_dim",
        nn.MultiheadAttention: "embed_dim",
    }
    for kind, name in names.items():
        if isinstance(layer, kind):
            return name
    raise UnknownLayer(f"channels of {type(layer).__name__} cannot be removed")


def _set_width(layer: nn.Module, side: Side, width: int) -> None:
    if isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (*layer.normalized_shape[:-1], width)
        return
    setattr(layer, _width_name(layer, side), width)
    if isinstance(layer, _ConvNd) and side == "both":
        layer.in_channels = layer.groups = width
    if isinstance(layer, nn.MultiheadAttention):
        layer.kdim = layer.vdim = width
        layer.head_dim = width // layer.num_heads
        layer.out_proj.in_features = layer.out_proj.out_features = width
