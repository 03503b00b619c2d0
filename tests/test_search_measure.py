"""Scoring, timing and metrics of loaded artifacts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf
from assets.toy_task import Toy

from compressors.testing import random_states
from search import measure
from search.metrics import Facts, Timing, measurements, metric_names
from search.runtimes.onnx_runtime import OnnxRuntime


@pytest.fixture(scope="module")
def toy():
    return Toy()


@pytest.fixture(scope="module")
def session(tmp_path_factory, toy):
    path = tmp_path_factory.mktemp("measured") / "model.onnx"
    OnnxRuntime().export(toy.model(), toy.eval_batches()[0][0], path)
    return OnnxRuntime().load(path, threads=1)


class Relabelled(Toy):
    """Every third sample has another label; batches come in any order."""

    def eval_batches(self):
        order = torch.randperm(96)
        images, labels = (
            torch.cat(parts)[order] for parts in zip(*super().eval_batches(), strict=True)
        )
        labels = torch.where(order % 3 == 0, (labels + 1) % 4, labels)
        return [(images[rows], labels[rows]) for rows in torch.arange(96).split(40)]


class Correlation(Toy):
    """A score of the whole set, which is no mean over batches: of logits 0 and 1."""

    score_name = "correlation"

    def records(self, outputs, batch):
        return outputs[:, :2]

    def score(self, records):
        return np.corrcoef(records.T)[0, 1]


def test_the_toy_is_right_on_all_its_samples(session, toy):
    assert measure.score(session, toy) == (1.0, 96)


def test_a_score_is_that_of_a_direct_computation(session):
    score, samples = measure.score(session, Relabelled())
    assert (score, samples) == (pytest.approx(2 / 3), 96)


def test_a_score_is_computed_over_all_records_at_once(session):
    task = Correlation()
    images = torch.cat([images for images, _ in task.eval_batches()])
    with torch.no_grad():
        logits = task.model()(images).numpy()
    expected = np.corrcoef(logits[:, :2].T)[0, 1]
    assert measure.score(session, task)[0] == pytest.approx(expected, abs=1e-4)


def test_scoring_is_repeatable_and_leaves_random_states_alone(session):
    class Sampled(Toy):
        def records(self, outputs, batch):
            return torch.rand(len(outputs)).numpy()

    before = random_states()
    assert measure.score(session, Sampled()) == measure.score(session, Sampled())
    assert random_states() == before


def test_a_task_without_batches_has_no_score(session):
    with pytest.raises(ValueError, match=r"eval_batches\(\) gave no batch"):
        measure.score(session, TaskOf(None))


class Burner:
    """A session that multiplies matrices as often as it is told, or at random up to that."""

    def __init__(self, products=40, *, steady=True, input_name="x"):
        self.products = products
        self.steady = steady
        self.input_names = [input_name]
        self.calls = 0
        self.fed = set()
        self._matrix = np.eye(48, dtype=np.float32)
        self._rng = np.random.default_rng(0)

    def __call__(self, feed):
        self.calls += 1
        self.fed.update(feed)
        count = self.products if self.steady else self._rng.integers(1, self.products + 1)
        for _ in range(count):
            self._matrix @ self._matrix


def timed(candidate, baseline, seed=0):
    return measure.time_against(candidate, baseline, {}, 8, np.random.default_rng(seed))


def test_a_slower_candidate_has_a_greater_ratio():
    timing = timed(Burner(80), Burner(40))
    assert timing.ratio > 1.3
    assert timing.low <= timing.ratio <= timing.high
    assert timing.low > 1


def test_a_faster_candidate_has_a_smaller_ratio():
    timing = timed(Burner(40), Burner(80))
    assert timing.ratio < 1 / 1.3
    assert timing.low <= timing.ratio <= timing.high < 1


def test_a_timing_says_what_was_timed():
    timing = timed(Burner(), Burner())
    assert timing.batch_size == 8
    assert timing.milliseconds > 0
    assert measure.MIN_BLOCKS <= timing.blocks <= measure.MAX_BLOCKS


def test_each_file_is_fed_under_its_own_input_names():
    candidate, baseline = Burner(input_name="images"), Burner(input_name="input_0")
    feed = {"images": np.zeros((8, 4))}
    measure.time_against(candidate, baseline, feed, 8, np.random.default_rng(0))
    assert (candidate.fed, baseline.fed) == ({"images"}, {"input_0"})


def test_short_calls_are_repeated_until_a_block_can_be_timed(monkeypatch):
    monkeypatch.setattr(measure, "WARM_UP_S", 1e-9)  # one call
    candidate = Burner(1)
    timing = timed(candidate, Burner(1))
    assert candidate.calls > 10 * timing.blocks


def test_timing_stops_at_the_greatest_number_of_blocks(monkeypatch):
    monkeypatch.setattr(measure, "HALF_WIDTH", 0.0)
    monkeypatch.setattr(measure, "MAX_SECONDS", 10.0)
    monkeypatch.setattr(measure, "MAX_BLOCKS", 25)
    assert timed(Burner(40, steady=False), Burner(10)).blocks == 25


def test_timing_stops_when_it_is_sure_enough(monkeypatch):
    monkeypatch.setattr(measure, "HALF_WIDTH", float("inf"))
    assert timed(Burner(40, steady=False), Burner(10)).blocks == measure.MIN_BLOCKS


def test_timing_stops_when_it_is_late(monkeypatch):
    monkeypatch.setattr(measure, "HALF_WIDTH", 0.0)
    monkeypatch.setattr(measure, "MAX_SECONDS", 0.0)
    assert timed(Burner(40, steady=False), Burner(10)).blocks == measure.FEW_BLOCKS


def test_the_baseline_is_as_fast_as_itself():
    timing = measure.time_baseline(Burner(), {}, 8)
    assert (timing.low, timing.ratio, timing.high) == (1.0, 1.0, 1.0)
    assert timing.milliseconds > 0


def facts(batch_sizes=(1,), **changes):
    timings = tuple(Timing(size, 2.0 + i, 0.5, 0.4, 0.6, 20) for i, size in enumerate(batch_sizes))
    values = {
        "score_name": "accuracy",
        "higher_is_better": True,
        "score": 0.75,
        "samples": 96,
        "baseline_score": 1.0,
        "size_bytes": 1000,
        "parameters": 50.0,
        "macs": 700.0,
        "timings": timings,
    }
    return Facts(**{**values, **changes})


@pytest.mark.parametrize("batch_sizes", [(1,), (1, 32), (8, 1, 64)])
def test_measurements_have_exactly_the_promised_names(batch_sizes):
    given = [m.metric for m in measurements(facts(batch_sizes, score_name="f1"))]
    assert sorted(given) == sorted(metric_names("f1", batch_sizes))
    assert len(set(given)) == len(given)


def test_measurements_give_every_fact_under_its_name():
    found = {m.metric: m for m in measurements(facts((1, 32)))}
    values = {name: m.value for name, m in found.items()}
    assert values == {
        "accuracy": 0.75,
        "accuracy_drop": 0.25,
        "size_bytes": 1000,
        "latency_ms": 2.0,
        "latency_ms_batch32": 3.0,
        "latency_ratio": 0.5,
        "latency_ratio_batch32": 0.5,
        "parameters": 50,
        "macs": 700,
    }
    ratio = found["latency_ratio"]
    assert (ratio.low, ratio.high, ratio.n) == (0.4, 0.6, 20)
    assert found["accuracy"].n == 96
    assert (found["size_bytes"].unit, found["latency_ms"].unit) == ("B", "ms")


@pytest.mark.parametrize(
    ("higher_is_better", "score", "drop"),
    [(True, 0.75, 0.25), (True, 1.5, -0.5), (False, 0.75, -0.25), (False, 1.5, 0.5)],
)
def test_a_drop_is_positive_where_the_score_became_worse(higher_is_better, score, drop):
    found = measurements(facts(higher_is_better=higher_is_better, score=score))
    assert {m.metric: m.value for m in found}["accuracy_drop"] == drop


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_no_drop_is_zero_without_a_sign(higher_is_better):
    found = measurements(facts(higher_is_better=higher_is_better, score=1.0))
    assert str({m.metric: m.value for m in found}["accuracy_drop"]) == "0.0"


def test_measurements_stand_in_the_order_of_the_tables():
    names = [m.metric for m in measurements(facts())]
    promised = metric_names("accuracy", (1,))
    assert all(promised.index(a) < promised.index(b) for a, b in pairwise(names))
