"""How much each channel of a group matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .base import Refused, Task
from .channel_groups import ChannelGroup, Member
from .inspect import all_trainable, forward, sample_count

IMPORTANCES = ("l1", "l2", "row_norm", "taylor", "bn_scale", "random")
TAYLOR_SAMPLES = 512

Magnitude = Callable[[str, Tensor], Tensor]  # (name, weights) -> what each of them counts


def channel_scores(
    model: nn.Module, groups: Iterable[ChannelGroup], importance: str, task: Task
) -> list[Tensor]:
    """A score for each channel of a part, greater where it matters more, for every group.

    Scores are divided by the mean of their group, so that groups of any size can be compared, and
    averaged over the parts of a group, of which the same channels go.

    Args:
        importance: `l1`, `l2`: the sum of magnitudes or of squares of all weights that go with the
            channel. `row_norm`: the L2 norm of the channel's own weights in the layer that names
            the group. `taylor`: the sum of |weight x gradient| of what goes with the channel.
            `bn_scale`: the |scale| of its BatchNorm; `l2` in groups that have none. `random`:
            drawn from torch's global generator.

    Raises:
        Refused: `bn_scale`, and no group has a BatchNorm.
    """
    groups = list(groups)
    if importance == "bn_scale" and not any(_norms(model, group) for group in groups):
        raise Refused(
            "bn_scale ranks channels by the scale of their BatchNorm, but no channel that can be"
            " removed has one; use another importance"
        )
    magnitude = _magnitude(model, importance, task)
    return [_normal(_score(model, group, importance, magnitude), group) for group in groups]


def loss_gradients(
    model: nn.Module, task: Task, samples: int = TAYLOR_SAMPLES
) -> dict[str, Tensor]:
    """The gradient of the task's loss by every parameter, summed over calibration batches.

    Args:
        samples: Batches are taken until there are so many.

    Raises:
        Refused: The loss is not finite.
    """
    count = 0
    names = [name for name, p in model.named_parameters() if p.is_floating_point()]
    totals: dict[str, Tensor] = {}
    with all_trainable(model), torch.enable_grad():
        parameters = dict(model.named_parameters())
        for batch in task.calibration_batches():
            inputs = task.inputs(batch)
            loss = task.loss(forward(model, inputs), batch)
            if not torch.isfinite(loss):
                raise Refused(f"taylor needs a finite loss on calibration data, got {loss.item()}")
            found = torch.autograd.grad(loss, [parameters[n] for n in names], allow_unused=True)
            for name, gradient in zip(names, found, strict=True):
                if gradient is not None:
                    totals[name] = totals[name] + gradient if name in totals else gradient
            count += sample_count(inputs)
            if count >= samples:
                break
    return totals


def _magnitude(model: nn.Module, importance: str, task: Task) -> Magnitude:
    if importance == "l1":
        return lambda _, weights: weights.abs()
    if importance == "taylor":
        gradients = loss_gradients(model, task)

        def first_order(name: str, weights: Tensor) -> Tensor:
            gradient = gradients.get(name)
            return torch.zeros_like(weights) if gradient is None else (weights * gradient).abs()

        return first_order
    return lambda _, weights: weights.square()


def _score(model: nn.Module, group: ChannelGroup, importance: str, magnitude: Magnitude) -> Tensor:
    """A score for each channel of a group."""
    if importance == "random":
        return torch.rand(group.local_width).repeat(group.parts)
    members = list(group.members)
    if importance == "row_norm":
        own = next(m for m in members if m.layer == group.name and m.side != "in")
        return _sums(model, group, own, magnitude).sqrt()
    if importance == "bn_scale" and _norms(model, group):
        absolute: Magnitude = lambda _, weights: weights.abs()  # noqa: E731
        return torch.stack([_sums(model, group, m, absolute) for m in _norms(model, group)]).sum(0)
    return torch.stack([_sums(model, group, member, magnitude) for member in members]).sum(0)


def _norms(model: nn.Module, group: ChannelGroup) -> list[Member]:
    """The BatchNorms of a group that have scales."""
    found = []
    for member in group.members:
        layer = model.get_submodule(member.layer)
        if not member.bare and isinstance(layer, _BatchNorm) and layer.affine:
            found.append(member)
    return found


def _sums(model: nn.Module, group: ChannelGroup, member: Member, magnitude: Magnitude) -> Tensor:
    """What the weights of one layer count, for each channel of the group; biases do not."""
    width = member.width(model)
    layer = model.get_submodule(member.layer)
    sums = torch.zeros(width)
    for slices in [] if member.bare else member.slices(model):
        if "weight" not in slices.tensor:
            continue
        owner, _, tensor = slices.tensor.rpartition(".")
        weights = getattr(layer.get_submodule(owner), tensor).detach()
        name = f"{member.layer}.{slices.tensor}".lstrip(".")
        each = (
            magnitude(name, weights)
            .movedim(slices.dim, 0)
            .reshape(weights.shape[slices.dim], -1)
            .sum(1)
        )
        each = each.reshape(slices.blocks, -1).sum(0)
        sums += each.repeat(slices.folded) / slices.folded
    roots = torch.tensor(member.roots)
    return torch.zeros(group.width).index_add_(0, roots, sums[torch.tensor(member.channels)])


def _normal(scores: Tensor, group: ChannelGroup) -> Tensor:
    local = scores.reshape(group.parts, -1).mean(0)
    mean = local.mean()
    return local / mean if mean > 0 else local
