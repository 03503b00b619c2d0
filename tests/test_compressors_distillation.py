"""Distillation: its loss by arithmetic, and a student that comes nearer to its teacher."""

import copy

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf, TwoHeads, mlp
from assets.toy_task import Toy, ToyNet, toy_task
from torch.nn.functional import cross_entropy

from compressors.base import Context, Refused
from compressors.distillation import ADDED, Distillation, distillation_loss, output_distance
from compressors.inspect import weights_digest
from compressors.pruning import StructuredPruning
from compressors.testing_training import TrainingCompressorContract
from compressors.training import seeded
from search.testing_exports import ExportedModelContract

OLD_OPTIONS = {"epochs": 2, "temperature": 2.0, "alpha": 0.9, "lr": 0.01}
OPTIONS = {**OLD_OPTIONS, **ADDED}
MSE = {**{k: v for k, v in OPTIONS.items() if k != "temperature"}, "loss": "mse"}
PRUNING = {
    "ratio": 0.5,
    "importance": "l2",
    "scope": "uniform",
    "round_to": 1,
    "batchnorm_batches": 0,
}


class TestDistillation(ExportedModelContract, TrainingCompressorContract):
    seeded_options = [  # the task shuffles its training batches
        OPTIONS,
        {**OPTIONS, "epochs": 1, "alpha": 0.0},
        {**MSE, "epochs": 1, "optimizer": "sgd", "schedule": "constant"},
    ]

    def make(self):
        return Distillation()

    def task(self):
        return toy_task()


def logits(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=3, size=shape))


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_loss_is_the_softened_divergence_times_the_squared_temperature(temperature):
    student, teacher = logits(1, 6, 5), logits(2, 6, 5)
    p, q = (softmax(values.numpy() / temperature) for values in (teacher, student))
    expected = temperature**2 * (p * np.log(p / q)).sum(-1).mean()
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(expected)


def test_loss_is_the_mean_over_every_position_of_a_sequence():
    student, teacher = logits(1, 2, 3, 5), logits(2, 2, 3, 5)
    each = [distillation_loss(s, t, 2.0) for s, t in zip(student, teacher, strict=True)]
    whole = distillation_loss(student, teacher, 2.0)
    assert whole.item() == pytest.approx(torch.stack(each).mean().item())


def test_loss_of_an_equal_student_is_zero():
    assert distillation_loss(logits(1, 4, 5), logits(1, 4, 5), 3.0).item() == pytest.approx(0)


def test_squared_temperature_keeps_the_scale_of_the_gradients():
    # High-temperature limit of the softened gradient (Hinton et al. 2015, section 2.1):
    # (student - teacher) / classes, of logits that are centred; divided by the batch here.
    student, teacher = logits(1, 4, 5), logits(2, 4, 5)
    student, teacher = (v - v.mean(-1, keepdim=True) for v in (student, teacher))
    student.requires_grad_(True)
    distillation_loss(student, teacher, 1e4).backward()
    limit = (student.detach() - teacher) / student.numel()
    torch.testing.assert_close(student.grad, limit, rtol=1e-3, atol=0)


def test_mse_is_the_mean_squared_difference():
    student, teacher = logits(1, 6, 5), logits(2, 6, 5)
    expected = ((student.numpy() - teacher.numpy()) ** 2).mean()
    assert output_distance(student, teacher).item() == pytest.approx(expected)


def test_mse_takes_outputs_of_any_kind_in_their_order():
    sizes = [(6, 5), (6, 2, 3)]
    mine, wanted = ([logits(seed + n, *s) for n, s in enumerate(sizes)] for seed in (1, 5))
    index = torch.zeros(6, dtype=torch.long)  # what is no floating-point number does not count
    each = [((a.numpy() - b.numpy()) ** 2).mean() for a, b in zip(mine, wanted, strict=True)]
    nested = [{"logits": a, "class": index, "more": (b,)} for a, b in (mine, wanted)]
    assert output_distance(*nested).item() == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        (logits(1, 4, 5), logits(1, 4, 6)),
        ((logits(1, 4, 5), logits(2, 4, 2)), (logits(1, 4, 5),)),
        (torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)),
    ],
    ids=["shapes", "count", "whole numbers"],
)
def test_mse_of_outputs_that_do_not_match_is_refused(student, teacher):
    with pytest.raises(Refused, match=r"floating-point outputs of the original model's shapes"):
        output_distance(student, teacher)


def distilled(student, teacher, task, tmp_path, seed=0, **options):
    context = Context(task, lambda: copy.deepcopy(teacher), seed, tmp_path)
    result, _ = Distillation().apply(student, {**OPTIONS, **options}, context)
    return result


def perturbed(model):
    result = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return result


def distance(a, b, task):
    with torch.no_grad():
        squares = [((a(x) - b(x)) ** 2).mean() for x, _ in task.eval_batches()]
    return torch.stack(squares).mean().item()


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.9},
        {"alpha": 1.0},
        {"loss": "mse"},
        {"optimizer": "sgd"},
        {"schedule": "constant", "lr": 0.003},
    ],
    ids=str,
)
def test_a_perturbed_student_moves_towards_the_teacher(tmp_path, options):
    toy = toy_task()
    student = perturbed(toy.model())
    result = distilled(student, toy.model(), toy, tmp_path, epochs=8, **options)
    assert distance(result, toy.model(), toy) < 0.5 * distance(student, toy.model(), toy)


def test_the_teacher_sees_what_the_student_sees_whatever_is_drawn_for_it(tmp_path):
    class Noisy(Toy):
        def inputs(self, batch):
            return batch[0] + torch.randn_like(batch[0])

    class Watched(ToyNet):
        def forward(self, images):
            seen[self.training].append(images.clone())
            return super().forward(images)

    seen = {True: [], False: []}
    with seeded(0):
        model = Watched().eval()
    distilled(model, model, Noisy(), tmp_path, epochs=2)
    assert len(seen[True]) == len(seen[False]) == 8
    for student, teacher in zip(seen[True], seen[False], strict=True):
        assert torch.equal(student, teacher)


def test_only_the_teacher_matters_at_alpha_1(tmp_path):
    toy = toy_task()
    student = perturbed(toy.model())
    results = [
        distilled(student, toy.model(), task, tmp_path, alpha=1.0) for task in (toy, Mislabelled())
    ]
    assert distance(*results, toy) == 0


def test_only_the_labels_matter_at_alpha_0(tmp_path):
    toy = toy_task()
    student = perturbed(toy.model())
    teachers = toy.model(), perturbed(toy.model())
    results = [distilled(student, t, toy, tmp_path, alpha=0.0) for t in teachers]
    assert distance(*results, toy) == 0


def test_labels_matter_below_alpha_1(tmp_path):
    toy = toy_task()
    student = perturbed(toy.model())
    results = [
        distilled(student, toy.model(), task, tmp_path, alpha=0.5) for task in (toy, Mislabelled())
    ]
    assert distance(*results, toy) > 0


class Mislabelled(Toy):
    def loss(self, outputs, batch):
        return cross_entropy(outputs, (batch[1] + 1) % outputs.shape[-1])


def test_a_pruned_model_recovers(tmp_path):
    toy = toy_task()
    context = Context(toy, lambda: copy.deepcopy(toy.model()), 0, tmp_path)
    pruned, _ = StructuredPruning().apply(toy.model(), PRUNING, context)
    result, _ = Distillation().apply(pruned, {**OPTIONS, "epochs": 4}, context)
    assert result.conv1.weight.shape == pruned.conv1.weight.shape
    assert distance(result, toy.model(), toy) < distance(pruned, toy.model(), toy)


def test_a_model_with_two_outputs_is_refused(tmp_path):
    task = TaskOf(TwoHeads(), (torch.zeros(4, 8), torch.zeros(4, dtype=torch.long)))
    with pytest.raises(Refused, match="one output tensor of logits, got tuple"):
        distilled(task.model(), task.model(), task, tmp_path)


def test_mse_distils_a_model_with_two_outputs_without_labels(tmp_path):
    with seeded(1):
        batch = (torch.randn(64, 8), None)
    task = TaskOf(TwoHeads(), batch)
    student = perturbed(task.model())
    result = distilled(student, task.model(), task, tmp_path, loss="mse", alpha=1.0, epochs=20)
    with torch.no_grad():
        before, after = (
            output_distance(model(batch[0]), task.model()(batch[0])).item()
            for model in (student, result)
        )
    assert after < before / 2


def test_options_of_an_older_study_mean_what_they_meant(tmp_path):
    toy = toy_task()
    context = Context(toy, lambda: copy.deepcopy(toy.model()), 0, tmp_path)
    student = perturbed(toy.model())
    old, new = (Distillation().apply(student, o, context)[0] for o in (OLD_OPTIONS, OPTIONS))
    assert weights_digest(old) == weights_digest(new)


@pytest.mark.parametrize(
    "change",
    [{"loss": "mse"}, {"optimizer": "sgd"}, {"schedule": "constant"}, {"weight_decay": 0.3}],
    ids=str,
)
def test_every_option_changes_the_result(tmp_path, change):
    toy = toy_task()
    student = perturbed(toy.model())
    results = [distilled(student, toy.model(), toy, tmp_path, **o) for o in ({}, change)]
    assert weights_digest(results[0]) != weights_digest(results[1])


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path):
    task = TaskOf(mlp(), (torch.full((4, 8), torch.inf), torch.zeros(4, dtype=torch.long)))
    with pytest.raises(ValueError, match="training loss is nan in epoch 1"):
        distilled(task.model(), task.model(), task, tmp_path)


def test_a_model_that_is_frozen_throughout_is_refused(tmp_path):
    task = Toy()
    model = task.model().requires_grad_(False)
    context = Context(task, task.model, 0, tmp_path)
    with pytest.raises(Refused, match="unfreeze"):
        Distillation().apply(model, {"epochs": 1, "temperature": 1, "alpha": 1, "lr": 1}, context)
