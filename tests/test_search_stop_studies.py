"""Studies that give trainings up: they repeat, and a killed one ends as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from conftest import REPOSITORY, Workspace
from doubles import FormulaBench, control, new_study, serial, table
from parallel import Asks, Listed, shuffled

from search import open_study, resume, run
from search.config import parse_config
from search.jobs import Built, Epoch
from search.observer import Observer
from search.replay import replay
from search.stopping import MedianRule, Metric, Training, given_up, make_rule, trainings
from storage import StageRun, Store

ACCURACY = Metric("accuracy", True)
RULE = MedianRule(0, 2)
STOP = {"rule": "median", "warmup_epochs": 0, "min_trials": 2}
EPOCHS = 4
TRIALS = 18


@pytest.fixture
def store(tmp_path):
    return Store(f"sqlite:///{tmp_path / 'a.db'}")


class TrainingBench(FormulaBench):
    """Trains each level but 0 by a formula, and keeps by what it was to be judged."""

    def __init__(self):
        super().__init__()
        self.peers = {}

    def build(self, candidate, peers=None, *, progress):
        self.peers[str(candidate)] = peers
        level, scores = candidate["prune.level"], ()
        if level == 0:
            return super().build(candidate, progress=progress)
        for epoch in range(1, EPOCHS + 1):
            scores = (*scores, 1 - 0.1 * level / epoch)
            progress("train", (), Epoch(epoch, EPOCHS, scores[-1]))
            own = Training("train", f"level {level}", EPOCHS, scores)
            if peers is not None and (cause := given_up(RULE, ACCURACY, own, peers)):
                return Built((self.run(own),), None, "stopped", cause)
        built = super().build(candidate, progress=progress)
        return replace(built, stages=(self.run(own), *built.stages))

    def run(self, training):
        return StageRun(training.stage, training.key, {}, 0.1, False, "", EPOCHS, training.scores)


def decisions(trials):
    return [
        (*row, trial.cause, [stage.scores for stage in trial.stages])
        for row, trial in zip(table(trials), trials, strict=True)
    ]


def check_decisions(trials, lag, rule):
    """Each decision follows from the rows that its trial saw."""
    for trial in trials[1:]:
        if trial.reused_from is not None:
            continue
        peers = trainings(trials[: max(0, trial.number - lag + 1)])
        for stage in trial.stages:
            causes = [
                given_up(rule, ACCURACY, replace_scores(stage, epoch), peers)
                for epoch in range(1, len(stage.scores) + 1)
            ]
            assert not any(causes[:-1])
            if causes and trial.state != "failed":
                assert causes[-1] == (trial.cause if trial.state == "stopped" else "")


def replace_scores(stage, epoch):
    return Training(stage.name, stage.key, stage.epochs, stage.scores[:epoch])


@pytest.mark.parametrize(
    "strategy",
    [{"name": "random"}, {"name": "genetic", "population": 8}, {"name": "tpe"}],
    ids=lambda options: options["name"],
)
def test_a_study_that_gives_up_repeats_whatever_ends_first(store, strategy):
    found = []
    for seed in range(4):
        name = f"s{seed}"
        new_study(store, name, trials=TRIALS, lag=6, strategy=strategy, stop=STOP)
        dispatcher = shuffled(store, TrainingBench(), seed=seed)
        trials = control(store, name, dispatcher=dispatcher)
        check_decisions(trials, 6, RULE)
        found.append(decisions(trials))
        assert replay(name, store=store.url).differences == ()
    assert found[0] == found[1] == found[2] == found[3]
    assert Counter(row[2] for row in found[0])["stopped"] >= 2


class Ending(BaseException):
    """Like Ctrl-C it is no error of the job that runs."""


class Ends(Observer):
    """Ends the session at the n-th thing that happens: an epoch, or the end of a trial."""

    def __init__(self, last):
        self.left = last

    def happens(self):
        self.left -= 1
        if self.left == 0:
            raise Ending

    def epoch_ended(self, number, epoch):
        self.happens()

    def ended(self, trial):
        self.happens()


@pytest.mark.parametrize("lag", [1, 6])
def test_a_study_that_gives_up_can_end_anywhere_and_goes_on_as_it_would_have(store, lag):
    new_study(store, "whole", trials=TRIALS, lag=lag, stop=STOP)
    slots = 1 if lag == 1 else 3
    whole = control(store, "whole", dispatcher=shuffled(store, TrainingBench(), slots=slots))
    assert Counter(trial.state for trial in whole)["stopped"] >= 2
    for seed in range(6):
        name, sessions = f"cut{seed}", 0
        new_study(store, name, trials=TRIALS, lag=lag, stop=STOP)
        while True:
            dispatcher = shuffled(store, TrainingBench(), slots=slots, seed=seed + sessions)
            try:
                trials = control(
                    store, name, dispatcher=dispatcher, observer=Ends(7 + seed + 5 * sessions)
                )
                break
            except Ending:
                sessions += 1
        assert sessions >= 3
        assert decisions(trials) == decisions(whole)


def test_every_trial_is_judged_by_the_rows_that_it_sees_and_no_other(store):
    """Those that somebody enqueues as well: they wait for the rows that they see."""
    wanted = [{"prune.level": level, "quantize.scheme": "int8"} for level in (9, 8, 7, 6)]
    for seed in range(5):
        name, bench = f"s{seed}", TrainingBench()
        new_study(store, name, trials=TRIALS, lag=5, stop=STOP, strategy={"name": "random"})
        asks = Asks(store, 2, "enqueue", study=name, candidates=wanted)
        trials = control(store, name, observer=asks, dispatcher=shuffled(store, bench, seed=seed))
        assert sum(trial.origin == "enqueued" for trial in trials) == 4
        judged = [trial for trial in trials[1:] if trial.reused_from is None]
        for trial in judged:
            seen = trainings(trials[: max(0, trial.number - 5 + 1)])
            assert bench.peers[str(dict(trial.candidate))] == seen, trial.number
        assert len(judged) >= 10


def test_without_a_rule_nothing_is_sent_to_be_judged_by(store):
    new_study(store, trials=4)
    bench = TrainingBench()
    control(store, dispatcher=serial(store, bench))
    assert set(bench.peers.values()) == {None}


def test_a_candidate_that_was_given_up_is_judged_anew_when_it_comes_again(store):
    """Unlike one that is complete, whose outcome is taken over."""
    new_study(store, trials=6, stop=STOP)
    trials = control(store, strategy=Listed(3, 2, 1, 9, 9, 2), bench=TrainingBench())
    assert [trial.state for trial in trials] == ["complete"] * 4 + ["stopped"] * 2 + ["complete"]
    assert [trial.reused_from for trial in trials[4:]] == [None, None, 2]
    assert trials[4].artifact is None
    assert trials[5].cause == trials[4].cause
    assert trials[4].cause.endswith(
        " 0.1 at best by epoch 1 of 4, below the median 0.8 of 3 trainings"
    )


def test_epochs_are_told_to_the_observer_by_their_trial(store):
    class Told(Observer):
        def __init__(self):
            self.epochs = []

        def epoch_ended(self, number, epoch):
            self.epochs.append((number, epoch.number, epoch.total))

    told = Told()
    new_study(store, trials=2)
    dispatcher = shuffled(store, TrainingBench(), slots=2)
    control(store, strategy=Listed(1, 2), dispatcher=dispatcher, observer=told)
    assert sorted(told.epochs) == [(n, epoch, EPOCHS) for n in (1, 2) for epoch in range(1, 5)]


# A real study

REAL = {
    "study": "toy",
    "strategy": {"name": "random"},
    "budget": {"trials": 9},
    "pipeline": [
        {"structured_pruning": {"ratio": [0.0, 0.5, 0.75], "round_to": 2}},
        {
            "distillation": {
                "epochs": 3,
                "lr": [0.00001, 0.003, 0.01],
                "schedule": ["one_cycle", "constant"],
            }
        },
        {"onnx_quantization": {"scheme": ["none", "static"]}},
    ],
    "stop": {"rule": "median", "warmup_epochs": 0, "min_trials": 2},
    "limits": {"max_attempts": 1000},
}
# Runs or resumes a study, and kills itself at the n-th epoch that it is told of.
KILLED = """
import os, signal, sys
from search import resume, run
from search.observer import Observer
from storage import Store

class Kills(Observer):
    left = int(sys.argv[3])

    def epoch_ended(self, number, epoch):
        Kills.left -= 1
        if Kills.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

config, store = sys.argv[1:3]
if os.path.exists(store.removeprefix("sqlite:///")) and Store(store).has_study("toy"):
    resume("toy", store=store, observer=Kills())
else:
    run(config, store=store, observer=Kills())
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2])
def test_a_real_study_that_is_killed_while_it_trains_equals_the_untouched_one(
    tmp_path, workers, monkeypatch
):
    places = []
    for name in ("untouched", "killed"):
        (tmp_path / name).mkdir()
        places.append(Workspace(tmp_path / name))
    quiet, killed = places
    monkeypatch.chdir(quiet.folder)
    wanted = [
        row.trial for row in run(quiet.config(**REAL, workers=workers), store=quiet.store).rows()
    ]
    states = Counter(trial.state for trial in wanted)
    assert states["stopped"] >= 2
    assert states["complete"] >= 4
    lag = 1 if workers == 1 else 4
    config, _ = parse_config({"study": "s", "task": "t", "stop": REAL["stop"]})
    check_decisions(wanted, lag, make_rule(config.stop))

    path = killed.config(**REAL, workers=workers)
    codes = []
    while not codes or codes[-1] != 0:
        assert len(codes) < 12
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), killed.store, str(7 + len(codes))],
            cwd=killed.folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        codes.append(done.returncode)
    assert codes.count(-signal.SIGKILL) >= 2
    results = open_study("toy", store=killed.store)
    assert decisions([row.trial for row in results.rows()]) == decisions(wanted)
    assert replay("toy", store=killed.store).differences == ()

    # Another study of the same search, answered from the stage cache.
    monkeypatch.chdir(killed.folder)
    again = run(path, name="again", store=killed.store)
    assert decisions([row.trial for row in again.rows()]) == decisions(wanted)
    trained = [
        stage
        for row in again.rows()
        for stage in row.trial.stages
        if stage.epochs and not stage.cached
    ]
    assert trained == []
    # More trials of the study that nobody killed and of the one that somebody did.
    more = [resume("toy", store=place.store, trials=11).rows() for place in (quiet, killed)]
    assert decisions([r.trial for r in more[0]]) == decisions([r.trial for r in more[1]])
