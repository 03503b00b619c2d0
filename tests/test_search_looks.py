"""Giving candidates up after few samples, and taking samples out of batches."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressors.base import Task
from search import measure
from search.config import parse_config
from search.cutting import CannotCut, cut, sample_count
from search.errors import ConfigError
from search.expressions import parse_constraint
from search.looks import Looks, limiting, looks_at, tightest
from search.prepare import prepare
from search.scoring import scored_on
from search.tango import drop_interval


class Answers(Task):
    """Sample i is answered by entry i of an array; batches are sorted as they come.

    Args:
        size: Of a batch.
    """

    def __init__(self, samples=5000, size=128):
        self.samples, self.size = samples, size
        self.asked = 0

    def eval_batches(self):
        self.asked += 1
        return [(rows, {"row": rows}) for rows in torch.arange(self.samples).split(self.size)]

    def records(self, outputs, batch):
        np.testing.assert_array_equal(batch[0], batch[1]["row"])
        return outputs


class Right:
    """A session: which samples it gets right."""

    input_names = ["row"]

    def __init__(self, right):
        self.right = np.asarray(right, dtype=float)
        self.seen = []

    def __call__(self, feed):
        self.seen.extend(feed["row"].tolist())
        return self.right[feed["row"]]


def wrong_at(samples, share, seed=0):
    return (np.random.default_rng(seed).random(samples) >= share).astype(float)


def looks(task, *constraints, seed=0):
    parsed = [parse_constraint(text) for text in constraints or ["accuracy_drop <= 0.02"]]
    return Looks(task, limiting(parsed, task.score_name, task.higher_is_better), seed)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(1023, ()), (1024, (256,)), (4095, (256,)), (4096, (256, 1024)), (10**6, (256, 1024))],
)
def test_a_look_is_taken_where_it_is_cheap(samples, expected):
    assert looks_at(samples) == expected


def test_a_hopeless_candidate_is_given_up_after_256_random_samples():
    task, reference = Answers(), np.ones(5000)
    right = Right(wrong_at(5000, 0.2))
    found = looks(task).given_up(right, reference, 0)
    assert len(set(right.seen)) == found.samples == 256
    assert 800 < np.median(right.seen) < 4200
    wrong = 256 - int(right.right[right.seen].sum())
    assert found.score == 1 - wrong / 256
    assert found.baseline_score == 1.0
    assert found.drop == drop_interval(wrong, 0, 256, 0.05)
    assert found.records is None
    least = drop_interval(wrong, 0, 256, 0.025)[0]  # 5 % over two looks
    text = f"accuracy_drop > 0.02: at least {least:.3g} after 256 of 5,000 samples (95 %)"
    assert found.stopped == text


def test_a_nearer_one_is_given_up_after_1024():
    right = Right(wrong_at(5000, 0.04, seed=1))
    found = looks(Answers()).given_up(right, np.ones(5000), 0)
    assert found.samples == 1024
    assert len(right.seen) == len(set(right.seen)) == 1024  # the first 256 are not run again
    assert "after 1,024 of 5,000 samples" in found.stopped


def test_one_within_the_limit_goes_on_and_scores_the_same_as_without_looks():
    right = wrong_at(5000, 0.01)
    task, reference = Answers(), np.ones(5000)
    assert looks(task).given_up(Right(right), reference, 0) is None
    found = scored_on(Right(right), task, task.eval_batches, None, 0)
    assert found.score == measure.score(Right(right), task)[0] == right.mean()


def test_the_samples_are_the_same_for_all_candidates_and_cut_once():
    task = Answers()
    found = looks(task)
    first, second = Right(wrong_at(5000, 0.2)), Right(wrong_at(5000, 0.3, seed=1))
    for right in (first, second):
        found.given_up(right, np.ones(5000), 0)
    assert first.seen == second.seen
    assert task.asked == 1
    other = Right(first.right)
    looks(task, seed=1).given_up(other, np.ones(5000), 0)
    assert other.seen != first.seen


def test_a_sorted_set_misleads_nobody():
    """All errors lie in the first class, but overall they are few."""
    right = np.ones(5000)
    right[:100] = 0
    assert looks(Answers()).given_up(Right(right), np.ones(5000), 0) is None


def test_the_tightest_constraint_counts_and_a_score_is_a_limit_too():
    texts = ["accuracy_drop <= 0.5", "accuracy >= 0.9", "size_bytes <= 9", "accuracy_drop >= 0"]
    found = limiting(map(parse_constraint, texts), "accuracy", True)
    assert [str(c) for c in found] == ["accuracy_drop <= 0.5", "accuracy >= 0.9"]
    limit = tightest(found, "accuracy", 0.97, True)
    assert limit.drop == pytest.approx(0.07)
    text = "accuracy < 0.9: a drop of at least 0.123 after 256 of 5,000 samples (95 %)"
    assert limit.cause(0.1234, 256, 5000) == text
    (errors,) = limiting([parse_constraint("loss <= 3")], "loss", False)
    assert tightest([errors], "loss", 2.5, False).drop == 0.5
    assert limiting([parse_constraint("loss >= 3")], "loss", False) == []


def test_records_that_are_not_one_for_each_sample_are_all_scored(caplog):
    task = Answers()
    found = looks(task)
    with caplog.at_level(logging.WARNING, "naslite.search"):
        for _ in range(2):
            assert found.given_up(Right(wrong_at(5000, 0.5)), np.ones(9000), 0) is None
    assert caplog.text.count("there are 9000 records of 5000 samples") == 1


def test_few_samples_without_a_score_are_no_reason_to_give_up():
    class Strict(Answers):
        def score(self, records):
            if len(records) < 5000:
                raise ValueError("too few")
            return float(records.mean())

    assert looks(Strict()).given_up(Right(wrong_at(5000, 0.5)), np.ones(5000), 0) is None


class Pair(NamedTuple):
    images: torch.Tensor
    labels: list


ROWS = np.array([2, 0])


def plain(value):
    """Arrays as lists, to be compared."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return (
            type(value)(*map(plain, value)) if hasattr(value, "_fields") else [*map(plain, value)]
        )
    return value


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.arange(3), [2, 0]),
        (np.arange(6).reshape(3, 2), [[4, 5], [0, 1]]),
        ((torch.arange(3), torch.arange(3) + 5), [[2, 0], [7, 5]]),
        ([torch.arange(3), ["a", "b", "c"]], [[2, 0], ["c", "a"]]),
        ({"x": torch.arange(3), "n": 7, "s": "ab"}, {"x": [2, 0], "n": 7, "s": "ab"}),
        ((torch.arange(3), None, torch.tensor(1.5)), [[2, 0], None, 1.5]),
        (
            (torch.arange(3), [torch.ones(1), torch.ones(2), torch.ones(4)]),
            [[2, 0], [[1] * 4, [1]]],
        ),
        (Pair(torch.arange(3), [4, 5, 6]), Pair([2, 0], [6, 4])),
        ((torch.arange(3), [{"box": 1}, {"box": 2}, object()]), None),
    ],
)
def test_samples_are_cut_out_of_whatever_a_batch_is(batch, expected):
    found = cut(batch, ROWS, 3)
    if expected is not None:
        assert plain(found) == expected
    assert type(found) is type(batch)


@pytest.mark.parametrize("batch", [torch.arange(4), (torch.arange(3), {1, 2}), object()])
def test_what_cannot_be_cut_is_told(batch):
    with pytest.raises(CannotCut):
        cut(batch, ROWS, 3)


@given(st.integers(1, 20), st.data())
def test_a_batch_cut_twice_is_a_batch_cut_once(size, data):
    batch = (torch.arange(size), {"x": np.arange(size) * 2})
    rows = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True)))
    again = np.arange(len(rows))[::-1].copy()
    twice = cut(cut(batch, rows, size), again, len(rows))
    assert plain(twice) == plain(cut(batch, rows[again], size))


def test_inputs_tell_how_many_samples_there_are():
    assert sample_count((torch.tensor(3.0), {"x": torch.zeros(4, 2)})) == 4
    with pytest.raises(CannotCut):
        sample_count(torch.tensor(3.0))


def problems_of(workspace, **changes):
    raw = {
        "study": "s",
        "task": "toy_task.py:Toy",
        "stage_evaluation": True,
        "pipeline": ["onnx_quantization"],
        "strategy": "random",
        **changes,
    }
    config, problems = parse_config(raw)
    try:
        prepare(config, workspace.folder, problems, "toy.yaml")
    except ConfigError as error:
        return [f"{p.path}: {p}" for p in error.problems]
    return []


def test_staging_needs_a_constraint_that_a_low_score_breaks(workspace):
    (problem,) = problems_of(workspace, constraints=["size_bytes <= 9"])
    assert problem.startswith("stage_evaluation: ")
    assert "'accuracy_drop <= 0.01'" in problem
    assert problems_of(workspace, constraints=["accuracy_drop <= 0.1"]) == []
    assert problems_of(workspace, constraints=["accuracy >= 0.1"]) == []


def test_staging_needs_batches_that_can_be_cut(workspace):
    path = workspace.folder / "toy_task.py"
    path.write_text(
        path.read_text()
        + """
class Odd(Toy):
    def eval_batches(self):
        return [(images, labels, {1, 2}) for images, labels in super().eval_batches()]
"""
    )
    given = {"task": "toy_task.py:Odd", "constraints": ["accuracy_drop <= 0.1"]}
    (problem,) = problems_of(workspace, **given)
    assert "a batch holds a set, which cannot be cut" in problem
    assert problems_of(workspace, **given, stage_evaluation=False) == []
