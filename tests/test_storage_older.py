"""Databases that earlier versions wrote: they are read, replayed and continued."""

from __future__ import annotations

import shutil

import pytest
from conftest import ASSETS
from doubles import control

from search.replay import replay
from storage import Store
from storage.lease import new_owner


@pytest.fixture(params=sorted(path.name for path in ASSETS.glob("schema_*.db")))
def url(request, tmp_path) -> str:
    shutil.copy(ASSETS / request.param, tmp_path / "old.db")
    return f"sqlite:///{tmp_path / 'old.db'}"


def test_an_older_study_replays(url):
    replayed = replay("s", store=url)
    assert (replayed.proposals, replayed.differences) == (6, ())


def test_an_older_study_goes_on_as_it_would_have(url):
    store, owner = Store(url), new_owner()
    before = store.trials(store.study("s"))
    store.claim(store.study("s"), owner)
    store.set_budget(store.study("s"), owner, 9, None)
    store.release(store.study("s"), owner, "interrupted")
    after = control(store)
    assert after[:7] == before
    assert len(after) == 10
    assert len(replay("s", store=url).differences) == 0
