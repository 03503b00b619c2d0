"""The part of the store contract that is about faults: each event once, whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from .errors import StoreError
from .lease import new_owner
from .records import Known, Outcome, Study
from .store import Store
from .testing_samples import CANDIDATE, COMPLETE, dead_owner, new_study, stored_artifact

Step = Callable[[], object]


class Crash(Exception):
    """Stands for the death of the process in the middle of an event."""


class EventContract:
    """An event is committed once and whole, whatever fails around it."""

    def test_the_points_of_an_event_are_told_in_order(self, store: Store, tmp_path: Path) -> None:
        told: list[str] = []
        for step in script(store, tmp_path):
            store.faults = told.append
            step()
            store.faults = None
            name = told[0].split("/")[0]
            count = len(told) - 2
            assert count >= 1
            assert told == [
                *(f"{name}/{number}" for number in range(1, count + 1)),
                f"{name}/commit",
                f"{name}/committed",
            ]
            told.clear()

    def test_a_crash_at_any_point_leaves_all_or_nothing(
        self, store: Store, tmp_path: Path
    ) -> None:
        crashes = 0
        for step in script(store, tmp_path):
            before = seen(store)
            last = ""
            while not last.endswith("/committed"):
                last = crash_after(store, last, step)
                crashes += 1
                is_done = last.endswith("/committed") and not last.startswith("renew/")
                assert (seen(store) != before) == is_done, last
        assert crashes > 80

    def test_a_fault_at_any_point_is_waited_for(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr("storage.retrying.FIRST_WAIT_S", 1e-4)
        monkeypatch.setattr("storage.retrying.LONGEST_WAIT_S", 1e-3)
        (tmp_path / "other").mkdir()
        expected = undisturbed(tmp_path / "other")
        failed = set()

        def fail_once(point: str) -> None:
            if point not in failed:
                failed.add(point)
                raise passing_fault()

        for step in script(store, tmp_path):
            store.faults = fail_once
            step()
            store.faults = None
        # After a fault at `committed` the event is tried again though it was done.
        assert seen(store) == expected
        assert len(failed) > 50
        assert "disk I/O error; trying again for up to " in caplog.text

    def test_a_study_is_removed_over_faults(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("storage.retrying.FIRST_WAIT_S", 1e-4)
        study, artifact = _ended_study(store, tmp_path)
        failed: list[str] = []

        def fail_once(point: str) -> None:
            if point not in failed:
                failed.append(point)
                raise passing_fault()

        store.faults = fail_once
        assert store.remove("s") == [artifact]
        assert store.studies() == []
        assert not store.artifacts.exists(artifact)
        assert store.trials(study) == []
        assert {"remove/1", "remove/committed", "remove_artifacts/1"} < set(failed)
        assert "remove_artifacts/committed" in failed

    def test_a_removal_that_crashed_leaves_no_row_without_its_files(
        self, store: Store, tmp_path: Path
    ) -> None:
        study, artifact = _ended_study(store, tmp_path)
        kept, last = store.trials(study), ""
        while last != "remove/committed":
            assert store.trials(study) == kept, last
            assert store.artifacts.exists(artifact)
            last = crash_after(store, last, lambda: store.remove("s"))

        assert store.studies() == []
        assert store.used_artifacts() == frozenset()
        assert store.remove_artifacts([artifact]) == [artifact]
        assert not store.artifacts.exists(artifact)

    def test_a_fault_that_stays_is_an_error_in_the_end(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        before, calls = seen(store), []

        def fail(point: str) -> None:
            calls.append(point)
            raise passing_fault()

        monkeypatch.setattr(store._transactions, "retry_s", 0.2)
        store.faults = fail
        with pytest.raises(
            StoreError, match=r"failed for \d+(\.\d+)? s: disk I/O error.*resume NAME"
        ):
            store.propose(study, owner, 1, CANDIDATE, "key")
        store.faults = None
        assert seen(store) == before
        assert set(calls) == {"propose/1"}
        assert len(calls) > 1  # tried again

    def test_a_fault_that_cannot_pass_is_an_error_at_once(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        calls = []

        def fail(point: str) -> None:
            calls.append(point)
            error = sqlite3.OperationalError("no such table: trials")
            raise OperationalError("INSERT", {}, error)

        store.faults = fail
        with pytest.raises(StoreError, match="failed: no such table: trials"):
            store.propose(study, owner, 1, CANDIDATE, "key")
        assert calls == ["propose/1"]


def _ended_study(store: Store, folder: Path) -> tuple[Study, str]:
    """A study whose controller is gone, and the SHA-256 of its artifact."""
    owner, artifact = dead_owner(), stored_artifact(store, folder)
    study = store.create_study(new_study("s"), owner)
    store.propose(study, owner, 0, CANDIDATE, "key")
    store.finish(study, owner, 0, replace(COMPLETE, artifact=artifact))
    return study, artifact.sha256


def passing_fault() -> OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return OperationalError("COMMIT", {}, error)


def crash_after(store: Store, last: str, step: Step) -> str:
    """Take a step that crashes at the point after `last`, or its first; returns the point."""
    reached = ""

    def crash(point: str) -> None:
        nonlocal reached
        if reached == last:
            reached = point
            raise Crash
        reached = point

    store.faults = crash
    try:
        with pytest.raises(Crash):
            step()
    finally:
        store.faults = None
    return reached


def undisturbed(folder: Path) -> dict[str, Any]:
    """What a store says in which the script was played without faults."""
    store = Store("sqlite://", files=folder / "files")
    for step in script(store, folder):
        step()
    found = seen(store)
    store.close()
    return found


def script(store: Store, folder: Path) -> Iterator[Step]:
    """Every event at least once; each step is one, to be taken before the next is asked for."""
    first, second = new_owner(), new_owner()
    artifact = stored_artifact(store, folder)
    complete = replace(COMPLETE, artifact=artifact)
    known = [
        Known("k", replace(complete, reused_from=4, reused_study="before")),
        Known("l", Outcome("refused", "why", reused_from=5, reused_study="before")),
    ]
    yield lambda: store.create_study(new_study("s"), first, known)
    study = store.study("s")
    memo = {"memo": {"a": 1}, "study_memo": {"b": 2}}
    yield lambda: store.propose(study, first, 0, CANDIDATE, "c", origin="baseline", **memo)
    yield lambda: store.renew(study, first)
    yield lambda: store.add_session(study, first, 1, {"cpu": "x"})
    yield lambda: store.update_session(study, first, {"cpu": "x", "controls": [{"ratio": 1.0}]})
    yield lambda: store.finish(study, first, 0, complete, spent=1.5)
    yield lambda: store.add_request(study, "extend", {"trials": 9})
    yield lambda: store.add_request(study, "enqueue", {"candidates": [CANDIDATE]})
    yield lambda: store.add_request(study, "stop")
    extend, enqueue, stop = store.requests(study)
    yield lambda: store.extend(study, first, extend, 9, None, 1)
    rows = [(1, CANDIDATE, "d", "enqueued"), (2, {}, "e", "continued")]
    yield lambda: store.enqueue(study, first, enqueue, rows)
    yield lambda: store.propose(study, first, 3, CANDIDATE, "f", study_memo={"b": 3})
    yield lambda: store.restart(study, first, 3, died=True)
    yield lambda: store.restart(study, first, 1)
    yield lambda: store.finish(study, first, 1, Outcome("failed", "why", seconds=0.25))
    yield lambda: store.set_budget(study, first, 12, 3.5, 4)
    yield lambda: store.handle_request(study, first, stop, 4)
    yield lambda: store.release(study, first, "stopped", "stopped on request")
    yield lambda: store.claim(study, second)
    yield lambda: store.restart(study, second, 3)
    yield lambda: store.finish(study, second, 3, replace(complete, reused_from=0))
    yield lambda: store.release(study, second, "finished")


def seen(store: Store) -> dict[str, Any]:
    """All that a store says, but for times, tokens and ids."""
    return {
        summary.study.name: (
            _timeless(summary.study, "id", "owner"),
            summary.counts,
            [_timeless(trial) for trial in store.trials(summary.study)],
            store.known(summary.study),
            [(request.kind, request.payload) for request in store.requests(summary.study)],
            store.extensions(summary.study),
            [_timeless(session) for session in store.sessions(summary.study)],
        )
        for summary in store.studies()
    }


def _timeless(record: Any, *others: str) -> Any:
    times = "claimed_at", "lease_until", "created_at", "updated_at", "finished_at", "began_at"
    gone = {name: None for name in (*times, *others) if hasattr(record, name)}
    return replace(record, **gone)
