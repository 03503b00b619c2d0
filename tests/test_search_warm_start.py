"""What an earlier study measured is not measured again."""

from __future__ import annotations

import sqlite3

import pytest
from conftest import one_line

from search import open_study, run
from search.errors import NasliteError
from search.observer import Observer
from storage import Store

pytestmark = pytest.mark.slow


class Said(Observer):
    def __init__(self):
        self.lines = []

    def preparing(self, what):
        self.lines.append(what)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A workspace with the study `toy` of all eight candidates, at random."""
    from conftest import Workspace

    workspace = Workspace(tmp_path_factory.mktemp("warm"))
    config = workspace.config(strategy="random", budget={"trials": 7})
    run(config, store=workspace.store)
    return workspace


def test_other_goals_and_another_strategy_cost_no_evaluation(first):
    config = first.config(
        "other.yaml",
        study="other",
        strategy={"name": "tpe"},
        objectives={"size_bytes": "minimize", "macs": "minimize"},
        constraints=["accuracy_drop <= 0.9"],
        budget={"trials": 7},
    )
    said = Said()
    rows = run(config, store=first.store, known_from="toy", observer=said).rows()
    assert "8 evaluations of toy are known facts" in said.lines
    assert not any("exporting" in line for line in said.lines)
    before = {str(row.trial.candidate): row for row in open_study("toy", store=first.store).rows()}
    assert len(rows) == len(before) == 8
    for row in rows:
        old = before[str(row.trial.candidate)]
        assert row.trial.measurements == old.trial.measurements  # timings as well
        assert row.trial.artifact == old.trial.artifact
        assert (row.trial.reused_study, row.trial.reused_from) == ("toy", old.number)
        assert all(stage.cached for stage in row.trial.stages)
        assert row.trial.seconds == 0.0


def test_facts_outlive_the_study_they_come_from(first, naslite):
    config = first.config("kept.yaml", study="kept", strategy="random", budget={"trials": 2})
    first.config("source.yaml", study="source", strategy="random", budget={"trials": 4})
    run(first.folder / "source.yaml", store=first.store, known_from="toy")
    run(config, store=first.store, known_from="source")
    assert naslite("rm", "source", "--store", first.store)[0] == 0
    code, _, _ = naslite("resume", "kept", "--trials", 4, "--store", first.store)
    assert code == 0
    rows = open_study("kept", store=first.store).rows()
    assert [row.trial.reused_study for row in rows] == ["source"] * 5
    store = Store(first.store)
    for row in rows:
        assert row.trial.artifact is not None
        assert store.artifacts.get(row.trial.artifact.sha256) is not None
    assert (
        "taken over from trial 1 of study source"
        in naslite("show", "kept", 1, "--store", first.store)[1]
    )


def test_a_wider_space_reuses_what_lies_in_it(first):
    pipeline = [
        {"structured_pruning": {"ratio": [0.0, 0.25, 0.5], "round_to": 2}},
        {"distillation": {"epochs": [0, 1], "lr": 0.01}},
        {"onnx_quantization": {"scheme": ["none", "static"]}},
    ]
    config = first.config(
        "wide.yaml", study="wide", pipeline=pipeline, strategy="random", budget={"trials": 11}
    )
    rows = run(config, store=first.store, known_from="toy").rows()
    assert len(rows) == 12
    new = [row for row in rows if not row.trial.reused_study]
    assert {row.trial.candidate["structured_pruning.ratio"] for row in new} == {0.25}


def test_a_fact_without_a_metric_that_is_now_asked_for_is_no_fact(first):
    """As after a metric was added: the candidate is evaluated, the others are not."""
    lacking = open_study("toy", store=first.store).rows()[3].trial
    with sqlite3.connect(first.folder / "naslite.db") as database:
        database.execute(
            "DELETE FROM measurements WHERE metric = 'size_zstd_bytes' AND number = 3"
            " AND study_id = (SELECT id FROM studies WHERE name = 'toy')"
        )
    config = first.config(
        "packed.yaml",
        study="packed",
        strategy="random",
        objectives={"accuracy": "maximize", "size_zstd_bytes": "minimize"},
        budget={"trials": 7},
    )
    rows = run(config, store=first.store, known_from="toy").rows()
    assert len(rows) == 8
    assert all("size_zstd_bytes" in row.metrics for row in rows)
    evaluated = [row.trial.candidate for row in rows if not row.trial.reused_study]
    assert evaluated == [lacking.candidate]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"seed": 1}, "its seed is 0, here it is 1; make them equal, or leave --from away"),
        ({"runtime": {"batch_sizes": [4]}}, "its runtime is {'name': 'onnxruntime'"),
        ({"task_options": {}, "threads": 2}, "its threads is 1, here it is 2"),
    ],
)
def test_what_cannot_hold_is_refused_with_the_reason(first, changes, part):
    config = first.config("wrong.yaml", study="wrong", **changes)
    with pytest.raises(NasliteError) as caught:
        run(config, store=first.store, known_from="toy")
    assert part in str(caught.value)
    assert not Store(first.store).has_study("wrong")


def test_another_task_is_refused(first):
    source = (first.folder / "toy_task.py").read_text()
    (first.folder / "other_task.py").write_text(source + "\n# changed\n")
    config = first.config("task.yaml", study="task", task="other_task.py:Toy")
    with pytest.raises(NasliteError, match="study 'toy' is of another task"):
        run(config, store=first.store, known_from="toy")


def test_an_unknown_study_is_named_at_once(first, naslite):
    config = first.config("unknown.yaml", study="unknown")
    result = naslite("run", config, "--store", first.store, "--from", "tyo")
    assert "unknown study 'tyo'; studies in" in one_line(result)
