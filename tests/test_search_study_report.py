from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from reported import BASELINE, complete, stored

from benchmarks.free_study import OurStudy
from search.jobs import Control
from search.report_html import html_report
from search.report_markdown import markdown_report
from search.sample_records import packed
from search.study_report import (
    DETAIL_VALUES,
    FRONT_ROWS,
    _packed_only,
    optimism_text,
    study_report,
)
from storage import Measurement, Outcome

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"


def audited(value):
    return [Measurement("audit_accuracy", value, n=300), Measurement("audit_accuracy_drop", 0.01)]


@pytest.fixture
def mixed(tmp_path):
    """A study with rows of every kind, and hostile causes."""
    (tmp_path / "private folder").mkdir()
    outcomes = [
        BASELINE,
        complete(0.9, 500, (0.5, 0.45, 0.55), drop=(-0.01, 0.02), extra=audited(0.89)),
        complete(0.85, 250, (0.3, 0.28, 0.33), drop=(0.01, 0.4), cached=True),
        complete(0.1, 100, (0.2, 0.1, 0.3)),
        Outcome("failed", f"{HOSTILE} in {tmp_path}/private folder/task.py | `x` at step 3"),
        Outcome("failed", f"{HOSTILE} in {tmp_path}/private folder/task.py | `x` at step 4"),
        Outcome("refused", "postgresql://ann:secret@host/db"),
        *(complete(0.8 - 0.01 * i, 600 + i, (0.7, 0.6, 0.8)) for i in range(8)),
        None,
    ]
    control = dataclasses.asdict(Control(1.0, 0.98, 1.03, 20, 0.03, 0.5))
    return stored(
        tmp_path / "private folder",
        outcomes,
        name="a <study>",
        folder=str(tmp_path / "private folder"),
        task=str(tmp_path / "private folder" / "task.py:Task"),
        sessions=[{"cpu": "a CPU", "controls": [control]}],
        state="running",
    )


def data_of(page):
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page)
    return json.loads(found.group(1))


def outside_the_library(page):
    """The page without plotly's own source."""
    parts = re.split(r"<script>(?=/\*\*\n\* plotly)", page)
    assert len(parts) == 2
    return parts[0] + parts[1].split("</script>", 1)[1]


def test_every_trial_has_its_place(mixed):
    report = study_report(mixed)
    assert report.counts == {"complete": 12, "failed": 2, "refused": 1, "running": 1}
    assert report.points.numbers == (0, 1, 2, 3, *range(7, 15))
    assert report.points.kinds[:4] == ("baseline", "front", "front", "infeasible")
    assert set(report.points.kinds[4:]) == {"feasible"}
    assert [len(f.numbers) for f in report.failures] == [2, 1]
    assert [row.number for row in report.front] == [2, 1]
    assert report.front[0].verdicts == {"accuracy_drop <= 0.3": "not proven"}
    assert report.headline.number == 1, "the one that is proven"
    assert len(report.details) == 15
    assert report.progress.numbers == tuple(range(15))
    assert [axis.name for axis in report.lines.axes] == [
        "prune.level",
        "quantize.scheme",
        "accuracy",
        "size_bytes",
    ]
    assert report.sessions[0][-1] == "3 %"


def test_audit_figures_stand_beside_those_of_the_search(mixed):
    report = study_report(mixed)
    assert report.columns[:3] == ("accuracy", "size_bytes", "accuracy_drop"), "what it is after"
    assert report.columns[3] == "audit_accuracy"
    assert report.front[1].cells["audit_accuracy"].startswith("0.89")
    assert "audit_accuracy" not in report.front[0].cells
    assert "audit_accuracy" not in report.points.values, "no axis: most have not got it"
    assert "never saw" in optimism_text(report)


def test_the_optimism_of_picking_is_said_with_and_without_an_audit(mixed):
    report = dataclasses.replace(study_report(mixed), optimism=0.0123)
    assert "The front is scored on the audit split, if there is one" in optimism_text(
        dataclasses.replace(report, columns=())
    )
    report = dataclasses.replace(report, state="finished")
    text = "Picking the best of 11 by the search split is expected to flatter its score by"
    assert f"{text} at least 1.2 points." in optimism_text(report)
    loss = dataclasses.replace(report, score_name="log_loss", score_is_share=False)
    assert f"{text} at least 0.0123." in optimism_text(loss)
    unaudited = dataclasses.replace(report, columns=("accuracy",))
    assert optimism_text(unaudited).startswith("The front was not scored on an audit split. Pick")
    assert f"{text} at least 1.2 points." in optimism_text(unaudited)
    at_the_ceiling = dataclasses.replace(report, optimism=0.0)
    assert "cannot be estimated" in optimism_text(at_the_ceiling)
    assert "flatter its" not in optimism_text(at_the_ceiling)


def test_the_details_of_a_trial_are_complete(mixed):
    detail = next(d for d in study_report(mixed).details if d.number == 1)
    assert detail.verdicts == {"accuracy_drop <= 0.3": "proven"}
    assert detail.candidate == {"prune.level": "1", "quantize.scheme": "none"}
    assert [stage[0] for stage in detail.stages] == ["prune", "export"]
    metrics = {name: (value, bounds) for name, value, bounds, _ in detail.metrics}
    assert metrics["accuracy_drop"] == ("0.0000", "[-0.0100, 0.0200] (95 % each side)")
    assert metrics["latency_ratio"] == ("0.5000", "[0.4500, 0.5500] (95 %)")
    assert detail.export == "", "these trials have no artifact"


def test_nothing_private_is_in_a_report(mixed, tmp_path):
    report = study_report(mixed)
    for text in (html_report(report), markdown_report(report)):
        own = text if text.startswith("#") else outside_the_library(text)
        for private in (str(tmp_path), str(tmp_path.parent), "secret", mixed.study.owner):
            assert not private or private not in own
        assert "private folder" in own, "of the folder its name"


def test_the_page_is_one_file_and_texts_are_texts(mixed):
    page = html_report(study_report(mixed))
    assert len(page) < 5_500_000
    own = outside_the_library(page)
    assert not re.search(r"""(src|href)\s*=\s*(?!"data:)\S""", own.replace("img src=x", ""))
    own = own.replace("http://www.w3.org/2000/svg", "")  # a name, which nobody fetches
    assert not re.search(r"@import|url\(|fetch\(|https?://", own)
    assert "default-src 'none'" in own
    assert "<img" not in own
    assert own.count("<script") == own.count("</script>") == 2
    assert "a &lt;study&gt;" in own
    assert data_of(page)["points"]["values"]["size_bytes"][:2] == [1000, 500]


def test_markdown_tables_have_the_same_columns_in_each_row(mixed):
    text = markdown_report(study_report(mixed))
    assert "# a \\<study\\>" in text
    assert "<script" not in text.replace("\\<", "")
    for block in text.split("\n\n"):
        if block.startswith("|"):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1, block


@pytest.mark.parametrize(
    ("outcomes", "state", "note"),
    [
        ([], "running", "No trial has ended yet"),
        ([None], "running", "No trial has ended yet"),
        ([], "interrupted", "`naslite resume` continues it"),
        ([Outcome("failed", "no such model")], "failed", "has no measurements"),
        ([BASELINE], "stopped", "No candidate is complete yet"),
        ([BASELINE, Outcome("failed", "no")], "finished", "No candidate is complete yet"),
        ([complete(0.1, 100)], "finished", "No row is within the limits"),
    ],
)
def test_a_study_that_lacks_something_says_what(tmp_path, outcomes, state, note):
    cause = "the task has changed" if state == "failed" else ""
    report = study_report(stored(tmp_path, outcomes, state=state, cause=cause))
    assert note in " ".join(report.notes)
    assert cause in " ".join(report.notes)
    page, text = html_report(report), markdown_report(report)
    assert note.partition("`")[0] in outside_the_library(page)
    details = [dataclasses.asdict(detail) for detail in report.details]
    assert data_of(page)["details"] == json.loads(json.dumps(details))
    for title in ("The front", "What it cost", "Failures", "Environment"):
        assert title in page
        assert f"## {title}" in text


@pytest.mark.slow
def test_a_big_study_embeds_what_there_is_room_for(tmp_path):
    study = OurStudy(tmp_path / "big.db", 200)
    study.fill(330)
    report = study_report(study.read())
    assert len(report.points.numbers) == 330
    assert len(report.details) <= DETAIL_VALUES / 200
    assert {row.number for row in report.front[:FRONT_ROWS]} <= {d.number for d in report.details}
    assert report.details[0].number == 0
    assert all(len(label) <= 160 for label in report.points.labels)
    assert len(html_report(report)) < 9_000_000


def test_a_report_says_the_same_each_time(mixed):
    assert study_report(mixed) == study_report(mixed)


def test_the_optimism_of_picking_comes_from_the_records_of_samples(tmp_path):
    rng = np.random.default_rng(0)
    samples = [(rng.random(200) < 0.8).astype(float) for _ in range(5)]
    rows = [
        dataclasses.replace(complete(float(found.mean()), 500 + i), records=packed(found))
        for i, found in enumerate(samples)
    ]
    report = study_report(stored(tmp_path, [BASELINE, *rows]))
    assert 0 < report.optimism < 0.1


def test_a_report_says_that_sparsity_pays_only_when_packed(tmp_path, monkeypatch):
    results = stored(tmp_path, [BASELINE, complete(0.9, 500)])
    said = "What sparsity did is smaller only when a file is packed (size_zstd_bytes), and never"
    assert not any("packed" in note for note in study_report(results).notes)
    monkeypatch.setattr("search.study_report._packed_only", lambda results, row: ["sparsity"])
    assert any(note.startswith(said) for note in study_report(results).notes)


def test_what_pays_only_in_a_packed_file_is_named():
    knobs = {
        "unstructured_pruning.method": "none",
        "weight_clustering.clusters": 0,
        "p.ratio": 0.0,
    }
    space = [{"name": name, "neutral": neutral} for name, neutral in knobs.items()]
    results = SimpleNamespace(study=SimpleNamespace(space=space))

    def named(**values):
        candidate = dict(zip(knobs, values.values(), strict=True))
        return _packed_only(results, SimpleNamespace(trial=SimpleNamespace(candidate=candidate)))

    assert named(method="none", clusters=0, ratio=0.5) == []
    assert named(method="none", clusters=16, ratio=0.5) == ["weight_clustering"]
    assert named(method="n_m", clusters=16, ratio=0.0) == [
        "unstructured_pruning",
        "weight_clustering",
    ]
