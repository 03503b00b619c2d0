"""The front of a study trained for longer: `resume` with more epochs."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from conftest import one_line
from doubles import SPACE, FormulaBench, control, interrupted_bench, new_study, table

from compressors.distillation import Distillation
from search import open_study, run
from search.continuing import longer_candidates
from search.formats import short
from search.knob_importance import importance
from search.replay import replay
from search.report_figures import _knob_axis
from search.results import Row, StudyResults
from search.stages import Step
from storage import Measurement, Outcome, StageRun, Store, Trial
from storage.lease import new_owner
from strategies.space import Choice, Int, Space, candidate_key

CONSTANT = {"epochs": 1, "lr": 0.01, "schedule": "constant"}
PRUNED = {"structured_pruning.ratio": 0.5}
WHERE = "structured_pruning.ratio == 0.5"


def pipeline(**distillation):
    return [
        {"structured_pruning": {"ratio": [0.0, 0.5], "round_to": 2}},
        {"distillation": {**CONSTANT, **distillation}},
        {"onnx_quantization": {"scheme": ["none", "static"]}},
    ]


@pytest.fixture
def study(workspace):
    """A study of one epoch: one pruned row, and the same quantized."""
    enqueue = [PRUNED, {**PRUNED, "onnx_quantization.scheme": "static"}]
    path = workspace.config(pipeline=pipeline(), enqueue=enqueue, budget={"trials": 2})
    return run(path)


@pytest.mark.slow
def test_the_front_is_trained_on_as_if_it_had_been_trained_so_from_the_beginning(
    study, workspace, naslite
):
    trained = [row.number for row in study.best(WHERE)]
    assert sorted(trained) == [1, 2]
    code, out, _ = naslite("resume", "toy", "--epochs", 3, "--where", WHERE)
    assert code == 0
    assert "2 rows of toy will be trained to 3 epochs" in out

    results = open_study("toy")
    longer = results.rows()[3:]
    assert len(longer) == 2
    for row, before in zip(longer, trained, strict=True):
        expected = {**results.row(before).trial.candidate, "distillation.epochs": 3}
        assert (row.trial.state, row.trial.origin) == ("complete", "continued")
        assert row.trial.candidate == expected
        assert "epochs=3" in short(results, row)
    assert "went on from a cached training of 1 epochs" in {
        stage.note for stage in longer[0].trial.stages
    }
    assert results.study.trials == 4
    assert results.study.state == "finished"
    assert naslite("replay", "toy")[0] == 0
    assert naslite("report", "toy", "-o", "report.html")[0] == 0

    whole = run(
        workspace.config(
            "whole.yaml",
            study="whole",
            pipeline=pipeline(epochs=3),
            enqueue=[PRUNED, {**PRUNED, "onnx_quantization.scheme": "static"}],
            budget={"trials": 2},
        ),
        store=f"sqlite:///{workspace.folder / 'other.db'}",
    )
    from_start = {row.trial.artifact.sha256 for row in whole.rows()}
    assert {row.trial.artifact.sha256 for row in longer} <= from_start

    line = one_line(naslite("resume", "toy", "--epochs", 3, "--where", WHERE, "--trials", 9))
    assert (
        "--epochs 3 lengthens no training of 'toy' (4 compressed rows that meet"
        " structured_pruning.ratio == 0.5, of which 2 had so many in other trials)" in line
    )
    after = open_study("toy")
    assert (after.study.state, after.study.trials, len(after.rows())) == ("finished", 4, 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "epochs", "part"),
    [
        (
            [{"onnx_quantization": {"scheme": ["none", "static"]}}],
            4,
            "--epochs needs a compressor that trains for a number of epochs, such as"
            " distillation, got onnx_quantization in study 'toy'",
        ),
        (pipeline(epochs=[0, 1]), 10**6, "--epochs, for distillation: "),
        (
            pipeline(epochs=[0, 1]),
            1,
            "--epochs 1 lengthens no training of 'toy' (",
        ),
    ],
)
def test_what_cannot_be_trained_for_longer_is_one_line(workspace, naslite, steps, epochs, part):
    run(workspace.config(pipeline=steps, budget={"trials": 1}))
    line = one_line(naslite("resume", "toy", "--epochs", epochs))
    assert part in line
    results = open_study("toy")
    assert (results.state, len(results.rows())) == ("finished", 2)
    assert results.store.requests(results.study) == []


def test_what_is_wrong_with_where_is_said_before_the_task_is_loaded(naslite, workspace, finished):
    (workspace.folder / "naslite.db").unlink(missing_ok=True)
    line = one_line(
        naslite(
            "resume", "toy", "--store", finished.store, "--epochs", 2, "--where", "acuracy > 1"
        )
    )
    assert "acuracy" in line


def test_where_goes_with_epochs(naslite, workspace):
    line = one_line(naslite("resume", "toy", "--where", WHERE))
    assert "--where chooses the rows of --epochs; give both, or neither" in line


def test_epochs_are_a_positive_number(naslite, workspace):
    code, _, err = naslite("resume", "toy", "--epochs", 0)
    assert code == 2
    assert "--epochs" in err


# In the controller


FOREIGN = [{"prune.level": 40, "quantize.scheme": s} for s in ("none", "int8")]


@pytest.fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path / 'a.db'}")


def asked(store, name, trials=4, **config):
    """A finished study that was asked to continue two rows."""
    new_study(store, name, trials=trials, **config)
    control(store, name)
    study = store.study(name)
    store.add_request(study, "continue", {"candidates": FOREIGN})
    return study


def test_what_lies_outside_the_space_is_evaluated_and_the_budget_grows(store):
    asked(store, "s")
    trials = control(store)
    assert [trial.candidate for trial in trials[5:]] == FOREIGN
    assert [(trial.state, trial.origin) for trial in trials[5:]] == [("complete", "continued")] * 2
    assert store.study("s").trials == 6


STRATEGIES = [
    {"name": "random"},
    {"name": "greedy", "step": "best"},
    {"name": "greedy", "step": "once", "restarts": True},
    {"name": "genetic", "population": 4},
    {"name": "tpe"},
    {"name": "optuna", "sampler": "grid"},
]


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: "-".join(map(str, s.values())))
def test_a_search_goes_on_in_its_own_space_and_can_be_replayed(store, tmp_path, strategy, lag):
    asked(store, "s", trials=6, strategy=strategy, lag=lag, folder=str(tmp_path))
    control(store)
    store.add_request(store.study("s"), "extend", {"trials": 14})
    trials = control(store)
    assert [trial.number for trial in trials if trial.is_continued] == [7, 8]
    later = [trial for trial in trials[9:] if trial.origin == "strategy"]
    assert later
    assert all(SPACE.contains(trial.candidate) for trial in later)
    keys = [str(trial.candidate) for trial in trials]
    assert len(set(keys)) == len(keys)
    found = replay("s", store=store.url)
    assert found.differences == ()
    assert found.proposals == len(trials) - 3


def test_a_longer_training_that_lies_in_the_space_is_a_candidate_like_any_other(store):
    new_study(store, trials=1)
    control(store)
    inside = SPACE.at(13)
    store.add_request(store.study("s"), "continue", {"candidates": [inside, *FOREIGN]})
    trials = control(store)
    origins = ["enqueued", "continued", "continued"]
    assert [(t.candidate, t.origin) for t in trials[2:]] == list(
        zip([inside, *FOREIGN], origins, strict=True)
    )


def test_no_rule_gives_a_continued_training_up_nor_judges_by_it(store):
    new_study(store, trials=2, stop={"rule": "median"})
    control(store, bench=Peers())
    store.add_request(store.study("s"), "continue", {"candidates": FOREIGN})
    store.add_request(store.study("s"), "extend", {"trials": 6})
    bench = Peers()
    trials = control(store, bench=bench)
    longer = [t for t in trials if t.is_continued]
    later = trials[longer[-1].number + 1 :]
    assert len(longer) == len(later) == 2
    assert [len(bench.peers[str(dict(t.candidate))]) for t in longer] == [0, 0]
    assert [len(bench.peers[str(dict(t.candidate))]) for t in later] == [3, 4]


class Peers(FormulaBench):
    """Trains every candidate, and keeps by which trainings it was to be judged."""

    def __init__(self):
        super().__init__()
        self.peers = {}

    def build(self, candidate, peers=None, *, progress):
        self.peers[str(dict(candidate))] = peers
        built = super().build(candidate, progress=progress)
        key = str(sorted(candidate.items()))
        return replace(built, stages=(StageRun("train", key, {}, 0.1, False, "", 1, (0.5,)),))


@pytest.mark.parametrize("killed_in", [1, 2])
def test_a_study_killed_among_them_resumes_to_the_same_table(store, killed_in):
    asked(store, "whole")
    expected = table(control(store, "whole"))
    asked(store, "cut")

    with pytest.raises(KeyboardInterrupt):
        control(store, "cut", bench=interrupted_bench(killed_in))
    assert table(control(store, "cut")) == expected


# Asking twice


def test_what_waits_already_is_not_asked_for_again(study):
    """As after a kill between the request and its handling, or among the trainings."""
    step = Step("distillation", Distillation())
    loaded = SimpleNamespace(model=None, task=None)

    def longer():
        return longer_candidates(StudyResults(study.store, "toy"), [step], loaded, 3, WHERE)

    wanted = longer()
    assert [c["distillation.epochs"] for c in wanted] == [3, 3]
    study.store.add_request(study.study, "continue", {"candidates": wanted[:1]})
    assert longer() == wanted[1:]
    owner = new_owner()
    study.store.claim(study.study, owner)
    (request,) = study.store.requests(study.study)
    rows = [(3 + i, c, candidate_key(c), "continued") for i, c in enumerate(wanted)]
    study.store.enqueue(study.study, owner, request, rows)
    assert longer() == []  # to go on with, not to refuse
    study.store.finish(study.study, owner, 3, Outcome("stopped", "limits.timeout"))
    study.store.finish(study.study, owner, 4, Outcome("refused", "why"))
    assert longer() == wanted[:1]
    study.store.add_request(study.study, "continue", {"candidates": wanted[:1]})
    assert longer() == []


# In what people read


EPOCHS = Choice(name="train.epochs", values=(2, 8), neutral=0)


def row_of(number, origin="strategy", **candidate):
    values = {f"train.{name}": value for name, value in candidate.items()}
    return Row(Trial(number, "complete", values, origin=origin), {}, {}, False)


def test_a_fixed_knob_is_named_where_a_row_has_another_value():
    space = Space([Choice(name="train.epochs", values=(2,), neutral=0)])
    found = SimpleNamespace(study=SimpleNamespace(space=space.to_json()))
    assert short(found, row_of(3, "continued", epochs=8)) == "epochs=8"
    assert "epochs" in short(found, row_of(1, epochs=2))  # nothing else says what it is


def test_an_axis_has_a_place_for_values_that_are_not_its_knobs():
    rows = [row_of(1, epochs=8), row_of(2, "continued", epochs=20), row_of(3), row_of(4, epochs=2)]
    axis = _knob_axis(EPOCHS.to_json(), rows)
    assert axis.names == ("0", "2", "8", "20")
    assert axis.values == (2.0, 3.0, 0.0, 1.0)
    halves = Choice(name="train.epochs", values=(0.0, 0.5), neutral=0)
    assert _knob_axis(halves.to_json(), [row_of(1), row_of(2, epochs=0.5)]).values == (0.0, 1.0)
    words = Choice(name="train.epochs", values=("few", "many"), neutral="none")
    axis = _knob_axis(words.to_json(), [row_of(1, epochs="many"), row_of(2)])
    assert (axis.names, axis.values) == (("few", "many", "none"), (1.0, 2.0))


def test_the_importance_of_knobs_is_about_the_space_alone():
    space = Space([EPOCHS, Int(name="train.width", low=1, high=8, neutral=8)])

    def measured(number, origin, epochs, width, value):
        candidate = {"train.epochs": epochs, "train.width": width}
        found = (Measurement("m", value),)
        return Row(
            Trial(number, "complete", candidate, origin=origin, measurements=found), {}, {}, False
        )

    rows = [
        measured(n, "strategy", (2, 8)[n % 2], 1 + n // 2 % 8, float(n % 2)) for n in range(1, 25)
    ]
    longer = [measured(25 + n, "continued", 20, 4, 99.0) for n in range(4)]
    assert importance(space.to_json(), rows + longer, ["m"], 0) == importance(
        space.to_json(), rows, ["m"], 0
    )
