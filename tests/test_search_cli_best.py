"""`naslite best`: other questions, the nearest rows, and files that are not those measured."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest
from conftest import Workspace, one_line

from search import open_study
from storage.entries import entry_folder


def test_other_objectives_and_limits_rank_the_stored_trials(naslite, finished):
    store = ("--store", finished.store, "--format", "json")
    code, out, err = naslite(
        *("best", "toy", "--objectives", "accuracy: max, macs: min", "--where", "macs > 0"), *store
    )
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert all(set(row["values"]) == {"accuracy", "macs"} for row in rows)
    assert all(row["verdicts"] == {"macs > 0": "proven"} for row in rows)
    assert all(row["metrics"]["macs"]["level"] == 0.95 for row in rows)
    assert {row["damage"] for row in rows} == {""}
    error = one_line(naslite("best", "toy", "--objectives", "accuracy", *store))
    assert "cannot read objective 'accuracy'" in error


def test_a_table_shows_so_many_rows_and_says_how_to_see_the_rest(naslite, finished, monkeypatch):
    monkeypatch.setattr("search.cli.best.MOST_SHOWN", 2)
    asked = ("best", "toy", "--where", "macs > 0", "--store", finished.store)
    _, out, _ = naslite(*asked)
    total = len(open_study("toy", store=finished.store).best("macs > 0"))
    assert f"2 of {total} rows of toy where macs > 0" in out
    assert f"{total - 2} more rows: --limit {total} shows all" in out
    _, out, err = naslite(*asked, "--format", "json")
    assert len(json.loads(out)) == total
    assert "more rows" not in out + err


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("macs < nan", "macs is a number, so it takes a number, got 'nan'"),
        ("seconds > 1 and not (number == one)", "number is a number, so it takes a number"),
        ("onnx_quantization.scheme == statik", "did you mean 'static'?"),
        ("state == failed", "only complete trials are ranked, got state == 'failed'"),
    ],
)
def test_words_that_hold_nowhere_are_errors(naslite, finished, where, said):
    assert said in one_line(naslite("best", "toy", "--where", where, "--store", finished.store))


def test_limits_that_nothing_meets_give_the_nearest_rows(naslite, finished):
    where = ("best", "toy", "--where", "size_bytes < 10 and macs > 0", "--store", finished.store)
    code, out, err = naslite(*where)
    assert (code, err) == (0, "")
    for part in ("that come nearest", "size_bytes < 10 binds", "off by"):
        assert part in out
    code, out, err = naslite(*where, "--format", "json", "--limit", 2)
    assert code == 0
    assert len(json.loads(out)) == 2
    assert "size_bytes < 10 binds" in err


def test_a_row_is_explained_in_every_format(naslite, finished):
    verb = ("best", "toy", "--explain", 1, "--store", finished.store)
    code, out, _ = naslite(*verb)
    assert code == 0
    assert "structured_pruning.ratio" in out
    _, out, _ = naslite(*verb, "--format", "json")
    assert json.loads(out)["number"] == 1
    _, out, _ = naslite(*verb, "--format", "csv")
    assert {line["kind"] for line in csv.DictReader(io.StringIO(out))} == {"knob", "metric"}
    assert "--explain stands alone" in one_line(naslite(*verb, "--limit", 1))


def test_a_damaged_file_is_marked_and_warned_of(naslite, finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / "copy")
    workspace = Workspace(tmp_path / "copy")
    results = open_study("toy", store=workspace.store)
    row = results.front()[0]
    artifact = row.trial.artifact
    assert artifact is not None
    path = entry_folder(results.store.artifacts.root, artifact.sha256) / artifact.files[0].name
    path.unlink()
    code, out, err = naslite("best", "toy", "--store", workspace.store)
    assert code == 0
    assert f"warning: files of trial {row.number} are damaged: {path.name} is missing" in err
    assert f"{row.number}! {path.name} is missing" in out
    _, out, _ = naslite("best", "toy", "--store", workspace.store, "--format", "json")
    damaged = {record["number"]: record["damage"] for record in json.loads(out)}
    assert damaged[row.number] == f"{path.name} is missing"
