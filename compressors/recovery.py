"""Local recovery after pruning: BatchNorm statistics and biases, without labels or gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from strategies.space import Choice, Condition, Int, Knob

from .base import Options, Task
from .inspect import PRUNABLE, forward, sample_count
from .training import reestimate_batch_norm

CORRECTED = (*PRUNABLE, nn.modules.batchnorm._BatchNorm)
CALIBRATION_SAMPLES = 512

Kept = Mapping[str, Tensor]  # module name -> indices of the output channels that it still has


def recovery_knobs(active: Condition) -> list[Knob]:
    """The knobs of a compressor that calls `recover` on what it has made."""
    return [
        Int(
            name="batchnorm_batches",
            low=0,
            high=10_000,
            neutral=0,
            default=50,
            active_when=active,
        ),
        Choice(
            name="bias_correction",
            values=(False, True),
            neutral=False,
            default=False,
            active_when=active,
        ),
    ]


def recover(
    before: nn.Module, after: nn.Module, task: Task, options: Options, kept: Kept | None = None
) -> None:
    """Apply the recovery that a compressor's options ask for, in place.

    Args:
        before: The model before the compressor.
        after: The compressed one.
        kept: Of the layers that have lost output channels, those that they still have.
    """
    if options["batchnorm_batches"]:
        limit = options["batchnorm_batches"]
        reestimate_batch_norm(after, task.train_batches(), task.inputs, limit=limit)
    if options["bias_correction"]:
        inputs = stacked_inputs(task, CALIBRATION_SAMPLES)
        correct_biases(after, output_means(before, inputs), inputs, kept or {})


def output_means(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """The mean of each output channel of each layer with a bias that runs exactly once."""
    means: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def note(name: str, module: nn.Module, output: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        means[name] = channel_means(module, output)

    model = copy.deepcopy(model).eval()
    with _observed(model, note), torch.no_grad():
        forward(model, inputs)
    return {name: mean for name, mean in means.items() if calls[name] == 1}


def correct_biases(model: nn.Module, means: Mapping[str, Tensor], inputs: Any, kept: Kept) -> None:
    """Shift biases, in place and layer after layer, until each mean output is what it was.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", ICCV 2019, section 4.2, with means that are measured.

    Args:
        means: What `output_means` gave for the model before.
        inputs: The same inputs.
    """

    def correct(name: str, module: Any, output: Tensor) -> Tensor | None:
        if name not in means:
            return None
        wanted = means[name][kept[name]] if name in kept else means[name]
        error = wanted - channel_means(module, output)
        module.bias.data += error
        return output + _along_channels(module, error, output.ndim)

    with _observed(model, correct), torch.no_grad():
        forward(model.eval(), inputs)


def channel_means(module: nn.Module, output: Tensor) -> Tensor:
    """The mean over all but the channels, which a linear layer has last and others second."""
    if isinstance(module, nn.Linear):
        return output.reshape(-1, output.shape[-1]).mean(0)
    return output.transpose(0, 1).reshape(output.shape[1], -1).mean(1)


def stacked_inputs(task: Task, samples: int) -> Any:
    """The model's inputs for the first calibration batches, as one batch of at most `samples`.

    Batches with other shapes than the first are left out.
    """
    stacked: list[Any] = []
    count = 0
    for batch in task.calibration_batches():
        inputs = task.inputs(batch)
        if stacked and _sample_shapes(inputs) != _sample_shapes(stacked[0]):
            continue
        stacked.append(inputs)
        count += sample_count(inputs)
        if count >= samples:
            break
    if not stacked:
        raise ValueError("calibration_batches() must give at least one batch, got none")
    return _stack(stacked, samples)


def _stack(parts: list[Any], samples: int) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)[:samples] if first.ndim else first
    if isinstance(first, dict):
        return {name: _stack([part[name] for part in parts], samples) for name in first}
    return tuple(_stack(list(column), samples) for column in zip(*parts, strict=True))


def _tensors(inputs: Any) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    return list(inputs.values()) if isinstance(inputs, dict) else list(inputs)


def _sample_shapes(inputs: Any) -> list[Any]:
    return [tensor.shape[1:] for tensor in _tensors(inputs)]


def _along_channels(module: nn.Module, values: Tensor, ndim: int) -> Tensor:
    if isinstance(module, nn.Linear):
        return values
    return values.reshape(-1, *[1] * (ndim - 2))


@contextmanager
def _observed(model: nn.Module, note: Callable[[str, nn.Module, Tensor], Any]) -> Iterator[None]:
    """Inside, every run of a layer with a bias is told, and its output may be replaced."""
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, CORRECTED) and module.bias is not None:
            hooks.append(module.register_forward_hook(partial(_tell, note, name)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _tell(
    note: Callable[[str, nn.Module, Tensor], Any],
    name: str,
    module: nn.Module,
    _: Any,
    output: Tensor,
) -> Any:
    return note(name, module, output)
