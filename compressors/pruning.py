"""Structured pruning: channels that are physically removed."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from strategies.space import Choice, Condition, Float, Int, Knob

from .base import Context, Options, Recipe, Refused, Task
from .channel_groups import ChannelGroup, channel_groups, keep_channels
from .errors import is_of_the_machine
from .importance import IMPORTANCES, channel_scores
from .inspect import forward, layers_matching, tensors_in
from .patterns import Pattern
from .recovery import recover, recovery_knobs, stacked_inputs
from .structure import structure_difference, with_structure
from .training import reestimate_batch_norm, seeded

MIN_KEPT = 0.05  # of each layer's channels: a ranking must never empty a whole layer
MOST_STEPS = 100
ADDED = {"steps": 1, "ignore": "", "bias_correction": False}  # what an older study means
PROBE_SAMPLES = 2  # by which it is tried which channels can be removed


class StructuredPruning:
    """Removes channels and every weight that depends on them; the output layers keep their width.

    Layers that depend on each other form a group, named by its first layer (torch-pruning's
    DepGraph, CVPR 2023). Groups whose channels cannot be removed, such as the residual stream of
    a network with padded shortcuts, are left alone; a model without any other is refused.

    With the scope `uniform` each group loses the share `ratio` of its channels, with `global` the
    model does, those that matter least; with `group` each has a knob of its own,
    `ratio@<first layer>`, and loses that share of its channels, but no more than `ratio`.
    `importance` and `steps`: see docs/compressors.md.
    """

    version = 3
    libraries = ("torch", "torch-pruning")
    kind = "prune"

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        active = Condition("ratio", ">", 0)
        return [
            _ratio("ratio"),
            Choice(
                name="importance",
                values=IMPORTANCES,
                neutral="l2",
                default="l2",
                active_when=active,
            ),
            Choice(
                name="scope",
                values=("global", "uniform", "group"),
                neutral="uniform",
                default="uniform",
                active_when=active,
            ),
            *(
                _ratio(f"ratio@{name}", Condition("scope", "==", "group"))
                for name in ([] if model is None else _group_names(model, task))
            ),
            Int(name="round_to", low=1, high=64, neutral=1, default=1, active_when=active),
            Int(name="steps", low=1, high=MOST_STEPS, neutral=1, default=1, active_when=active),
            Pattern.of_layers(model, name="ignore", active_when=active),
            *recovery_knobs(active),
        ]

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        options = {**ADDED, **options}
        pruned = copy.deepcopy(model).eval()
        task = context.task
        with seeded(context.seed):
            inputs = stacked_inputs(task, PROBE_SAMPLES)
            before = _shapes(pruned, inputs)
            kept = _prune(pruned, inputs, options, task)
            after = _shapes(pruned, inputs)
            if before != after:
                raise Refused(f"the outputs' shapes would change from {before} to {after}")
            if kept:
                recover(model, pruned, task, options, kept)
        return pruned, structure_difference(model, pruned)

    def replay(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        return with_structure(model, recipe)


def kept_channels(wanted: float, current: int, round_to: int) -> int:
    """The multiple of `round_to` nearest to `wanted`, of two as near the greater: at least
    MIN_KEPT and one multiple, at most `current`."""
    least = max(1, math.ceil(MIN_KEPT * current / round_to))
    nearest = math.floor(round(wanted / round_to, 9) + 0.5)  # 55.99... of 0.7 * 80 is 56
    return min(current, round_to * max(least, nearest))


def _ratio(name: str, active: Condition | None = None) -> Knob:
    return Float(
        name=name,
        low=0.0,
        high=0.95,
        neutral=0.0,
        default={"low": 0.0, "high": 0.8, "step": 0.1},
        direction=1,
        active_when=active,
    )


def _group_names(model: nn.Module, task: Task) -> list[str]:
    """The groups of a model that have a knob each; none where it cannot be pruned at all."""
    with seeded(0):
        inputs = stacked_inputs(task, PROBE_SAMPLES)
        try:
            groups, _ = channel_groups(model, inputs)
        except Exception as error:
            if is_of_the_machine(error):
                raise
            return []  # a candidate that prunes is refused with the reason
    return [group.name for group in groups]


def _prune(model: nn.Module, inputs: Any, options: Options, task: Task) -> dict[str, Tensor]:
    """Prune in place; of every layer that lost outputs, those of the first that it still has."""
    steps = options["steps"]
    ignored = set(layers_matching(model, options["ignore"]))
    first: dict[str, int] = {}  # how many channels each part of a group had
    kept: dict[str, Tensor] = {}
    for step in range(1, steps + 1):
        groups = _prunable(model, inputs, ignored, is_first=step == 1)
        if not groups:  # the steps before have left nothing that can go
            break
        for group in groups:
            first.setdefault(group.name, group.local_width)
        scores = channel_scores(model, groups, options["importance"], task)
        wanted = _wanted(groups, scores, first, options, step / steps)
        chosen = [
            (group, group.everywhere(_greatest(score, count)))
            for group, score, count in zip(groups, scores, wanted, strict=True)
            if count < group.local_width
        ]
        for name, left in keep_channels(model, chosen).items():
            kept[name] = kept[name][left] if name in kept else left
        if step < steps and options["importance"] == "taylor" and options["batchnorm_batches"]:
            limit = options["batchnorm_batches"]  # gradients depend on the statistics
            reestimate_batch_norm(model, task.train_batches(), task.inputs, limit=limit)
    return kept


def _prunable(
    model: nn.Module, inputs: Any, ignored: set[str], *, is_first: bool
) -> list[ChannelGroup]:
    """The groups to prune.

    Raises:
        Refused: There are none in the whole model.
    """
    try:
        groups, reasons = channel_groups(model, inputs)
    except Exception as error:
        if is_of_the_machine(error):
            raise
        raise Refused(
            f"torch-pruning cannot follow this model ({type(error).__name__}: {error})"
        ) from error
    if is_first and not groups:
        name, reason = next(iter(reasons.items()), ("", ""))
        detail = f", such as those of {name!r} ({reason})" if reasons else ""
        raise Refused(f"no layer's channels can be removed{detail}")
    left = [group for group in groups if not ignored.intersection(group.layers)]
    if is_first and not left:
        raise Refused("no layer is left to prune: `ignore` names one of every group")
    return left


def _wanted(
    groups: Sequence[ChannelGroup],
    scores: Sequence[Tensor],
    first: Mapping[str, int],
    options: Options,
    progress: float,
) -> list[int]:
    """How many channels are to stay in each part of each group.

    Args:
        first: How many there were before the first step.
        progress: Which share of the way this step goes, 1 for the last.
    """
    ratio = options["ratio"]
    if options["scope"] == "global":
        aims = _global_aims(groups, scores, first, ratio * progress)
    else:
        ratios = [ratio for _ in groups]
        if options["scope"] == "group":
            ratios = [min(ratio, options.get(f"ratio@{g.name}", 0.0)) for g in groups]
        aims = [first[g.name] * (1 - r * progress) for g, r in zip(groups, ratios, strict=True)]
    counts = []
    for group, aim in zip(groups, aims, strict=True):
        if aim >= group.local_width:
            counts.append(group.local_width)
            continue
        round_to = options["round_to"]
        step = round_to // math.gcd(round_to, group.parts)
        counts.append(min(group.local_width, kept_channels(aim, first[group.name], step)))
    return counts


def _global_aims(
    groups: Sequence[ChannelGroup],
    scores: Sequence[Tensor],
    first: Mapping[str, int],
    ratio: float,
) -> list[float]:
    """Of all groups together the channels go that have the least scores."""
    everything = torch.cat(list(scores))
    to_stay = round(sum(first[group.name] for group in groups) * (1 - ratio))
    stays = torch.ones(len(everything), dtype=torch.bool)
    stays[everything.argsort(stable=True)[: max(0, len(everything) - to_stay)]] = False
    parts = torch.split(stays, [len(score) for score in scores])
    return [float(part.sum()) for part in parts]


def _greatest(scores: Tensor, count: int) -> Tensor:
    """The indices of the greatest, in order; of equal ones, the last."""
    return scores.argsort(stable=True)[len(scores) - count :].sort().values


def _shapes(model: nn.Module, inputs: Any) -> list[torch.Size]:
    with torch.no_grad():
        return [tensor.shape for tensor in tensors_in(forward(model, inputs))]
