"""The synthetic problem: its formula, and its reference fronts against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from benchmarks import reference_fronts
from benchmarks.catalogue import load_problem
from benchmarks.contestants import Contestant
from benchmarks.problem import hypervolume_of, true_front
from benchmarks.race import race
from benchmarks.synthetic import Layers, error_of, synthetic_problem

SMALL = {"layers": 6, "levels": 3}


def brute_force(instance: Layers) -> np.ndarray:
    """The front of error and size over all candidates."""
    layers, levels = instance.damage.shape
    every = np.array(list(itertools.product(range(levels), repeat=layers)))
    values = np.stack([error_of(instance.damages(every)), instance.sizes(every)], axis=1)
    return true_front(values)


@pytest.mark.parametrize("seed", range(4))
def test_dynamic_programming_finds_the_front_of_brute_force(seed):
    instance = Layers.drawn(6, 3, 0.0, seed)
    damages, sizes = reference_fronts.additive_front(instance.weights, instance.damage)
    found = np.stack([error_of(damages), sizes], axis=1)
    assert found[::-1] == pytest.approx(brute_force(instance))


@pytest.mark.parametrize("strength", [0.6, 1.2])
@pytest.mark.parametrize("seed", range(4))
def test_the_local_search_finds_the_front_of_brute_force(tmp_path, strength, seed):
    instance = Layers.drawn(6, 3, strength, seed)
    parts = (instance.weights, instance.damage, instance.coupling)
    damages, sizes = reference_fronts.interacting_front(*parts, tmp_path / "front.npz")
    found = np.stack([error_of(damages), sizes], axis=1)
    assert found[::-1] == pytest.approx(brute_force(instance))


def test_the_formula(tmp_path):
    problem = synthetic_problem(cache=tmp_path, interaction=1.2, seed=3, **SMALL)
    drawn = Layers.drawn(6, 3, 1.2, 3)
    candidate = dict(zip((k.name for k in problem.space), (0, 1, 2, 0, 2, 1), strict=True))
    levels = list(candidate.values())
    single = [drawn.damage[layer, level] for layer, level in enumerate(levels)]
    total = sum(single)
    for a in range(6):
        for b in range(6):
            total += drawn.coupling[a, b] * math.sqrt(single[a] * single[b])
    size = sum(int(w) * (3 - level) for w, level in zip(drawn.weights, levels, strict=True))
    err = 5 + 85 * (1 - math.exp(-total))
    assert problem.exact(candidate).values == (pytest.approx(err), size)
    assert problem.exact(problem.space.baseline()).values == (5, 3 * drawn.weights.sum())
    assert problem.reference == (50, pytest.approx(1.02 * 3 * drawn.weights.sum()))


def test_instances_are_as_documented():
    drawn = Layers.drawn(50, 5, 1.25, 0)
    assert drawn.damage[:, 0] == pytest.approx(0)
    assert drawn.damage[:, 4].sum() == pytest.approx(3)
    assert drawn.damage[:, 2] == pytest.approx(drawn.damage[:, 4] / 4)  # convex
    assert (drawn.weights >= 1).all()
    assert (drawn.coupling == drawn.coupling.T).all()
    assert np.abs(np.linalg.eigvalsh(drawn.coupling)).max() == pytest.approx(1.0)
    assert (Layers.drawn(50, 5, 0.0, 0).coupling == 0).all()
    every = np.random.default_rng(0).integers(0, 5, (1000, 50))
    assert (drawn.damages(every) >= 0).all()


def test_compression_makes_a_network_smaller_and_worse():
    drawn = Layers.drawn(20, 5, 0.0, 0)
    chosen = np.random.default_rng(0).integers(0, 4, (200, 20))
    more = chosen.copy()
    more[np.arange(200), np.arange(200) % 20] += 1
    assert (drawn.sizes(more) < drawn.sizes(chosen)).all()
    assert (drawn.damages(more) > drawn.damages(chosen)).all()


def test_a_reference_front_is_kept_and_made_anew_for_another_instance(tmp_path, monkeypatch):
    first = synthetic_problem(cache=tmp_path, interaction=0.6, **SMALL)
    (kept,) = tmp_path.glob("*.npz")
    monkeypatch.setattr(reference_fronts, "_LocalSearch", None)  # a second search would fail
    assert synthetic_problem(cache=tmp_path, interaction=0.6, **SMALL).hypervolume == (
        first.hypervolume
    )
    instance = Layers.drawn(6, 3, 0.6, 9)
    parts = (instance.weights, instance.damage, instance.coupling)
    with pytest.raises(TypeError):
        reference_fronts.interacting_front(*parts, kept)


def test_the_additive_optimum_lies_on_the_way_to_the_true_one(tmp_path):
    additive = synthetic_problem(cache=tmp_path, **SMALL)
    instance = Layers.drawn(6, 3, 0.0, 0)
    values = brute_force(instance)
    assert additive.hypervolume == pytest.approx(hypervolume_of(values, additive.reference))


def test_a_strategy_reaches_the_whole_front(tmp_path):
    text = "{name: synthetic, layers: 5, levels: 3, interaction: 0.6}"
    problem = load_problem(text, None, tmp_path)
    player = Contestant.parse("random").player(problem, budget=243, seed=0)
    run = race(problem, player, 243, 0)
    assert run.final == pytest.approx(1.0)
    assert run.evaluations_to(1.0) is not None


@pytest.mark.parametrize("interaction", [-0.1, 1.3])
def test_strengths_that_could_make_the_damage_negative_are_refused(tmp_path, interaction):
    with pytest.raises(ValueError, match=r"interaction must be a number in \[0, 1.25\]"):
        synthetic_problem(cache=tmp_path, interaction=interaction)
