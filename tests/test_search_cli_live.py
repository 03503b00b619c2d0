"""What is shown of trainings: how far one is, and when one will be given up."""

from __future__ import annotations

import pytest
from doubles import new_study
from rich.console import Console

from search.cli import live
from search.jobs import Epoch
from storage import Store


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


def test_check_says_when_a_training_will_be_given_up(naslite, workspace):
    _, out, _ = naslite("check", workspace.config(stop="median"))
    assert "stop: median (warmup_epochs=1, min_trials=4)\n" in out
    _, out, _ = naslite("check", workspace.config())
    assert "stop:" not in out
