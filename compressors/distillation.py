"""Knowledge distillation: the compressed model learns from the original one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import kl_div, log_softmax, mse_loss

from strategies.space import Choice, Condition, Float, Int, Knob

from .base import Context, Options, Recipe, Refused, Task
from .inspect import forward, tensors_in
from .training import OPTIMIZERS, SCHEDULES, fit, seeded

LOSSES = ("kl", "mse")
# Knobs that came later, with what was done before there were any. A stage's key leaves them out
# where they are so, and a candidate of an older study has none of them.
ADDED: dict[str, Any] = {
    "loss": "kl",
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "schedule": "one_cycle",
}


class Distillation:
    """Trains with (1 - alpha) * task loss + alpha * distance to the original model's outputs.

    `kl`: T^2 * KL(teacher_T || student_T) of logits softened by the temperature T, whose square
    keeps the gradients' scale (Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural
    Network", 2015). `mse`: the mean squared difference of outputs of any kind (of logits, that is
    Ba and Caruana, "Do Deep Nets Really Need to be Deep?", 2014). The teacher is the uncompressed
    model, run on the same batch.
    """

    version = 1
    libraries = ("torch",)
    kind = "distil"
    added = ADDED

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        active = Condition("epochs", ">", 0)
        return [
            Int(name="epochs", low=0, high=10_000, neutral=0, default=[0, 4]),
            _choice("loss", LOSSES, active),
            Float(
                name="temperature",
                low=0.1,
                high=100.0,
                neutral=1.0,
                default=2.0,
                active_when=Condition("loss", "==", "kl"),
            ),
            Float(name="alpha", low=0.0, high=1.0, neutral=0.0, default=0.9, active_when=active),
            _choice("optimizer", OPTIMIZERS, active),
            Float(name="lr", low=1e-7, high=10.0, neutral=1e-3, default=1e-3, active_when=active),
            Float(
                name="weight_decay",
                low=0.0,
                high=1.0,
                neutral=ADDED["weight_decay"],
                default=ADDED["weight_decay"],
                active_when=active,
            ),
            _choice("schedule", SCHEDULES, active),
        ]

    def epochs(self, options: Options) -> int:
        return int(options["epochs"])

    def continues(self, options: Options) -> bool:
        return bool({**ADDED, **options}["schedule"] == "constant")

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        options = {**ADDED, **options}
        task, device = context.task, context.device
        teacher = context.original().eval().to(device)
        student = copy.deepcopy(model)
        if not any(parameter.requires_grad for parameter in student.parameters()):
            raise Refused(
                "distillation needs a parameter to train, but requires_grad is False everywhere;"
                " unfreeze in model() what it may change"
            )
        alpha = float(options["alpha"])
        distance = (
            output_distance if options["loss"] == "mse" else _softened(options["temperature"])
        )

        seen: list[Any] = []  # by the student, augmentation in `inputs` included

        def inputs(batch: Any) -> Any:
            seen[:] = [task.inputs(batch)]
            return seen[0]

        def loss(outputs: Any, batch: Any) -> torch.Tensor:
            with torch.no_grad():
                targets = forward(teacher, seen[0])
            far = distance(outputs, targets)
            if alpha == 1:  # then a task needs no labels
                return far
            return (1 - alpha) * task.loss(outputs, batch) + alpha * far

        def epoch_ended(epoch: int) -> None:
            context.epoch_ended(epoch, options["epochs"], student)

        is_continued = self.continues(options)
        with seeded(context.seed):
            state = fit(
                student,
                task.train_batches,
                loss,
                inputs=inputs,
                epochs=options["epochs"],
                lr=options["lr"],
                weight_decay=options["weight_decay"],
                optimizer=options["optimizer"],
                schedule=options["schedule"],
                device=device,
                amp=context.amp,
                seed=context.seed if is_continued else None,
                earlier=context.earlier if is_continued else None,
                epoch_ended=epoch_ended,
            )
        if is_continued:
            context.keep(state)
        return student.eval(), {}

    def replay(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        return copy.deepcopy(model)


def distillation_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), the mean over all but the classes.

    Args:
        student: Logits, classes along the last dimension.
        teacher: Logits of the same shape.
    """
    classes = student.shape[-1]
    divergence: torch.Tensor = kl_div(
        log_softmax(student / temperature, dim=-1).reshape(-1, classes),
        log_softmax(teacher / temperature, dim=-1).reshape(-1, classes),
        log_target=True,
        reduction="batchmean",
    )
    return divergence * temperature**2


def output_distance(student: Any, teacher: Any) -> torch.Tensor:
    """The mean squared difference of each output tensor, averaged over the tensors.

    Args:
        student: A tensor, or tensors in tuples, lists and dicts; those that are not floating-point
            numbers, such as the index of a class, do not count.
        teacher: Tensors of the same shapes in the same order.

    Raises:
        Refused: They do not match, or there is none to compare.
    """
    mine, wanted = _floating(student), _floating(teacher)
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (mine, wanted)]
    if not mine or shapes[0] != shapes[1]:
        raise Refused(
            "`loss: mse` needs floating-point outputs of the original model's shapes"
            f" {shapes[1]}, got {shapes[0]}"
        )
    squares = [mse_loss(a, b) for a, b in zip(mine, wanted, strict=True)]
    return torch.stack(squares).mean()


def _choice(name: str, values: tuple[str, ...], active: Condition) -> Choice:
    before = ADDED[name]
    return Choice(name=name, values=values, neutral=before, default=before, active_when=active)


def _softened(temperature: float) -> Callable[[Any, Any], torch.Tensor]:
    def distance(outputs: Any, targets: Any) -> torch.Tensor:
        if not isinstance(outputs, torch.Tensor):
            raise Refused(
                "distillation needs a model with one output tensor of logits,"
                f" got {type(outputs).__name__}; `loss: mse` takes outputs of any kind"
            )
        return distillation_loss(outputs, targets, float(temperature))

    return distance


def _floating(outputs: Any) -> list[torch.Tensor]:
    return [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point()]
