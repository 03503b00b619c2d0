"""Optimizers by arithmetic; a training that goes on from a shorter one, with equal bits."""

import copy

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf, mlp
from assets.toy_task import Toy
from torch import nn

from compressors.base import Context, Earlier, TrainingCompressor
from compressors.distillation import Distillation
from compressors.inspect import weights_digest
from compressors.training import fit, seeded

OPTIONS = {
    "epochs": 4,
    "loss": "kl",
    "temperature": 2.0,
    "alpha": 0.5,
    "optimizer": "adamw",
    "lr": 0.003,
    "weight_decay": 0.01,
    "schedule": "constant",
}


def line(start):
    """y = w * x with one weight."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    return model


def trained_line(optimizer, steps, **options):
    """The weight after each step of learning y = 0 from x = 1: the gradient is 2 w."""
    model, seen = line(1.0), []
    fit(
        model,
        lambda: [(torch.ones(1, 1),)],
        lambda outputs, batch: (outputs**2).sum(),
        inputs=lambda batch: batch[0],
        epochs=steps,
        optimizer=optimizer,
        schedule="constant",
        epoch_ended=lambda epoch: seen.append(model.weight.item()),
        **options,
    )
    return seen


def test_sgd_is_nesterovs_momentum_with_weight_decay():
    lr, decay, momentum = 0.05, 0.1, 0.9
    w, velocity, expected = 1.0, 0.0, []
    for _ in range(5):
        gradient = 2 * w + decay * w
        velocity = momentum * velocity + gradient
        w -= lr * (gradient + momentum * velocity)
        expected.append(w)
    assert trained_line("sgd", 5, lr=lr, weight_decay=decay) == pytest.approx(expected, rel=1e-5)


def test_adamw_decays_weights_apart_from_the_gradient():
    lr, decay = 0.05, 0.1
    w, mean, square, expected = 1.0, 0.0, 0.0, []
    for step in range(1, 6):
        gradient = 2 * w
        w *= 1 - lr * decay
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        w -= lr * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        expected.append(w)
    assert trained_line("adamw", 5, lr=lr, weight_decay=decay) == pytest.approx(expected, rel=1e-5)


def test_one_cycle_depends_on_the_total_and_constant_does_not():
    def first_weights(schedule, epochs):
        model, seen = mlp(), []
        with seeded(0):
            batches = [(torch.randn(8, 8), torch.randint(4, (8,)))]
        fit(
            model,
            lambda: batches,
            lambda outputs, batch: nn.functional.cross_entropy(outputs, batch[1]),
            inputs=lambda batch: batch[0],
            epochs=epochs,
            lr=0.01,
            schedule=schedule,
            seed=0,
            epoch_ended=lambda epoch: seen.append(weights_digest(model)),
        )
        return seen[:2]

    assert first_weights("constant", 2) == first_weights("constant", 5)
    assert first_weights("one_cycle", 2) != first_weights("one_cycle", 5)


class Run:
    """A distillation of a perturbed toy model, and what it told and kept."""

    def __init__(self, folder, options, earlier=None, task=None, student=None):
        self.task = task or Toy()
        self.epochs, self.kept = [], {}
        context = Context(
            self.task,
            lambda: copy.deepcopy(self.task.model()),
            7,
            folder,
            epoch_ended=lambda epoch, epochs, model: self.epochs.append(epoch),
            earlier=earlier,
            keep=self.kept.update,
        )
        student = pruned(self.task.model()) if student is None else student
        self.model, _ = Distillation().apply(student, options, context)

    def earlier(self, epochs):
        return Earlier(epochs, self.model, self.kept)


def pruned(model):
    """Half of a layer's weights are zero, and must stay so."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.conv1.weight[::2] = 0
    return model


@pytest.mark.parametrize("loss", ["kl", "mse"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("shorter", [1, 3])
def test_going_on_gives_the_bits_of_training_from_the_start(tmp_path, loss, optimizer, shorter):
    options = {**OPTIONS, "loss": loss, "optimizer": optimizer}
    whole = Run(tmp_path, options)
    begun = Run(tmp_path, {**options, "epochs": shorter})
    rest = Run(tmp_path, options, begun.earlier(shorter))
    assert whole.epochs == [1, 2, 3, 4]
    assert rest.epochs == whole.epochs[shorter:]
    assert weights_digest(rest.model) == weights_digest(whole.model)
    assert weights_digest(rest.model) != weights_digest(begun.model)
    assert {name: t.tolist() for name, t in rest.kept.items()} == {
        name: t.tolist() for name, t in whole.kept.items()
    }
    assert not rest.model.conv1.weight[::2].any()


def test_going_on_leaves_the_earlier_result_as_it_was(tmp_path):
    begun = Run(tmp_path, {**OPTIONS, "epochs": 2})
    before = weights_digest(begun.model), {k: v.tolist() for k, v in begun.kept.items()}
    Run(tmp_path, OPTIONS, begun.earlier(2))
    assert before == (weights_digest(begun.model), {k: v.tolist() for k, v in begun.kept.items()})


class Dropping(nn.Module):
    """Draws random numbers in every step, and shares a weight between two layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(nn.functional.dropout(self.first(x), 0.5, self.training))


def test_going_on_repeats_what_is_drawn_at_random(tmp_path):
    with seeded(0):
        model = Dropping()
        batches = [(torch.randn(8, 8), torch.randint(8, (8,))) for _ in range(3)]
    task = TaskOf(model, *batches)
    whole = Run(tmp_path, OPTIONS, task=task, student=model)
    begun = Run(tmp_path, {**OPTIONS, "epochs": 2}, task=task, student=model)
    rest = Run(tmp_path, OPTIONS, begun.earlier(2), task=task, student=model)
    assert weights_digest(rest.model) == weights_digest(whole.model)


def test_a_cycle_is_trained_from_the_start_and_keeps_nothing(tmp_path):
    options = {**OPTIONS, "schedule": "one_cycle"}
    whole = Run(tmp_path, options)
    begun = Run(tmp_path, {**options, "epochs": 2})
    again = Run(tmp_path, options, begun.earlier(2))
    assert again.epochs == [1, 2, 3, 4]
    assert weights_digest(again.model) == weights_digest(whole.model)
    assert not whole.kept


def test_distillation_says_that_it_trains_and_when_it_goes_on():
    distillation = Distillation()
    assert isinstance(distillation, TrainingCompressor)
    assert distillation.epochs(OPTIONS) == 4
    assert distillation.continues(OPTIONS)
    assert not distillation.continues({**OPTIONS, "schedule": "one_cycle"})
    assert not distillation.continues({"epochs": 4, "temperature": 1.0, "alpha": 0.9, "lr": 0.1})
