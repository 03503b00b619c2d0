"""Unstructured pruning: single weights that become zero, for good."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from strategies.space import Choice, Condition, Float, Knob

from .base import Context, Options, Recipe, Refused, Task
from .inspect import layers_matching, weighted_layers
from .patterns import Pattern
from .recovery import recover, recovery_knobs
from .training import seeded

PATTERNS = {"1:4": (1, 4), "2:4": (2, 4), "4:8": (4, 8)}  # of each m weights, n stay


class UnstructuredPruning:
    """Sets weights of convolutions and linear layers to zero; later training keeps them there.

    `l1_global` and `l1_layer` zero the share `sparsity` of the weights that are smallest in the
    model or in each layer (Han et al., "Learning both Weights and Connections for Efficient Neural
    Networks", 2015); `mean_threshold` those below `threshold` times the mean magnitude of their
    row, all weights that make one output; `n_m` all but the n greatest of each m neighbours in a
    row, which read neighbouring input channels (Mishra et al., "Accelerating Sparse Deep Neural
    Networks", 2021).

    ONNX Runtime computes with zeros as with other numbers: the file does not get faster, nor
    smaller before it is packed. What shrinks is `size_zstd_bytes`.
    """

    version = 1
    libraries = ("torch",)
    kind = "prune"

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        active = Condition("method", "!=", "none")
        return [
            Choice(
                name="method",
                values=("none", "l1_global", "l1_layer", "mean_threshold", "n_m"),
                neutral="none",
            ),
            Float(
                name="sparsity",
                low=0.01,
                high=0.99,
                neutral=0.01,
                default={"low": 0.3, "high": 0.9, "step": 0.1},
                direction=1,
                active_when=Condition("method", "in", ("l1_global", "l1_layer")),
            ),
            Float(
                name="threshold",
                low=0.01,
                high=10.0,
                neutral=0.01,
                default=[0.25, 0.5, 1.0],
                direction=1,
                active_when=Condition("method", "==", "mean_threshold"),
            ),
            Choice(
                name="pattern",
                values=tuple(PATTERNS),
                neutral="2:4",
                default="2:4",
                active_when=Condition("method", "==", "n_m"),
            ),
            Pattern.of_layers(model, name="ignore", active_when=active),
            *recovery_knobs(active),
        ]

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        pruned = copy.deepcopy(model).eval()
        ignored = set(layers_matching(model, options["ignore"]))
        layers = weighted_layers(pruned, ignored)
        if not layers:
            raise Refused("no layer is left to prune: `ignore` names all of them")
        weights = [layer.weight.data for layer in layers.values()]
        rows = [_rows(layer) for layer in layers.values()]
        masks = _masks([w.reshape(-1)[r] for w, r in zip(weights, rows, strict=True)], options)
        for weight, row, mask in zip(weights, rows, masks, strict=True):
            kept = torch.empty(weight.numel(), dtype=torch.bool)
            kept[row.reshape(-1)] = mask.reshape(-1)
            weight.mul_(kept.reshape(weight.shape))
        with seeded(context.seed):
            recover(model, pruned, context.task, options)
        return pruned, {}

    def replay(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        return copy.deepcopy(model)


def _rows(layer: Any) -> Tensor:
    """Where in a layer's weight, as one row of numbers, those lie that make one output.

    Returns:
        (outputs, weights of each) positions; neighbours in a row read neighbouring inputs.
    """
    weight = layer.weight
    positions = torch.arange(weight.numel()).reshape(weight.shape)
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):  # (inputs, outputs of a group, ...)
        by_group = positions.reshape(layer.groups, -1, *weight.shape[1:])
        positions = by_group.transpose(1, 2).flatten(0, 1)
    return positions.movedim(1, -1).flatten(1)


def _masks(weights: list[Tensor], options: Options) -> list[Tensor]:
    method = options["method"]
    if method == "l1_global":
        mask = keep_largest(torch.cat([w.reshape(-1) for w in weights]), options["sparsity"])
        parts = torch.split(mask, [w.numel() for w in weights])
        return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]
    if method == "l1_layer":
        return [keep_largest(w, options["sparsity"]) for w in weights]
    if method == "mean_threshold":
        return [keep_above_mean(w, options["threshold"]) for w in weights]
    return [keep_n_of_m(w, *PATTERNS[options["pattern"]]) for w in weights]


def keep_largest(weights: Tensor, sparsity: float) -> Tensor:
    """A mask, of the same shape, without the round(sparsity * n) weights of least magnitude."""
    order = weights.abs().reshape(-1).argsort(stable=True)
    mask = torch.ones(weights.numel(), dtype=torch.bool)
    mask[order[: round(sparsity * weights.numel())]] = False
    return mask.reshape(weights.shape)


def keep_above_mean(rows: Tensor, threshold: float) -> Tensor:
    """A mask of the weights that reach `threshold` times the mean magnitude of their row."""
    magnitude = rows.abs()
    return magnitude >= threshold * magnitude.mean(1, keepdim=True)


def keep_n_of_m(rows: Tensor, n: int, m: int) -> Tensor:
    """A mask of the n greatest of each m neighbours in a row; a shorter rest keeps its share."""
    rows = rows.abs()
    whole = rows.shape[1] // m * m
    blocks = rows[:, :whole].reshape(len(rows), -1, m)
    mask = torch.ones_like(rows, dtype=torch.bool)
    mask[:, :whole] = _greatest(blocks, n).reshape(len(rows), whole)
    rest = rows.shape[1] - whole
    if rest:
        mask[:, whole:] = _greatest(rows[:, whole:], -(-rest * n // m))
    return mask


def _greatest(values: Tensor, n: int) -> Tensor:
    """A mask of the n greatest along the last dimension; of equal ones, the first."""
    order = values.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(values, dtype=torch.bool)
    return mask.scatter(-1, order[..., :n], True)
