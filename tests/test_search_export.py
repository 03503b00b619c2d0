from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from search import open_study
from search.errors import NasliteError
from search.export import export
from storage import CorruptFiles, UnknownTrial


@pytest.fixture
def results(finished):
    return open_study("toy", store=finished.store)


def test_the_exported_files_are_the_measured_ones(results, tmp_path):
    row = results.front()[0]
    folder = export(results, row.number, tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    artifact = row.trial.artifact
    assert [f["name"] for f in manifest["files"]] == ["model.onnx"]
    content = (folder / "model.onnx").read_bytes()
    assert hashlib.sha256(content).hexdigest() == artifact.files[0].sha256
    assert len(content) == row.metrics["size_bytes"] == manifest["size_bytes"]
    assert manifest["candidate"] == row.trial.candidate
    assert manifest["metrics"]["accuracy"]["value"] == row.metrics["accuracy"]
    assert manifest["sha256"] == artifact.sha256
    assert "onnxruntime" in manifest["versions"]


def test_the_lines_of_the_manifest_load_the_file_as_it_was_measured(results, tmp_path):
    folder = export(results, results.front()[0].number, tmp_path / "out")
    lines = json.loads((folder / "manifest.json").read_text())["how_to_load"]
    assert len(lines) == 6
    name = lines[-1].split('{"')[1].split('"')[0]
    program = "\n".join(
        [
            "import sys, numpy as np",
            f"{name} = np.zeros((3, 1, 8, 8), np.float32)",
            *lines,
            "assert outputs[0].shape == (3, 4)",
            "assert options.inter_op_num_threads == options.intra_op_num_threads == 1",
            "spinning = 'session.intra_op.allow_spinning'",
            "assert options.get_session_config_entry(spinning) == '0'",
            "assert session.get_providers() == ['CPUExecutionProvider']",
            "assert 'torch' not in sys.modules",
        ]
    )
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)


def test_a_folder_that_is_in_use_is_kept(results, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(NasliteError, match="must be new or empty"):
        export(results, 0, tmp_path / "out")
    with pytest.raises(NasliteError, match="must be new or empty"):
        export(results, 0, tmp_path / "out" / "mine.txt")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_an_export_into_the_empty_folder_one_stands_in(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export(results, 0, type(tmp_path)("."))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "model.onnx"]


def test_what_cannot_be_exported_says_why(results, tmp_path):
    with pytest.raises(UnknownTrial):
        export(results, 99, tmp_path / "out")
    with pytest.raises(NasliteError, match="cannot export to /proc"):
        export(results, 0, type(tmp_path)("/proc/naslite-none/out"))
    assert list(tmp_path.iterdir()) == []


def test_files_that_changed_since_they_were_measured_are_not_handed_over(results, tmp_path):
    artifact = results.row(0).trial.artifact
    folder, _ = results.store.artifacts.verified(artifact.sha256)
    path = folder / "model.onnx"
    kept = path.read_bytes()
    try:
        path.write_bytes(kept[:-1] + b"\0")
        with pytest.raises(CorruptFiles):
            export(results, 0, tmp_path / "out")
    finally:
        path.write_bytes(kept)
    assert list(tmp_path.iterdir()) == []
