"""Scoring loaded artifacts, and metrics."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf
from assets.toy_task import Toy
from hypothesis import given
from hypothesis import strategies as st

from compressors.arrays import with_batch_size
from compressors.testing import random_states
from search import measure
from search.jobs import Scored, Timing
from search.metrics import Facts, measurements, metric_names
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


class Gives:
    """A session that gives the same outputs for every batch of 32."""

    input_names = ["images"]

    def __init__(self, *outputs):
        self.outputs = outputs if len(outputs) > 1 else outputs[0]

    def __call__(self, feed):
        return self.outputs


RIGHT = np.zeros((32, 4), np.float32)


class Recorded(Toy):
    """Its records are what the file gives."""

    def records(self, outputs, batch):
        return outputs[-1][:, 0] if isinstance(outputs, tuple) else outputs[:, 0]


@pytest.mark.parametrize("position", [0, 1])
def test_outputs_with_nan_are_an_error_even_if_nothing_reads_them(position):
    wrong = RIGHT.copy()
    wrong[-1, -1] = np.nan
    outputs = [RIGHT, RIGHT]
    outputs[position] = wrong
    with pytest.raises(ValueError, match=r"^the model's outputs hold NaN$"):
        measure.score(Gives(*outputs), Recorded())


def test_infinite_outputs_may_be_meant(toy):
    masked = RIGHT.copy()
    masked[:, 3] = -np.inf
    assert measure.score(Gives(masked), Recorded()) == (0.0, 96)
    with pytest.raises(ValueError, match=r"^records\(\) gave NaN or infinite values$"):
        measure.score(Gives(masked[:, ::-1]), Recorded())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_or_records_that_are_not_finite_are_errors(session, value):
    class Wrong(Toy):
        def score(self, records):
            return value

    class Broken(Toy):
        def records(self, outputs, batch):
            return np.full(len(outputs), value)

        def score(self, records):
            return 1.0

    with pytest.raises(ValueError, match=f"^accuracy is {value}$"):
        measure.score(session, Wrong())
    with pytest.raises(ValueError, match=r"^records\(\) gave NaN or infinite values$"):
        measure.score(session, Broken())


def test_integer_outputs_and_records_are_scored(session):
    class Counted(Toy):
        def records(self, outputs, batch):
            return outputs[:, 0]

    assert measure.score(Gives(np.full((32, 4), 3)), Counted()) == (3.0, 96)


def test_inputs_are_timed_under_their_names_or_their_positions():
    images, mask = torch.rand(3, 2), torch.zeros(3)
    assert list(measure.timing_feed(images)) == ["input_0"]
    assert list(measure.timing_feed((images, mask))) == ["input_0", "input_1"]
    named = measure.timing_feed({"mask": mask, "images": images})
    assert list(named) == ["mask", "images"]
    np.testing.assert_array_equal(named["images"], images.numpy())
    assert all(isinstance(array, np.ndarray) for array in named.values())


@given(
    given=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=3),
)
def test_a_feed_of_the_largest_batch_is_enough_for_all(given, sizes):
    images = torch.arange(2.0 * given).reshape(given, 2)
    cut = measure.timing_feed(images, max(sizes))
    assert len(cut["input_0"]) == max(sizes)
    for size in sizes:
        np.testing.assert_array_equal(
            with_batch_size(cut, size)["input_0"],
            with_batch_size(measure.timing_feed(images), size)["input_0"],
        )


def facts(batch_sizes=(1,), score=0.75, drop=(0.2, 0.3), **changes):
    timings = tuple(
        Timing(size, 2.0 + i, 0.5, 0.4, 0.6, 20, 4.0 + i, 8.0, 5000)
        for i, size in enumerate(batch_sizes)
    )
    scored = Scored(score, 96, 50.0, 700.0, None, (0.6, 0.8), drop, size_zstd_bytes=900)
    values = {
        "score_name": "accuracy",
        "higher_is_better": True,
        "scored": scored,
        "baseline_score": 1.0,
        "size_bytes": 1000,
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
        "size_zstd_bytes": 900,
        "latency_ms": 2.0,
        "latency_ms_batch32": 3.0,
        "latency_p90_ms": 4.0,
        "latency_p90_ms_batch32": 5.0,
        "latency_ratio": 0.5,
        "latency_ratio_batch32": 0.5,
        "throughput_per_s": 500.0,
        "throughput_per_s_batch32": 32_000 / 3,
        "load_ms": 8.0,
        "peak_rss_bytes": 5000,
        "parameters": 50,
        "macs": 700,
    }
    ratio = found["latency_ratio"]
    assert (ratio.low, ratio.high, ratio.n) == (0.4, 0.6, 20)
    score, drop = found["accuracy"], found["accuracy_drop"]
    assert (score.low, score.high, score.level, score.n) == (0.6, 0.8, 0.95, 96)
    assert (drop.low, drop.high, drop.level, drop.n) == (0.2, 0.3, 0.9, 96)
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
