"""Knowledge distillation: the compressed model learns from the original one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.functional import kl_div, log_softmax

from strategies.space import Condition, Float, Int, Knob

from .base import Context, Options, Recipe, Refused, Task
from .inspect import forward
from .training import fit, seeded


class Distillation:
    """Trains with (1 - alpha) * task loss + alpha * T^2 * KL(teacher_T || student_T).

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; both
    distributions are softened by the temperature T, and T^2 keeps the gradients' scale. The
    teacher is the uncompressed model, run on the same batch.
    """

    version = 1
    libraries = ("torch",)
    kind = "distil"

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        active = Condition("epochs", ">", 0)
        return [
            Int(name="epochs", low=0, high=10_000, neutral=0, default=[0, 4]),
            Float(
                name="temperature",
                low=0.1,
                high=100.0,
                neutral=1.0,
                default=2.0,
                active_when=active,
            ),
            Float(name="alpha", low=0.0, high=1.0, neutral=0.0, default=0.9, active_when=active),
            Float(name="lr", low=1e-7, high=10.0, neutral=1e-3, default=1e-3, active_when=active),
        ]

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        task, teacher = context.task, context.original().eval()
        student = copy.deepcopy(model)
        if not any(parameter.requires_grad for parameter in student.parameters()):
            raise Refused(
                "distillation needs a parameter to train, but requires_grad is False everywhere;"
                " unfreeze in model() what it may change"
            )
        alpha, temperature = float(options["alpha"]), float(options["temperature"])

        def loss(outputs: Any, batch: Any) -> torch.Tensor:
            if not isinstance(outputs, torch.Tensor):
                raise Refused(
                    "distillation needs a model with one output tensor of logits,"
                    f" got {type(outputs).__name__}"
                )
            with torch.no_grad():
                targets = forward(teacher, task.inputs(batch))
            soft = distillation_loss(outputs, targets, temperature)
            return (1 - alpha) * task.loss(outputs, batch) + alpha * soft

        with seeded(context.seed):
            fit(
                student,
                task.train_batches,
                loss,
                inputs=task.inputs,
                epochs=options["epochs"],
                lr=options["lr"],
            )
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
