"""Deleting an artifact and beginning to use it, at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from databases import needs_postgres, own_postgres

from storage import Artifact, CorruptFiles, Known, Store, Study
from storage.artifacts import ContentStore
from storage.lease import new_owner
from storage.testing import dead_owner, new_study, propose
from storage.testing_samples import COMPLETE, stored_artifact

# How long something is watched that must not happen.
WATCHED_S = 0.3


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def opened(request, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens stores on one address, as so many processes would."""
    stores: list[Store] = []

    def open_one(url: str) -> Store:
        stores.append(Store(url, files=tmp_path / "files"))
        return stores[-1]

    if request.param == "sqlite":
        yield lambda: open_one(f"sqlite:///{tmp_path / 'naslite.db'}")
    else:
        with own_postgres() as url:
            yield lambda: open_one(url)
            for store in stores:
                store.close()
    for store in stores:
        store.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def running_study(store: Store, owner: str, name: str = "s") -> Study:
    study = store.create_study(new_study(name), owner)
    propose(store, study, owner, 0)
    return study


def waits(future: Future[object]) -> bool:
    """Whether it has not ended after a while."""
    ended = threading.Event()
    future.add_done_callback(lambda _: ended.set())
    return not ended.wait(WATCHED_S)


def complete(artifact: Artifact):
    return replace(COMPLETE, artifact=artifact)


def test_an_artifact_whose_use_is_not_committed_yet_is_not_removed(opened, threads, tmp_path):
    user, remover, owner = opened(), opened(), new_owner()
    study, artifact = running_study(user, owner), stored_artifact(user, tmp_path)
    removal: list[Future[object]] = []

    def remove(point: str) -> None:
        if point == "finish/commit":
            removal.append(threads.submit(remover.remove_artifacts, [artifact.sha256]))
            assert waits(removal[0])

    user.faults = remove
    user.finish(study, owner, 0, complete(artifact))
    assert removal[0].result(60) == []
    assert user.artifacts.get(artifact.sha256) is not None
    assert user.trials(study)[0].artifact == artifact


def test_an_artifact_that_is_being_removed_is_not_used(opened, threads, tmp_path, monkeypatch):
    user, remover, owner = opened(), opened(), new_owner()
    study, artifact = running_study(user, owner), stored_artifact(user, tmp_path)
    uses: list[Future[object]] = []

    def use(point: str) -> None:
        if point == "remove/renamed" and not uses:
            uses.append(threads.submit(user.finish, study, owner, 0, complete(artifact)))
            assert waits(uses[0])

    monkeypatch.setattr(ContentStore, "faults", use)
    assert remover.remove_artifacts([artifact.sha256]) == [artifact.sha256]
    with pytest.raises(CorruptFiles):
        uses[0].result(60)
    assert user.trials(study)[0].state == "running"
    assert user.used_artifacts() == frozenset()

    stored_artifact(user, tmp_path)  # built again
    user.finish(study, owner, 0, complete(artifact))
    assert user.trials(study)[0].artifact == artifact


@pytest.mark.parametrize("use", ["finish", "create_study"])
def test_what_is_used_again_between_rows_and_files_stays(opened, use, tmp_path):
    remover, user, owner = opened(), opened(), new_owner()
    artifact, outcome = stored_artifact(user, tmp_path), None
    gone = running_study(remover, dead_owner(), "gone")
    outcome = complete(artifact)
    remover.finish(gone, gone.owner, 0, outcome)
    study = running_study(user, owner)

    def use_again(point: str) -> None:
        if point != "remove/committed":
            return
        assert user.used_artifacts() == frozenset()
        if use == "finish":
            user.finish(study, owner, 0, outcome)
        else:
            user.create_study(new_study("new"), owner, [Known("key", outcome)])

    remover.faults = use_again
    assert remover.remove("gone") == []
    assert user.used_artifacts() == {artifact.sha256}
    assert user.artifacts.get(artifact.sha256) is not None
    assert not user.has_study("gone")


def test_others_write_while_a_study_with_many_artifacts_is_removed(opened, tmp_path):
    """Files go one by one, each in a transaction of its own."""
    remover, user, owner = opened(), opened(), new_owner()
    gone = running_study(remover, dead_owner(), "gone")
    for number in range(1, 6):
        propose(remover, gone, gone.owner, number)
        artifact = stored_artifact(remover, tmp_path, bytes([number]))
        remover.finish(gone, gone.owner, number, complete(artifact))
    study = user.create_study(new_study("s"), owner)
    written: list[int] = []

    def write(point: str) -> None:
        if point == "remove_artifacts/committed":
            propose(user, study, owner, len(written))
            written.append(len(written))

    remover.faults = write
    assert len(remover.remove("gone")) == 5
    assert written == [0, 1, 2, 3, 4]
    assert len(user.trials(study)) == 5


def test_many_finish_and_remove_the_same_artifact(opened, threads, tmp_path):
    """Whoever comes first, no row points to files that are gone."""
    owner, stores = new_owner(), [opened() for _ in range(3)]
    studies = [stores[i].create_study(new_study(f"s{i}"), owner) for i in range(2)]
    artifact = stored_artifact(stores[0], tmp_path)
    files = [tmp_path / "model.onnx", tmp_path / "model.onnx.data"]
    stop = threading.Event()

    def work(position: int) -> int:
        store, study, rebuilt = stores[position], studies[position], 0
        for number in range(15):
            propose(store, study, owner, number)
            while True:
                try:
                    store.finish(study, owner, number, complete(artifact))
                    break
                except CorruptFiles:
                    store.artifacts.put(artifact.sha256, files)
                    rebuilt += 1
            assert store.artifacts.exists(artifact.sha256)
        return rebuilt

    def remove() -> None:
        while not stop.is_set():
            stores[2].remove_artifacts([artifact.sha256])

    remover = threads.submit(remove)
    workers = [threads.submit(work, position) for position in range(2)]
    for worker in workers:
        worker.result(120)
    stop.set()
    remover.result(60)
    assert stores[0].artifacts.get(artifact.sha256) is not None
    for store, study in zip(stores, studies, strict=False):
        assert [t.artifact for t in store.trials(study)] == 15 * [artifact]
