from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from doubles import FormulaBench, control, new_study
from reported import BASELINE, complete, stored

from search.errors import ExpressionError, UnknownName
from search.report import (
    as_csv,
    as_json,
    audit_lines,
    format_value,
    knob_values,
    rows_view,
    short,
    show_lines,
    studies_table,
    study_json,
    trials_view,
)
from search.results import Row, StudyResults
from storage import Measurement, Store, Trial, UnknownTrial
from strategies.space import Choice, Condition, Space


def fail(candidate):
    if candidate["prune.level"] == 1:
        raise ValueError("[red]odd[/red] cause")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('results') / 'a.db'}")
    new_study(store, trials=19)
    control(store, bench=FormulaBench(fail))
    return StudyResults(store, "s")


def text_of(*renderables) -> str:
    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=200, markup=False).print(*renderables)
    return out.getvalue()


def test_the_front_is_what_brute_force_says(results):
    rows = [row for row in results.rows() if row.trial.state == "complete"]

    def dominates(a, b):
        if a.is_feasible != b.is_feasible:
            return a.is_feasible
        x, y = a.metrics, b.metrics
        no_worse = x["accuracy"] >= y["accuracy"] and x["size_bytes"] <= y["size_bytes"]
        return no_worse and (x["accuracy"], x["size_bytes"]) != (y["accuracy"], y["size_bytes"])

    expected = {b.number for b in rows if not any(dominates(a, b) for a in rows)}
    front = results.front()
    assert {row.number for row in front} == expected
    assert all(row.is_feasible for row in front)
    sizes = [row.metrics["size_bytes"] for row in front]
    assert sizes == sorted(sizes)


def test_where_sort_and_limit(results):
    rows = results.best("accuracy_drop <= 0.1 and quantize.scheme == int8", sort="accuracy")
    assert rows
    assert all(row.trial.candidate["quantize.scheme"] == "int8" for row in rows)
    accuracies = [row.metrics["accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert results.best("number >= 0", sort="size_bytes", limit=2)[0].metrics["size_bytes"] == min(
        row.metrics["size_bytes"] for row in results.rows() if row.is_feasible
    )
    assert len(results.best(limit=1)) == 1
    assert results.best("size_bytes < 0") == []


def test_infeasible_rows_stand_behind_feasible_ones(results):
    feasible = [row.is_feasible for row in results.best("number >= 0", sort="size_bytes")]
    assert feasible == sorted(feasible, reverse=True)
    assert not all(feasible)


def test_bad_queries_say_what_is_known(results):
    with pytest.raises(ExpressionError, match="unknown metric 'sise_bytes'; did you mean"):
        results.best("sise_bytes < 3")
    with pytest.raises(UnknownName, match="unknown metric 'acc'"):
        results.best(sort="acc")
    with pytest.raises(UnknownTrial, match="no trial 77 in study 's'; its trials: 0 to 19"):
        results.row(77)


def test_the_json_of_a_trial_is_complete_and_serialisable(results):
    record = json.loads(as_json(results.front()[0].to_json()))
    assert {
        "number",
        "state",
        "candidate",
        "metrics",
        "values",
        "violations",
        "on_front",
        "stages",
        "cause",
        "artifact",
    } <= set(record)
    keys = {"value", "unit", "low", "high", "level", "n", "noisy"}
    assert set(record["metrics"]["size_bytes"]) == keys
    assert set(record["stages"][0]) >= {"name", "seconds", "cached"}
    assert set(record["artifact"]) >= {"sha256", "size_bytes", "files"}
    assert record["violations"] == {"accuracy_drop <= 0.3": 0.0}
    assert record["verdicts"] == {"accuracy_drop <= 0.3": "not proven"}  # it has no bounds
    assert record["on_front"] is True


def test_csv_has_a_line_per_row_and_flat_columns(results):
    rows = [row.to_json() for row in results.rows()]
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert len(read) == 20
    assert read[0]["candidate.prune.level"] == "0"
    assert float(read[0]["metrics.size_bytes.value"]) == 1000
    assert as_csv([]) == ""


def test_columns_that_only_later_rows_have_stand_with_their_kind():
    text = as_csv([{"candidate": {"a": 1}, "cause": ""}, {"candidate": {"b": 2}, "cause": "x"}])
    assert text.splitlines() == ["candidate.a,candidate.b,cause", "1,,", ",2,x"]


def test_tables_show_ratios_verdicts_and_causes(results):
    rows = results.best("number >= 0")
    shown = text_of(rows_view(results, rows, title="t", width=200))
    assert "×0.250" in shown
    assert "violated " in shown
    assert " %" in shown
    assert "limits: accuracy_drop <= 0.3; proven: " in shown
    shown = text_of(trials_view(results, results.rows(), width=200))
    assert "prune: ValueError" not in shown
    assert "[red]odd[/red] cause" in shown
    assert "uncompressed" in shown


def test_show_gives_stages_measurements_and_cause(results):
    failed = next(row for row in results.rows() if row.trial.state == "failed")
    assert "cause: prune: [red]odd[/red] cause" in text_of(*show_lines(results, failed))
    best = text_of(*show_lines(results, results.front()[0]))
    for part in ("stage", "latency_ratio", "[0.9000, 1.1000]   95 %", "no difference shown"):
        assert part in best
    for part in ("SHA-256", "constraint accuracy_drop <= 0.3: not proven"):
        assert part in best
    reused = next(row for row in results.rows() if row.trial.reused_from is not None)
    assert f"from trial {reused.trial.reused_from}" in text_of(*show_lines(results, reused))


def test_candidates_in_short(results):
    names = {short(results, row) for row in results.rows()}
    assert {"uncompressed", "level=3", "int8", "level=3 · int8"} <= names


def test_ls_counts_trials_without_the_baseline(results):
    (summary,) = results.store.studies()
    record = study_json(summary)
    assert (record["done"], record["trials"], record["state"]) == (19, 19, "finished")
    assert record["counts"]["complete"] == 18
    assert "19/19" in text_of(studies_table([summary]))


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("size_bytes", 999.0, "999 B"),
        ("size_bytes", 121_223.0, "121 kB"),
        ("size_bytes", 1_233_109.0, "1.23 MB"),
        ("size_bytes", 5e12, "5000 GB"),
        ("latency_ms", 0.4694, "0.469 ms"),
        ("latency_ms_batch32", 1234.5, "1234 ms"),
        ("parameters", 307_402.0, "307 k"),
        ("macs", 3_034_368.0, "3.03 M"),
        ("accuracy", 0.9925, "0.9925"),
        ("log_loss", 0.00012345, "0.000123"),
        ("log_loss_drop", -0.0025, "-0.0025"),
        ("accuracy_drop", 0.0, "0.0000"),
        ("accuracy_drop", -5.35e-19, "0.0000"),
        ("perplexity", 23.4567, "23.4567"),
        ("elo", 12345.678, "12,345.7"),
        ("rank_msre", 0.5, "0.5000"),
    ],
)
def test_values_as_people_read_them(metric, value, shown):
    assert format_value(metric, value) == shown


def test_knob_values_in_words():
    assert knob_values({"kind": "choice", "values": ["a", 2, 0.5]}) == "a, 2, 0.5"
    record = {"kind": "float", "low": 0.0, "high": 0.8, "step": 0.1}
    assert knob_values(record) == "0 to 0.8 step 0.1"
    assert knob_values({"kind": "float", "low": 1e-4, "high": 1, "log": True}) == "0.0001 to 1 log"


def test_the_ratio_of_milliseconds_is_the_one_measured_side_by_side(results):
    row = results.front()[0]
    (line,) = [
        line
        for line in text_of(*show_lines(results, row)).splitlines()
        if line.split()[:1] == ["latency_ms"]
    ]
    assert line.split()[-1] == f"×{row.metrics['latency_ratio']:.3f}"


def test_a_narrow_terminal_gets_every_metric_as_well(results):
    rows = results.front()
    narrow = text_of(rows_view(results, rows, title="t", width=70))
    assert "─" not in narrow
    assert {"accuracy", "accuracy_drop", "size_bytes"} < set(results.shown_metrics)
    for name in results.shown_metrics:
        assert narrow.count(f"{name} ") >= len(rows)
    assert narrow.count("accuracy_drop <= 0.3: ") == len(rows)
    narrow = text_of(trials_view(results, results.rows(), width=50))
    assert "─" not in narrow
    assert narrow.count(" cached)") == 20
    assert "[red]odd[/red] cause" in narrow


def test_knobs_of_layers_are_short_as_far_as_they_differ_from_neutral(tmp_path):
    layers = ("conv1", "block.0.conv", "linear")
    mixed = Condition("q.scheme", "==", "mixed")
    space = Space(
        [
            Choice(name="q.scheme", values=("none", "mixed"), neutral="none"),
            *(
                Choice(
                    name=f"q.precision@{name}",
                    values=("fp32", "int8"),
                    neutral="fp32",
                    active_when=mixed,
                )
                for name in layers
            ),
        ]
    )
    found = SimpleNamespace(study=SimpleNamespace(space=space.to_json()))
    candidate = {"q.scheme": "mixed", **{f"q.precision@{name}": "int8" for name in layers[1:]}}
    trial = Trial(1, "complete", {**candidate, "q.precision@conv1": "fp32"})
    row = Row(trial, {}, {}, on_front=False)
    assert short(found, row) == "mixed block.0.conv=int8 linear=int8"


def test_only_what_changes_nothing_is_called_uncompressed(results):
    (same,) = [row for row in results.rows() if short(results, row) == "uncompressed"]
    assert same.number == 0


def test_rows_that_break_a_limit_in_the_audit_are_named(tmp_path):
    def audited(drop, audit):
        extra = [
            Measurement("audit_accuracy", 0.9 - audit),
            Measurement("audit_accuracy_drop", audit),
        ]
        return complete(0.9 - drop, 500, extra=extra)

    outcomes = [
        BASELINE,
        audited(0.1, 0.2),
        audited(0.2, 0.4),
        audited(0.35, 0.5),
        audited(0.25, 0.35),
    ]
    found = stored(tmp_path, outcomes)  # accuracy_drop <= 0.3
    assert audit_lines(found, found.rows()) == [
        "audit: accuracy_drop <= 0.3 is broken on unseen data by #2 (0.4000), #4 (0.3500)"
    ]
    assert audit_lines(found, found.rows()[:2]) == []
    shown = text_of(rows_view(found, found.rows(), title="rows", width=200))
    assert "broken on unseen data by #2" in shown


def test_a_row_whose_timing_was_disturbed_is_judged_by_the_one_after_the_search(tmp_path):
    def row(*again):
        found = complete(0.9, 500, (0.5, 0.4, 0.6), extra=again)
        disturbed = [replace(m, noisy=m.metric == "latency_ratio") for m in found.measurements]
        return replace(found, measurements=tuple(disturbed))

    again = Measurement("audit_latency_ratio", 0.55, low=0.5, high=0.6)
    found = stored(tmp_path, [BASELINE, row(again), row()], constraints=["latency_ratio <= 1"])
    verdicts = [row.verdicts["latency_ratio <= 1"] for row in found.rows()[1:]]
    assert verdicts == ["proven", "not proven"]
