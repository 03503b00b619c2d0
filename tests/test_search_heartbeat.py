"""The lease of a study is renewed in time, and its end waits for nobody."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from children import until

from search.heartbeat import heartbeat
from storage import Store
from storage.lease import new_owner
from storage.retrying import HURRIED_S
from storage.testing import new_study


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'naslite.db'}")
    yield store
    store.close()


def test_a_short_lease_is_renewed_before_it_runs_out(store, monkeypatch):
    monkeypatch.setattr("storage.lease.LEASE_S", 2.0)
    owner = new_owner()
    study = store.create_study(new_study("s"), owner)
    ends = [study.lease_until]
    with heartbeat(store, study, owner):
        while len(ends) < 4:
            until(lambda: store.study("s").lease_until > ends[-1])
            ends.append(store.study("s").lease_until)
            assert store.is_live(store.study("s"))
    assert all(after - before < 2.0 for before, after in itertools.pairwise(ends))
    last = store.study("s").lease_until
    time.sleep(0.8)
    assert store.study("s").lease_until == last, "nothing is renewed after the block"


def test_a_renewal_that_waits_does_not_keep_the_block(store, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr("storage.lease.LEASE_S", 0.4)
    owner = new_owner()
    study = store.create_study(new_study("s"), owner)
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as other:
        with heartbeat(store, study, owner):
            other.execute("BEGIN IMMEDIATE")
            until(lambda: "trying again" in caplog.text)
            began = time.monotonic()
        assert time.monotonic() - began < HURRIED_S + 1
        other.rollback()
    store.release(study, owner, "interrupted")
    assert store.study("s").owner == ""
