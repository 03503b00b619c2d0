"""What is shown while a study runs: trainings, timings that were disturbed, notices."""

from __future__ import annotations

import subprocess
import sys

import pytest
from doubles import new_study
from reported import complete, stored
from rich.console import Console

from search.cli import live
from search.goals import Goals
from search.jobs import Epoch
from search.report import trials_view
from search.results import Row
from storage import Measurement, Store, Trial


@pytest.fixture
def study():
    return new_study(Store("sqlite://"))


def drawn(observer):
    with observer.out.capture() as captured:
        observer.out.print(observer.table())
    return captured.get()


def test_the_table_tells_how_far_a_training_is(study):
    observer = live.LiveTable(Console(width=100, file=None), "sqlite://")
    live.Progress.started(observer, study, [])
    observer.proposed(12, {})
    observer.epoch_ended(12, Epoch(3, 6, 0.91))
    assert "trial 12 for 0 s, epoch 3/6, accuracy 0.9100" in drawn(observer)
    observer.epoch_ended(12, Epoch(4, 6))
    assert "trial 12 for 0 s, epoch 4/6  " in drawn(observer)


def test_lines_tell_an_epoch_only_where_nothing_was_said_for_long(study, capsys, monkeypatch):
    observer = live.LogLines(Console(), "sqlite://")
    observer.started(study, [])
    observer.epoch_ended(12, Epoch(1, 6, 0.5))
    assert "epoch" not in capsys.readouterr().out
    monkeypatch.setattr(live, "QUIET_S", 0.0)
    observer.epoch_ended(12, Epoch(2, 6, 0.75))
    assert capsys.readouterr().out.endswith(" trial 12: epoch 2/6, accuracy 0.7500\n")


def test_a_timing_that_was_disturbed_is_marked(study, tmp_path, capsys):
    observer = live.LogLines(Console(), "sqlite://")
    observer.started(study, [])
    ratio = Measurement("latency_ratio", 0.5, noisy=True)
    drop = Measurement("accuracy_drop", 0.1)
    shown = (Measurement("accuracy", 0.8), Measurement("size_bytes", 10.0), ratio, drop)
    candidate = {"prune.level": 1, "quantize.scheme": "none"}
    trial = Trial(1, "complete", candidate, measurements=shown, finished_at=1.0)
    observer.goals = Goals({"accuracy": "maximize", "latency_ratio": "minimize"}, ())
    observer.ended(trial)
    assert "accuracy 0.8000, latency_ratio 0.5000 noisy;" in capsys.readouterr().out
    results = stored(tmp_path, [complete(0.9, 1000)], objectives={"latency_ratio": "minimize"})
    observer.out.print(trials_view(results, [Row(trial, {}, {}, False)], width=160))
    assert " 0.5000 noisy " in capsys.readouterr().out


def test_notices_come_on_standard_error():
    program = (
        "import logging\n"
        "from search.cli import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "except SystemExit:\n"
        "    logging.getLogger('naslite.compressors').info('told')\n"
        "    logging.getLogger('others').info('not told')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "told\n"


def test_check_says_when_a_training_will_be_given_up(naslite, workspace):
    _, out, _ = naslite("check", workspace.config(stop="median"))
    assert "stop: median (warmup_epochs=1, min_trials=4)\n" in out
    _, out, _ = naslite("check", workspace.config())
    assert "stop:" not in out
