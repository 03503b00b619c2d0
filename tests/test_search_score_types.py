"""Scores that use their records as indices or as masks: a whole study of such a task."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Workspace

from search import run

TASK = '''

class Confusing(Toy):
    """The recall of the rarest class, from a matrix that records index into."""
    score_name = "recall"
    def records(self, outputs, batch):
        return np.stack([outputs.argmax(-1), np.asarray(batch[1])], axis=1)
    def score(self, records):
        matrix = np.zeros((CLASSES, CLASSES), int)
        np.add.at(matrix, (records[:, 1], records[:, 0]), 1)
        rarest = matrix.sum(1).argmin()
        return float(matrix[rarest, rarest] / matrix[rarest].sum())

class Masked(Toy):
    """The share of samples that are right, from records that serve as a mask."""
    score_name = "share"
    def records(self, outputs, batch):
        return outputs.argmax(-1) == np.asarray(batch[1])
    def score(self, records):
        return float(len(np.arange(len(records))[records]) / len(~records))
'''


@pytest.mark.slow
@pytest.mark.parametrize(("name", "score"), [("Confusing", "recall"), ("Masked", "share")])
def test_candidates_of_a_task_with_such_a_score_are_measured(
    tmp_path: Path, name: str, score: str
) -> None:
    workspace = Workspace(tmp_path)
    task = tmp_path / "toy_task.py"
    task.write_text(task.read_text() + TASK)
    config = workspace.config(
        task=f"toy_task.py:{name}",
        objectives={score: "maximize", "size_bytes": "minimize"},
        constraints=[f"{score}_drop <= 0.9"],
        pipeline=[{"structured_pruning": {"ratio": [0.0, 0.5], "batchnorm_batches": 0}}],
        budget={"trials": 1},
    )
    rows = run(config, store=workspace.store).rows()
    assert [(row.trial.state, row.trial.cause) for row in rows] == [("complete", "")] * 2
    measured = {m.metric: m for m in rows[1].trial.measurements}
    assert measured[score].low is not None
    lost = rows[0].metrics[score] - rows[1].metrics[score]
    assert measured[f"{score}_drop"].value == pytest.approx(lost)
    assert measured[f"{score}_drop"].high is not None
