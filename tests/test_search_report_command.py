from __future__ import annotations

import shutil

import pytest
from conftest import one_line
from reported import BASELINE, complete, stored

from search import open_study
from storage.entries import entry_folder


@pytest.fixture
def store(tmp_path):
    return stored(tmp_path, [BASELINE, complete(0.89, 250)]).store.url


def test_a_page_is_written_and_named(naslite, store, tmp_path):
    file = tmp_path / "report.html"
    code, out, _ = naslite("report", "s", "-o", file, "--store", store)
    assert code == 0
    assert out.startswith(f"{file} (4.")
    assert file.read_text().startswith("<!doctype html>")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("arguments", [["--format", "md"], ["-o", "r.md"]])
def test_markdown_is_asked_for_by_name_or_by_the_format(naslite, store, arguments, workspace):
    code, out, _ = naslite("report", "s", *arguments, "--store", store)
    assert code == 0
    text = (workspace.folder / "r.md").read_text() if "-o" in arguments else out
    assert text.startswith("# s\n")


def test_html_goes_to_a_pipe_but_not_to_a_terminal(naslite, store, monkeypatch):
    code, out, _ = naslite("report", "s", "--store", store)
    assert code == 0
    assert out.rstrip().endswith("</html>")
    monkeypatch.setattr("search.cli.report.is_terminal", lambda: True)
    assert "-o report.html" in one_line(naslite("report", "s", "--store", store))


def test_what_nothing_meets_says_what_comes_nearest(naslite, tmp_path):
    rows = [BASELINE, complete(0.85, 250), complete(0.7, 200)]
    store = stored(tmp_path, rows, constraints=["accuracy >= 0.95", "size_bytes <= 300"]).store
    _, out, _ = naslite("report", "s", "--format", "md", "--store", store.url)
    assert "none of 3 trials meets all limits; \\#1 comes nearest:" in out
    assert "= 0.95 binds: without it, 2 trials meet all others" in out


def test_a_damaged_file_is_noted_and_warned_of(naslite, finished, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(finished.folder, place)
    url = f"sqlite:///{place / 'naslite.db'}"
    results = open_study("toy", store=url)
    row = next(row for row in results.front() if row.number)
    folder = entry_folder(results.store.artifacts.root, row.trial.artifact.sha256)
    file = folder / row.trial.artifact.files[0].name
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    code, out, err = naslite("report", "toy", "--format", "md", "--store", url)
    assert code == 0
    assert f"Files of trial {row.number} are damaged: " in out
    assert f"warning: files of trial {row.number} are damaged" in err


def test_errors_are_one_line(naslite, store, tmp_path):
    unknown = one_line(naslite("report", "t", "-o", tmp_path / "r.html", "--store", store))
    assert "'t'" in unknown or "t" in unknown.split()
    missing = tmp_path / "no" / "r.html"
    assert "cannot write" in one_line(naslite("report", "s", "-o", missing, "--store", store))
    assert "cannot write" in one_line(naslite("report", "s", "-o", tmp_path, "--store", store))
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))
