"""Depth pruning: whole residual blocks that are dropped."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from strategies.space import Condition, Int, Knob

from .base import Context, Options, Recipe, Refused, Task
from .errors import is_of_the_machine
from .inspect import PRUNABLE, all_trainable, forward, tensors_in
from .recovery import recover, recovery_knobs, stacked_inputs
from .training import seeded

SAMPLES = 128
MOST_BLOCKS = 1000  # for the docs, where there is no model
# What may lie between a block's input and its output on the way that skips the block's branch.
SKIPPING = ("AddBackward", "ReluBackward", "HardtanhBackward", "CloneBackward", "AliasBackward")


class DepthPruning:
    """Drops the `blocks` residual blocks whose absence changes the model's outputs least.

    A block can go if it adds something to its input: its input then takes the place of its output,
    and all shapes stay. By default up to half of the blocks go. They are ranked once, by the mean
    squared difference that the absence of each makes to the outputs on calibration samples (Veit
    et al., "Residual Networks Behave Like Ensembles of Relatively Shallow Networks", 2016, is why
    this works at all).
    """

    version = 1
    libraries = ("torch",)
    kind = "prune"

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        count = MOST_BLOCKS if model is None else _count(model, task)
        return [
            Int(
                name="blocks",
                low=0,
                high=count,
                neutral=0,
                default={"low": 0, "high": count // 2} if count > 1 else None,
                direction=1,
            ),
            *recovery_knobs(Condition("blocks", ">", 0)),
        ]

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        count, task = options["blocks"], context.task
        with seeded(context.seed):
            inputs = stacked_inputs(task, SAMPLES)
            blocks = least_missed(model, inputs, residual_blocks(model, inputs))
            if len(blocks) < count:
                raise Refused(f"the model has only {len(blocks)} residual blocks to drop")
            recipe = {"dropped": blocks[:count]}
            shallow = self.replay(model, recipe).eval()
            recover(model, shallow, task, options)
        return shallow, recipe

    def replay(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        result = copy.deepcopy(model)
        for name in recipe["dropped"]:
            _drop(result, name)
        return result


def _count(model: nn.Module, task: Task) -> int:
    with seeded(0):
        inputs = stacked_inputs(task, 2)
    return len(least_missed(model, inputs, residual_blocks(model, inputs)))


def residual_blocks(model: nn.Module, inputs: Any) -> list[str]:
    """The innermost modules that add something to their only input, in the order they run in.

    Args:
        inputs: What the model is called with; a model of the user's is left as it was.
    """
    model = copy.deepcopy(model).eval()
    entered: dict[str, Any] = {}  # the autograd node of a module's input, before it runs
    runs: Counter[str] = Counter()
    found: list[str] = []

    def enter(name: str, _: nn.Module, args: tuple[Any, ...]) -> None:
        runs[name] += 1
        is_single = len(args) == 1 and isinstance(args[0], Tensor)
        entered[name] = args[0].grad_fn if is_single else None

    def leave(name: str, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        start = entered[name]
        if start is None or not isinstance(output, Tensor) or output.shape != args[0].shape:
            return
        if _skips(output.grad_fn, start):
            found.append(name)

    for name, module in model.named_modules():
        has_layers = any(isinstance(part, PRUNABLE) for part in module.modules())
        if has_layers and not isinstance(module, PRUNABLE):
            module.register_forward_pre_hook(partial(enter, name))
            module.register_forward_hook(partial(leave, name))
    with all_trainable(model), torch.enable_grad():
        forward(model, inputs)
    once = [name for name in dict.fromkeys(found) if runs[name] == 1]
    return [name for name in once if not any(other.startswith(f"{name}.") for other in once)]


def _skips(end: Any, start: Any) -> bool:
    """Whether a way leads from one autograd node back to another over a sum and little else."""
    pending, seen, sums = [end], {end}, 0
    reached = False
    while pending:
        node = pending.pop()
        if node is start:
            reached = True
        elif node is not None and type(node).__name__.startswith(SKIPPING):
            sums += type(node).__name__.startswith("AddBackward")
            for parent, _ in node.next_functions:
                if parent not in seen:
                    seen.add(parent)
                    pending.append(parent)
    return reached and sums > 0


def least_missed(model: nn.Module, inputs: Any, blocks: list[str]) -> list[str]:
    """The blocks without which the model runs, the one first whose absence changes least."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        before = list(tensors_in(forward(model, inputs)))
        changes: dict[str, float] = {}
        for name in blocks:
            block = model.get_submodule(name)
            _drop(model, name)
            try:
                after = list(tensors_in(forward(model, inputs)))
                changes[name] = sum(
                    float((a - b).square().mean()) for a, b in zip(after, before, strict=True)
                )
            except Exception as error:  # such as a block that takes a mask beside its input
                if is_of_the_machine(error):
                    raise
            _put(model, name, block)
    return sorted(changes, key=lambda name: changes[name])


def _drop(model: nn.Module, name: str) -> None:
    _put(model, name, nn.Identity())


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, module)
