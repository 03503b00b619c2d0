"""How a running study is shown while a trial trains."""

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
