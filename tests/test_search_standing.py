"""What is said beside rows: why there are none, what comes nearest, what is damaged."""

from __future__ import annotations

import io
import json

import pytest
from doubles import FormulaBench, control, new_study

from search.causes import causes
from search.errors import NasliteError
from search.explain import explain, explanation_view, lines_of
from search.formats import format_ratio, format_value
from search.report import rows_view
from search.results import StudyResults
from search.shipped import damage
from search.standing import about_answer
from storage import Store, Trial, UnknownTrial
from storage.entries import entry_folder


def refuse_all(candidate):
    if any(value not in (0, "none") for value in candidate.values()):
        raise ValueError(f"layer {candidate['prune.level']} is too small")


def study(folder, *hooks, trials=12) -> StudyResults:
    store = Store(f"sqlite:///{folder / 'a.db'}")
    new_study(store, trials=trials)
    control(store, bench=FormulaBench(*hooks))
    return StudyResults(store, "s")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> StudyResults:
    return study(tmp_path_factory.mktemp("standing"))


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> StudyResults:
    return study(tmp_path_factory.mktemp("failed"), refuse_all)


def text_of(*renderables, width=120) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=width, markup=False).print(*renderables)
    return out.getvalue()


def test_the_nearest_rows_come_with_the_distance_and_the_limit_that_binds(results):
    answer = results.answer("size_bytes < 60 and accuracy_drop <= 0.1")
    lines = about_answer(results, answer)
    assert (
        lines[0] == f"none of 13 trials meets all limits; #{answer.rows[0].number} comes nearest:"
    )
    assert lines[1].startswith("  size_bytes < 60: ")
    assert "off by" in lines[1]
    assert any(" binds" in line for line in lines)
    rows = [json.loads(json.dumps(row.to_json())) for row in answer.rows]
    totals = [sum(row["violations"].values()) for row in rows]
    assert totals == sorted(totals)
    assert all("violated" in row["verdicts"].values() for row in rows)


def test_an_only_limit_binds_and_a_bound_that_is_just_excluded_is_named(results):
    lines = about_answer(results, results.answer("accuracy > 1", objectives="size_bytes: min"))
    assert (
        lines[1]
        == "  accuracy > 1: 1.0000, exactly the bound that it excludes; no trial meets this limit"
    )
    assert lines[2] == "accuracy > 1 binds: it is the only limit"


def test_the_constraints_are_limits_beside_those_that_are_asked_for(results):
    lines = about_answer(results, results.answer("accuracy > 1"))
    assert lines[2].startswith("  accuracy_drop <= 0.3: met")
    assert lines[3].startswith("accuracy > 1 binds: without it, ")


def test_nothing_is_said_where_all_is_well(results):
    assert about_answer(results, results.answer()) == []


def test_a_study_without_results_says_why_with_counts(failed):
    answer = failed.answer()
    assert [row.number for row in answer.rows] == [0]
    first, *groups = about_answer(failed, answer)
    assert first.startswith("study s is finished (")
    assert first.endswith("): of 12 trials beside the baseline none is complete")
    assert len(groups) == 1  # the causes differ in a number
    assert groups[0].startswith("  12 failed, such as #1: prune: layer ")


def test_causes_are_counted_by_state_and_text_without_numbers():
    trials = [
        Trial(1, "failed", {}, cause="used 4.2 GB"),
        Trial(2, "failed", {}, cause="used 1,300 GB"),
        Trial(3, "refused", {}, cause="used 7 GB"),
        Trial(4, "complete", {}),
        Trial(5, "failed", {}, cause="no result"),
    ]
    found = [(cause.state, cause.text, cause.numbers) for cause in causes(trials)]
    assert found == [
        ("failed", "used 4.2 GB", (1, 2)),
        ("refused", "used 7 GB", (3,)),
        ("failed", "no result", (5,)),
    ]


def test_damaged_files_are_noticed_and_marked(tmp_path):
    results = study(tmp_path)
    rows = results.front()
    assert damage(results, rows) == {}

    def file_of(row):
        artifact = row.trial.artifact
        return entry_folder(results.store.artifacts.root, artifact.sha256) / artifact.files[0].name

    missing, short, changed = (file_of(row) for row in rows[:3])
    missing.unlink()
    short.write_bytes(b"1")
    changed.write_bytes(changed.read_bytes()[::-1])
    found = damage(results, rows)
    assert found == {
        rows[0].number: "model.onnx is missing",
        rows[1].number: f"model.onnx has 1 bytes, not the {rows[1].trial.artifact.size_bytes}"
        " that were measured",
        rows[2].number: "model.onnx is not the file that was measured (SHA-256)",
    }
    assert list(damage(results, rows, most_bytes=0)) == [rows[0].number, rows[1].number]
    shown = text_of(rows_view(results, rows, title="t", width=120, marked=found))
    assert f" {rows[0].number}! " in shown
    assert f"{rows[0].number}! model.onnx is missing" in shown


def test_a_table_fits_into_120_columns(results):
    shown = text_of(rows_view(results, results.front(), title="t", width=120))
    assert "─" in shown
    assert max(len(line) for line in shown.splitlines()) <= 120


def test_a_row_is_explained_beside_the_baseline_and_its_neighbours(results):
    inside = next(row for row in results.rows() if not row.on_front and row.is_feasible)
    found = explain(results, inside.number)
    assert found.baseline.number == 0
    assert [row.number for row in found.columns][:2] == [0, inside.number]
    dominating = {
        row.number
        for row in results.front()
        if row.metrics["accuracy"] >= inside.metrics["accuracy"]
        and row.metrics["size_bytes"] <= inside.metrics["size_bytes"]
    }
    assert set(found.dominated_by) == dominating
    assert dominating
    record = json.loads(json.dumps(found.to_json()))
    assert record["number"] == inside.number
    values = record["knobs"]["prune.level"]
    assert values[str(inside.number)] == inside.trial.candidate["prune.level"]
    assert len(set(values.values())) > 1
    own = record["metrics"]["size_bytes"][str(inside.number)]["value"]
    assert own == inside.metrics["size_bytes"]
    shown = text_of(explanation_view(found))
    for part in ("not on the front, dominated by", "prune.level", "size_bytes", "baseline"):
        assert part in shown
    assert {line["kind"] for line in lines_of(found)} == {"knob", "metric"}


def test_a_row_that_breaks_a_constraint_is_not_called_worse_in_every_objective(results):
    broken = next(row for row in results.rows() if not row.is_feasible)
    found = explain(results, broken.number)
    assert found.dominated_by == ()
    assert "those on it meet the constraints, or come nearer" in text_of(explanation_view(found))


def test_neighbours_are_the_nearest_on_the_front(results):
    row = results.front()[2]
    found = explain(results, row.number)
    front = [other for other in results.front() if other.number != row.number]
    spans = {
        name: max(r.metrics[name] for r in results.front())
        - min(r.metrics[name] for r in results.front())
        for name in ("accuracy", "size_bytes")
    }

    def distance(other) -> float:
        return sum(((other.metrics[n] - row.metrics[n]) / s) ** 2 for n, s in spans.items())

    nearest = sorted((other for other in front if other.number), key=distance)[:2]
    assert [other.number for other in found.neighbours] == [other.number for other in nearest]
    assert found.dominated_by == ()
    assert "on the front: no other trial dominates it" in text_of(explanation_view(found))


def test_what_has_no_figures_cannot_be_explained(failed):
    with pytest.raises(
        NasliteError, match=r"trial 1 of 's' has no figures to compare: it is failed"
    ):
        explain(failed, 1)
    with pytest.raises(UnknownTrial):
        explain(failed, 99)
    assert explain(failed, 0).columns == (failed.row(0),)


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("size_zstd_bytes", 121_223.0, "121 kB"),
        ("peak_rss_bytes", -20_000.0, "-20 kB"),
        ("load_ms", 31.94, "31.9 ms"),
        ("latency_p90_ms_batch32", 0.4694, "0.469 ms"),
        ("throughput_per_s", 1234.4, "1,234/s"),
        ("throughput_per_s_batch8", 7.25, "7.25/s"),
        ("audit_accuracy", 0.5, "0.5000"),
    ],
)
def test_every_metric_is_written_in_its_unit(metric, value, shown):
    assert format_value(metric, value) == shown


def test_throughput_compares_as_it_was_timed_side_by_side():
    metrics = {"throughput_per_s_batch8": 900.0, "latency_ratio_batch8": 0.5, "load_ms": 3.0}
    assert (
        format_ratio("throughput_per_s_batch8", metrics, {"throughput_per_s_batch8": 9})
        == "×2.000"
    )
    assert format_ratio("macs", {"macs": 3.0}, {"macs": 6.0}) == "×0.500"
    assert format_ratio("macs", {"macs": 3.0}, {}) == ""
    assert format_ratio("load_ms", metrics, {"load_ms": 6.0}) == "", "of single timings"
