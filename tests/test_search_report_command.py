from __future__ import annotations

import pytest
from conftest import one_line
from reported import BASELINE, complete, stored


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


def test_errors_are_one_line(naslite, store, tmp_path):
    unknown = one_line(naslite("report", "t", "-o", tmp_path / "r.html", "--store", store))
    assert "'t'" in unknown or "t" in unknown.split()
    missing = tmp_path / "no" / "r.html"
    assert "cannot write" in one_line(naslite("report", "s", "-o", missing, "--store", store))
    assert "cannot write" in one_line(naslite("report", "s", "-o", tmp_path, "--store", store))
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))
