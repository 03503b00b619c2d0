"""Structured pruning: channels that are physically removed, by torch-pruning."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import nn

from strategies.space import Choice, Condition, Float, Int, Knob

from .base import Context, Options, Recipe, Refused, Task
from .errors import is_of_the_machine
from .inspect import all_trainable, forward, output_layers, tensors_in
from .structure import structure_difference, with_structure
from .training import reestimate_batch_norm, seeded

MIN_KEPT = 0.05  # of each layer's channels: a ranking must never empty a whole layer


class StructuredPruning:
    """Removes channels and every weight that depends on them; the output layers keep their width.

    Source: Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023; importance of a
    channel by the L1 or L2 norm of its weights (Li et al. 2017) or at random. After pruning the
    running statistics of BatchNorm are estimated anew on training batches.
    """

    version = 1
    libraries = ("torch", "torch-pruning")

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        active = Condition("ratio", ">", 0)
        return [
            Float(
                name="ratio",
                low=0.0,
                high=0.95,
                neutral=0.0,
                default={"low": 0.0, "high": 0.8, "step": 0.1},
                direction=1,
            ),
            Choice(
                name="importance",
                values=("l1", "l2", "random"),
                neutral="l2",
                default="l2",
                active_when=active,
            ),
            Choice(
                name="scope",
                values=("global", "uniform"),
                neutral="uniform",
                default="uniform",
                active_when=active,
            ),
            Int(name="round_to", low=1, high=64, neutral=1, default=1, active_when=active),
            Int(
                name="batchnorm_batches",
                low=0,
                high=10_000,
                neutral=0,
                default=50,
                active_when=active,
            ),
        ]

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        pruned = copy.deepcopy(model).eval()
        task = context.task
        with seeded(context.seed):
            inputs = task.inputs(next(iter(task.calibration_batches())))
            try:
                _prune(pruned, inputs, options)
            except Exception as error:
                if is_of_the_machine(error):
                    raise
                raise Refused(
                    f"torch-pruning cannot prune this model at ratio {options['ratio']}"
                    f" ({type(error).__name__}: {error})"
                ) from error
            limit = options["batchnorm_batches"]
            if limit:
                reestimate_batch_norm(pruned, task.train_batches(), task.inputs, limit=limit)
        return pruned, structure_difference(model, pruned)

    def replay(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        return with_structure(model, recipe)


def _prune(model: nn.Module, inputs: Any, options: Options) -> None:
    import torch_pruning as tp

    class Pruner(tp.pruner.BasePruner):  # type: ignore[misc]
        def _round_to(self, n_pruned: int, current_channels: int, round_to: int) -> int:
            """How many channels to remove from a layer so that a round number stays.

            torch-pruning's own version rounds down, and a layer that would keep nothing is then
            silently not pruned at all: 95 % removed a third less than 50 %.
            """
            groups: int = self._groups  # GroupNorm, grouped convolution: as many from each group
            width, round_to = current_channels // groups, round_to // math.gcd(round_to, groups)
            return width - kept_channels(width - n_pruned, width, round_to)

        def _is_atten_group(self, group: Any) -> Any:
            """Asked about every set of dependent layers before `_round_to`, which is not told."""
            self._groups = self._get_channel_groups(group)
            return super()._is_atten_group(group)

    importances = {
        "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "random": tp.importance.RandomImportance,
    }
    with torch.no_grad():
        before = [t.shape for t in tensors_in(forward(model, inputs))]
    with warnings.catch_warnings(), all_trainable(model):  # it follows autograd's graph
        warnings.simplefilter("ignore")  # torch-pruning warns of every parameter it leaves alone
        pruner = Pruner(
            model,
            list(inputs) if isinstance(inputs, tuple) else inputs,
            importance=importances[options["importance"]](),
            global_pruning=options["scope"] == "global",
            pruning_ratio=options["ratio"],
            ignored_layers=output_layers(model, inputs),
            round_to=options["round_to"],
            in_channel_groups={},  # the defaults are shared dicts that keep every model alive
            out_channel_groups={},
            num_heads={},
        )
        pruner.step()
    with torch.no_grad():
        after = [t.shape for t in tensors_in(forward(model, inputs))]
    if before != after:
        raise ValueError(f"the outputs' shapes would change from {before} to {after}")


def kept_channels(wanted: int, current: int, round_to: int) -> int:
    """The multiple of `round_to` nearest to `wanted`: at least MIN_KEPT and one multiple, at most
    `current`."""
    least = max(1, math.ceil(MIN_KEPT * current / round_to))
    return min(current, round_to * max(least, round(wanted / round_to)))
