"""Training: seeds that leave no trace, repeatable results, and weights that are made once."""

import random

import numpy as np
import pytest
import torch
from assets.toy_models import mlp
from torch import nn
from torch.nn.functional import cross_entropy

from compressors.inspect import weights_digest
from compressors.testing import random_states
from compressors.training import fit, reestimate_batch_norm, seeded, train_once


def draw():
    """One number of each global generator."""
    return torch.rand(1).item(), np.random.random(), random.random()  # noqa: NPY002


def first(batch):
    return batch[0]


def batches_of(count, size=8):
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(size, 8, generator=generator),
            torch.randint(4, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def loss(outputs, batch):
    return cross_entropy(outputs, batch[1])


def fitted(batches=None, seed=0, epochs=2, lr=0.01):
    model = mlp()
    with seeded(seed):
        fit(model, lambda: batches or batches_of(3), loss, inputs=first, epochs=epochs, lr=lr)
    return model


def test_seeded_decides_what_every_generator_gives():
    with seeded(7):
        one = draw()
    with seeded(7):
        assert draw() == one
    with seeded(8):
        assert all(a != b for a, b in zip(draw(), one, strict=True))


def test_seeded_takes_the_large_seeds_of_stages():
    with seeded(2**60 - 1):
        one = draw()
    with seeded(2**60 - 2):
        assert draw() != one


def test_seeded_restores_every_generator():
    before = random_states()
    with seeded(7):
        draw()
        assert random_states() != before
    assert random_states() == before


def test_seeded_restores_every_generator_after_an_exception():
    def broken():
        with seeded(7):
            draw()
            raise KeyError

    before = random_states()
    with pytest.raises(KeyError):
        broken()
    assert random_states() == before


def test_fit_is_reproducible():
    assert weights_digest(fitted()) == weights_digest(fitted())


def test_fit_learns():
    model, batches = fitted(epochs=30), batches_of(3)
    with torch.no_grad():
        before, after = (sum(loss(m(b[0]), b) for b in batches) for m in (mlp(), model))
    assert after < before / 2


@pytest.mark.parametrize("steps", range(1, 8))
def test_fit_takes_any_number_of_steps(steps):
    assert weights_digest(fitted(batches_of(steps), epochs=1)) != weights_digest(mlp())


def test_fit_takes_batches_without_a_length():
    model = mlp()
    fit(model, lambda: iter(batches_of(3)), loss, inputs=first, epochs=2, lr=0.01)
    assert weights_digest(model) == weights_digest(fitted())


@pytest.mark.parametrize("training", [False, True])
def test_fit_trains_in_training_mode_and_restores_the_mode(training):
    modes = []

    def observing_loss(outputs, batch):
        modes.append(model.training)
        return loss(outputs, batch)

    model = mlp().train(training)
    fit(model, lambda: batches_of(3), observing_loss, inputs=first, epochs=1, lr=0.01)
    assert modes == [True] * 3
    assert model.training == training


def test_fit_says_in_which_epoch_the_loss_was_lost():
    calls = iter(range(100))

    def breaking_loss(outputs, batch):
        return loss(outputs, batch) * (torch.nan if next(calls) == 4 else 1)

    with pytest.raises(ValueError, match="training loss is nan in epoch 2"):
        fit(mlp(), lambda: batches_of(3), breaking_loss, inputs=first, epochs=2, lr=0.01)


@pytest.mark.parametrize("empty", [list, lambda: iter([])])
def test_fit_needs_a_batch(empty):
    with pytest.raises(ValueError, match="at least one batch, got none"):
        fit(mlp(), empty, loss, inputs=first, epochs=2, lr=0.01)


def normed(momentum=0.1):
    """Two layers of BatchNorm, in a mode of evaluation and with statistics that are stale."""
    with seeded(0):
        model = nn.Sequential(
            nn.Linear(8, 6), nn.BatchNorm1d(6, momentum=momentum), nn.ReLU(), nn.BatchNorm1d(6)
        )
    model[1].running_mean.fill_(100.0)
    return model.eval()


def test_reestimated_statistics_are_the_averages_over_batches():
    model, batches = normed(), batches_of(5)
    reestimate_batch_norm(model, batches, first, limit=4)
    with torch.no_grad():
        values = [model[0](x).numpy() for x, _ in batches[:4]]
    means = np.mean([v.mean(0) for v in values], axis=0)
    variances = np.mean([v.var(0, ddof=1) for v in values], axis=0)
    np.testing.assert_allclose(model[1].running_mean, means, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model[1].running_var, variances, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_reestimating_changes_nothing_but_the_statistics(training):
    model = normed(momentum=0.3).train(training)
    parameters = {name: p.clone() for name, p in model.named_parameters()}
    reestimate_batch_norm(model, batches_of(3), first, limit=10)
    assert [model[1].momentum, model[3].momentum] == [0.3, 0.1]
    assert {module.training for module in model.modules()} == {training}
    assert all(torch.equal(p, parameters[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())


def test_dropout_stays_off_while_reestimating():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(8))
    batches = batches_of(2)
    reestimate_batch_norm(model, batches, first, limit=2)
    means = np.mean([x.numpy().mean(0) for x, _ in batches], axis=0)
    np.testing.assert_allclose(model[1].running_mean, means, rtol=1e-5, atol=1e-6)


def test_reestimating_takes_no_more_batches_than_the_limit():
    taken = iter(batches_of(5))
    reestimate_batch_norm(normed(), taken, first, limit=3)
    assert len(list(taken)) == 2


def test_reestimating_needs_a_batch():
    with pytest.raises(ValueError, match="at least one batch, got none"):
        reestimate_batch_norm(normed(), [], first, limit=3)


def test_a_model_without_batch_norm_needs_no_batches():
    reestimate_batch_norm(mlp(), [], first, limit=3)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NASLITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Trainer:
    """Changes the weights at random, and counts how often it is asked to."""

    def __init__(self):
        self.calls = 0

    def __call__(self, model):
        self.calls += 1
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape)


def test_train_once_trains_once_and_loads_afterwards(cache, caplog):
    caplog.set_level("INFO")
    train = Trainer()
    models = [train_once(mlp(), train, content=["v1"]) for _ in range(2)]
    assert train.calls == 1
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "training the model, once"
    ]
    assert weights_digest(models[0]) == weights_digest(models[1]) != weights_digest(mlp())
    assert not any(model.training for model in models)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]


def test_damaged_weights_are_trained_again(cache, caplog):
    train = Trainer()
    first = train_once(mlp(), train, content=["v1"])
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    again = train_once(mlp(), train, content=["v1"])
    assert weights_digest(again) == weights_digest(first)
    assert "is damaged" in caplog.text
    train_once(mlp(), train, content=["v1"])
    assert train.calls == 2


def test_train_once_keeps_running_statistics(cache):
    def train(model):
        reestimate_batch_norm(model, batches_of(2), first, limit=2)

    models = [train_once(normed(), train, content=[]) for _ in range(2)]
    assert weights_digest(models[0]) == weights_digest(models[1]) != weights_digest(normed())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight


def test_train_once_takes_tied_weights(cache):
    train = Trainer()
    for _ in range(2):
        with seeded(0):
            model = Tied()
        model = train_once(model, train, content=["v1"])
        assert model.decoder.weight is model.encoder.weight
    assert train.calls == 1


def perturbed_mlp():
    model = mlp()
    model[0].bias.data += 1
    return model


@pytest.mark.parametrize(
    "change",
    [
        {"content": ["v2", np.arange(3)]},
        {"content": ["v1", np.arange(4)]},
        {"content": ["v1"]},
        {"seed": 1},
        {"model": perturbed_mlp},
    ],
    ids=["text", "array", "fewer", "seed", "weights"],
)
def test_train_once_trains_again_when_something_changes(cache, change):
    train = Trainer()
    train_once(mlp(), train, content=["v1", np.arange(3)])
    changed = {"model": mlp, "content": ["v1", np.arange(3)], **change}
    train_once(changed.pop("model")(), train, **changed)
    assert train.calls == 2


def test_train_once_seeds_the_training_and_leaves_no_trace(cache):
    before = random_states()
    first_model = train_once(mlp(), Trainer(), content=["v1"])
    assert random_states() == before
    draw()
    second_model = train_once(mlp(), Trainer(), content=["v2"])
    assert weights_digest(first_model) == weights_digest(second_model)


def test_train_once_keeps_nothing_of_a_training_that_failed(cache):
    def broken(model):
        raise KeyError

    with pytest.raises(KeyError):
        train_once(mlp(), broken, content=["v1"])
    train = Trainer()
    train_once(mlp(), train, content=["v1"])
    assert train.calls == 1
