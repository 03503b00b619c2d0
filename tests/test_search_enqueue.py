"""Candidates that the user wants evaluated first."""

from __future__ import annotations

import json

import pytest
from conftest import one_line
from doubles import SPACE, control, interrupted_bench, new_study, table
from hypothesis import given
from hypothesis import strategies as st

from search import check, open_study
from search.enqueue import load_candidates, resolve
from search.errors import ConfigError
from storage import Store
from strategies.space import Choice, Condition, Float, Space

SCHEMES = Space(
    [
        Float(name="prune.ratio", low=0.0, high=0.8, step=0.1, neutral=0.0),
        Choice(name="quantize.scheme", values=("none", "static"), neutral="none"),
        Choice(
            name="quantize.calibrator",
            values=("minmax", "percentile"),
            neutral="minmax",
            active_when=Condition("quantize.scheme", "==", "static"),
        ),
    ]
)


def resolved(*entries: object) -> list[dict]:
    problems = []
    found = resolve(entries, SCHEMES, problems)
    assert problems == []
    return found


def problems(*entries: object) -> list[str]:
    found = []
    resolve(entries, SCHEMES, found)
    return [str(problem) for problem in found]


# Resolving


def test_knobs_that_are_left_out_are_neutral():
    assert resolved({"prune.ratio": 0.5}, {"quantize.scheme": "static"}) == [
        {"prune.ratio": 0.5, "quantize.scheme": "none"},
        {"prune.ratio": 0.0, "quantize.scheme": "static", "quantize.calibrator": "minmax"},
    ]


def test_a_knob_that_would_not_be_active_is_a_problem():
    assert problems({"prune.ratio": 0.3, "quantize.calibrator": "percentile"}) == [
        "enqueue.0.quantize.calibrator: is not active in this candidate, it needs"
        " quantize.scheme == 'static'; give that too, or remove it"
    ]


def test_values_take_the_type_of_their_knob():
    (candidate,) = resolve([{"a": 1}], Space([Float(name="a", low=0, high=2, neutral=0.0)]), [])
    assert repr(candidate) == "{'a': 1.0}"


def test_trial_records_are_taken_and_the_baseline_among_them_is_left_out():
    records = [
        {"number": 0, "candidate": {"prune.ratio": 0.0, "quantize.scheme": "none"}},
        {"number": 7, "candidate": {"prune.ratio": 0.2, "quantize.scheme": "none"}},
    ]
    assert resolved(*records) == [{"prune.ratio": 0.2, "quantize.scheme": "none"}]


def test_a_longer_training_than_the_space_has_is_left_out_with_a_warning(caplog):
    outside = {"number": 7, "origin": "continued", "candidate": {"prune.ratio": 0.9}}
    inside = {"number": 8, "origin": "continued", "candidate": {"prune.ratio": 0.5}}
    assert resolved(outside, inside) == [{"prune.ratio": 0.5, "quantize.scheme": "none"}]
    assert "enqueue.0 is left out, being a longer training than this space has" in caplog.text
    assert problems({**outside, "origin": "strategy"}) != []


def test_a_baseline_that_the_space_does_not_hold_is_no_obstacle():
    space = Space([Choice(name="a.scheme", values=("static", "dynamic"), neutral="none")])
    found = []
    assert resolve([{}], space, found) == [{"a.scheme": "static"}]
    assert found == []


def test_what_is_wrong_is_named_with_its_path():
    assert problems(
        {"prune.ratio": 0.5},
        {"prune.ratio": 0.9},
        {"prune.rati": 0.5, "quantize.scheme": "dynamic"},
        {"quantize.scheme": "none", "quantize.calibrator": "entropy"},  # inactive, but wrong
        {"candidate": 3},
    ) == [
        "enqueue.1.prune.ratio: the value must lie in [0.0, 0.8], got 0.9",
        "enqueue.2.prune.rati: unknown knob 'prune.rati'; did you mean 'prune.ratio'?"
        " known: prune.ratio, quantize.calibrator, quantize.scheme",
        "enqueue.2.quantize.scheme: the value must be one of 'none', 'static', got 'dynamic'",
        "enqueue.3.quantize.calibrator: the value must be one of 'minmax', 'percentile',"
        " got 'entropy'",
        "enqueue.4.candidate: must be knobs and values, got 3",
    ]


def test_duplicates_of_each_other_and_of_the_baseline_are_named():
    assert problems(
        {"prune.ratio": 0.5},
        {"prune.ratio": 0.0},
        {"prune.ratio": 0.5, "quantize.scheme": "none"},
    ) == [
        "enqueue.1: means the same as the uncompressed baseline, which is trial 0; remove it",
        "enqueue.2: means the same as enqueue.0; remove it",
    ]


@given(st.lists(st.integers(0, 26), unique=True), st.data())
def test_any_subset_of_a_candidates_knobs_resolves_into_the_space(indices, data):
    for index in indices:
        whole = SCHEMES.at(index)
        kept = data.draw(st.sets(st.sampled_from(sorted(whole))))
        for candidate in resolve([{name: whole[name] for name in kept}], SCHEMES, []):
            assert SCHEMES.contains(candidate)
            assert all(candidate[n] == whole[n] for n in kept if n in candidate)
    wholes = [SCHEMES.at(index) for index in indices]
    expected = [whole for whole in wholes if whole != SCHEMES.baseline()]
    assert resolve(wholes, SCHEMES, []) == expected


# Files


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "cannot read the candidates: No such file or directory"),
        (b"[" * 100_000, "the file of candidates is not JSON: "),
        (b"[{", "the file of candidates is not JSON: "),
        (b"\xff\xfe", "the file of candidates is not JSON: "),
        (b'{"prune.ratio": 0.5}', "must hold a JSON list of candidates, or of trials"),
        (b"[3]", "enqueue.0: must be keys and values, got 3"),
        (b'[{"structured_pruning.ratio": NaN}]', "enqueue.0.structured_pruning.ratio: "),
        (b'[{"structured_pruning.ratio": 0.5}, {}]', "enqueue.1: means the same as the uncom"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(naslite, workspace, content, part):
    if content is not None:
        (workspace.folder / "first.json").write_bytes(content)
    assert part in one_line(naslite("run", workspace.config(), "--enqueue", "first.json"))
    assert not (workspace.folder / "naslite.db").exists()


def test_a_folder_is_no_file_of_candidates(naslite, workspace):
    line = one_line(naslite("check", workspace.config(), "--enqueue", "."))
    assert "cannot read the candidates: Is a directory" in line


def test_what_best_prints_can_be_enqueued(naslite, finished, workspace):
    _, out, _ = naslite("best", "toy", "--store", finished.store, "--format", "json")
    (workspace.folder / "best.json").write_text(out)
    front = [row.trial.candidate for row in open_study("toy", store=finished.store).front()]
    prepared = check(workspace.config(), enqueue=load_candidates("best.json"))
    assert prepared.config.enqueue == [c for c in front if c != prepared.space.baseline()]
    assert prepared.config.enqueue


# Configs


def config_problems(workspace, **changes: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check(workspace.config(**changes))
    return {problem.path: problem.message for problem in caught.value.problems}


def test_problems_of_a_config_come_with_all_others(workspace):
    found = config_problems(
        workspace,
        strategy="rundom",
        enqueue=[{"distillation.epochs": 1}, {"distillation.epochs": 2, "x.y": 1}],
        budget={"trials": 1},
    )
    assert set(found) == {"strategy.name", "enqueue.1.distillation.epochs", "enqueue.1.x.y"}


def test_more_than_the_budget_is_a_problem(workspace):
    entries = [{"distillation.epochs": 1}, {"onnx_quantization.scheme": "static"}]
    found = config_problems(workspace, enqueue=entries, budget={"trials": 1})
    assert found == {
        "enqueue": "at most budget.trials = 1 candidates can be enqueued, got 2;"
        " raise the budget or remove some"
    }


def test_an_enqueue_that_is_no_list_is_a_problem(workspace):
    path = workspace.config(enqueue={"distillation.epochs": 1})
    with pytest.raises(ConfigError, match="enqueue: input should be a valid list"):
        check(path, enqueue=[{"distillation.epochs": 1}])


def test_check_prints_how_many_are_enqueued(naslite, workspace):
    (workspace.folder / "more.json").write_text('[{"onnx_quantization.scheme": "static"}]')
    path = workspace.config(enqueue=[{"distillation.epochs": 1}])
    code, out, _ = naslite("check", path, "--enqueue", "more.json")
    assert code == 0
    assert "enqueued: 2 to be evaluated first" in out


@pytest.mark.slow
def test_run_evaluates_the_configs_candidates_then_the_files(naslite, workspace):
    (workspace.folder / "more.json").write_text(
        json.dumps([{"onnx_quantization.scheme": "static", "structured_pruning.ratio": 0.5}])
    )
    path = workspace.config(enqueue=[{"onnx_quantization.scheme": "static"}])
    code, _, _ = naslite("run", path, "--enqueue", "more.json", "--trials", 3)
    assert code == 0
    results = open_study("toy")
    candidates = [row.trial.candidate for row in results.rows()]
    assert [c["onnx_quantization.scheme"] for c in candidates[1:3]] == ["static", "static"]
    assert [c["structured_pruning.ratio"] for c in candidates[1:3]] == [0.0, 0.5]
    assert results.study.config["enqueue"] == candidates[1:3]
    assert len(candidates) == 4
    assert naslite("replay", "toy")[1] == "replayed 1 proposals of toy: all equal\n"


# The loop


ENQUEUED = [SPACE.at(index) for index in (13, 4, 9)]


@pytest.fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path / 'a.db'}")


def test_enqueued_candidates_are_the_first_trials_and_count_in_the_budget(store):
    new_study(store, trials=5, enqueue=ENQUEUED)
    trials = control(store)
    assert [trial.candidate for trial in trials[1:4]] == ENQUEUED
    assert [trial.number for trial in trials] == list(range(6))
    assert all(trial.memo == {} for trial in trials)
    assert store.study("s").cause == "all 5 trials are done"


def test_a_strategy_sees_them_as_ordinary_trials(store):
    new_study(store, trials=19, enqueue=ENQUEUED)
    keys = [str(trial.candidate) for trial in control(store)]
    assert len(set(keys)) == SPACE.size  # none of them is proposed again


def test_a_budget_that_ends_among_them_ends_the_study(store):
    new_study(store, trials=2, enqueue=ENQUEUED)
    assert [trial.candidate for trial in control(store)[1:]] == ENQUEUED[:2]


@pytest.mark.parametrize("killed_in", [2, 4, 5])
def test_a_study_killed_among_them_resumes_to_the_same_table(store, killed_in):
    new_study(store, "whole", trials=8, enqueue=ENQUEUED)
    expected = table(control(store, "whole"))
    new_study(store, "cut", trials=8, enqueue=ENQUEUED)

    with pytest.raises(KeyboardInterrupt):
        control(store, "cut", bench=interrupted_bench(killed_in))
    assert len(store.trials(store.study("cut"))) == killed_in
    assert table(control(store, "cut")) == expected
