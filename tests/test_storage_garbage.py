from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from children import child, kill, run_to_the_end, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.engine import make_url

from storage import (
    Artifact,
    CorruptFiles,
    Known,
    Outcome,
    StageRun,
    Store,
    StoreError,
    Study,
    schema,
)
from storage.artifacts import MANIFEST, ContentStore, describe_artifact
from storage.database import parse_url
from storage.entries import entry_folder, list_entries, list_leftovers, size_of
from storage.garbage import Amount, Garbage, collect
from storage.lease import new_owner
from storage.testing_samples import dead_owner, new_study, propose
from storage.writing import ensure_artifacts

POSTGRES = os.environ.get("NASLITE_TEST_POSTGRES", "")
HOUR = 3600.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A database of our own."""
    if not POSTGRES:
        pytest.skip("NASLITE_TEST_POSTGRES=postgresql://... names no server to test on")
    admin = create_engine(parse_url(POSTGRES), isolation_level="AUTOCOMMIT")
    name = f"naslite_garbage_{os.getpid()}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        store = Store(f"sqlite:///{tmp_path / 'naslite.db'}", files=tmp_path / "files")
    else:
        store = Store(request.getfixturevalue("postgres"), files=tmp_path / "files")
    yield store
    with store._transactions.engine.begin() as connection:
        for table in ("studies", "artifacts"):  # the rest goes with its study
            connection.execute(text(f"DELETE FROM {table}"))
    store.close()


class Bench:
    """Makes what a store holds: files of any age, and the rows that need them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.owner = new_owner()
        self.number = 0

    def study(self, name: str = "s", known: tuple[Known, ...] = ()) -> Study:
        return self.store.create_study(new_study(name), self.owner, known)

    def artifact(self, name: str, *, age_s: float = 2 * HOUR) -> Artifact:
        path = self.folder / "model.onnx"
        path.write_text(name * 100)
        artifact = describe_artifact([path], "onnx")
        self.store.artifacts.put(artifact.sha256, [path])
        grow_old(self.store.artifacts, artifact.sha256, age_s)
        return artifact

    def stage(self, key: str, *, age_s: float = 2 * HOUR) -> str:
        path = self.folder / "state"
        path.write_text(key)
        self.store.stages.put(key * 32, [path])
        grow_old(self.store.stages, key * 32, age_s)
        return key * 32

    def trial(self, study: Study, artifact: Artifact | None, stages: list[str]) -> int:
        """A complete trial."""
        self.number += 1
        propose(self.store, study, self.owner, self.number)
        self.store.finish(study, self.owner, self.number, complete(artifact, stages))
        return self.number

    def set(self, study: Study, **values: Any) -> None:
        """Change a study's row."""
        with self.store._transactions.engine.begin() as connection:
            table = schema.studies
            connection.execute(update(table).where(table.c.id == study.id).values(**values))

    def row(self, artifact: Artifact) -> None:
        """A row that nothing points to."""
        with self.store._transactions.engine.begin() as connection:
            ensure_artifacts(connection, [artifact])


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Bench:
    return Bench(store, tmp_path)


def complete(artifact: Artifact | None, stages: list[str]) -> Outcome:
    runs = tuple(StageRun("pruning", key, {}, 0.1, False) for key in stages)
    return Outcome("complete", stages=runs, artifact=artifact, seconds=0.1)


def grow_old(files: ContentStore, key: str, age_s: float) -> None:
    moment = time.time() - age_s
    os.utime(entry_folder(files.root, key) / MANIFEST, (moment, moment))


def keys(files: ContentStore) -> set[str]:
    """What is there; each entry must be whole (and reading makes none younger)."""
    found = {entry.key: entry.used_at for entry in list_entries(files.root)}
    for key, used_at in found.items():
        files.verified(key)
        os.utime(entry_folder(files.root, key) / MANIFEST, (used_at, used_at))
    return set(found)


def rows(store: Store) -> set[str]:
    with store._transactions.engine.connect() as connection:
        return set(connection.scalars(select(schema.artifacts.c.sha256)))


def tree(folder: Path) -> list[tuple[str, int, int]]:
    """Every file and folder, with its size and when it was changed."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return [(str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in paths]


def amount(files: ContentStore, *removed: str) -> Amount:
    return Amount(len(removed), sum(size_of(entry_folder(files.root, key)) for key in removed))


# What goes and what stays


def test_what_no_row_needs_goes_and_the_rest_stays(store, bench, tmp_path):
    fact = Known("c" * 64, complete(bench.artifact("known"), [bench.stage("a1")]))
    study = bench.study(known=(fact,))
    needed = bench.artifact("needed")
    bench.trial(study, needed, [bench.stage("a2"), bench.stage("a3")])
    store.release(study, bench.owner, "stopped")
    bench.row(bench.artifact("with a row"))
    gone = [bench.artifact("with a row").sha256, bench.artifact("without").sha256]
    old = [bench.stage("b1"), bench.stage("b2"), bench.stage("b3")]
    killed = store.stages.root / "new-killed"
    killed.mkdir()
    (killed / MANIFEST).write_bytes(b"")
    (killed / "state").write_bytes(b"x" * 50)
    (store.artifacts.root / "old-killed").mkdir()
    (store.artifacts.root / "old-killed" / "model.onnx").write_bytes(b"x" * 70)
    (store.stages.root / "notes.txt").write_text("not ours")

    kept = [*needed_sizes(store, fact, needed), *stage_sizes(store, "a1", "a2", "a3")]
    expected = Garbage(
        artifacts=amount(store.artifacts, *gone),
        stages=amount(store.stages, *old),
        leftovers=Amount(2, 120),
        rows=1,
        in_use=Amount(),
        kept=Amount(5, sum(kept)),
    )
    before = tree(tmp_path / "files"), rows(store)
    assert collect(store, dry_run=True) == expected
    assert (tree(tmp_path / "files"), rows(store)) == before
    assert collect(store) == expected

    assert keys(store.artifacts) == {fact.outcome.artifact.sha256, needed.sha256} == rows(store)
    assert keys(store.stages) == {"a1" * 32, "a2" * 32, "a3" * 32}
    assert list_leftovers(store.artifacts.root) == list_leftovers(store.stages.root) == []
    assert (store.stages.root / "notes.txt").exists()
    assert collect(store) == replace(
        expected, artifacts=Amount(), stages=Amount(), leftovers=Amount(), rows=0
    )


def needed_sizes(store: Store, fact: Known, needed: Artifact) -> list[int]:
    assert fact.outcome.artifact is not None
    both = (fact.outcome.artifact.sha256, needed.sha256)
    return [size_of(entry_folder(store.artifacts.root, key)) for key in both]


def stage_sizes(store: Store, *short: str) -> list[int]:
    return [size_of(entry_folder(store.stages.root, key * 32)) for key in short]


def test_an_empty_store_has_no_garbage_and_gets_no_folder(store, tmp_path):
    nothing = Garbage(Amount(), Amount(), Amount(), 0, Amount(), Amount())
    assert collect(store) == nothing
    assert not (tmp_path / "files").exists()


def test_the_files_of_a_removed_study_go(store, bench):
    for name in ("keep", "drop"):
        study = bench.study(name)
        bench.trial(study, bench.artifact(name), [bench.stage("aa"), bench.stage(f"{len(name)}b")])
        bench.trial(study, bench.artifact("shared"), [bench.stage("aa")])
        store.release(study, bench.owner, "stopped")
    bench.set(store.study("drop"), owner=dead_owner())
    store.remove("drop")
    for key in keys(store.stages):
        grow_old(store.stages, key, 2 * HOUR)
    collect(store)

    kept = {t.artifact.sha256 for t in store.trials(store.study("keep"))}
    assert keys(store.artifacts) == kept == rows(store)
    assert keys(store.stages) == {"aa" * 32, "4b" * 32}


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_exactly_the_old_ones_without_a_user_go(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    folder = tmp_path_factory.mktemp("store")
    store = Store(f"sqlite:///{folder / 'naslite.db'}")
    bench = Bench(store, folder)
    ages = st.sampled_from([0.0, 0.5 * HOUR, 1.5 * HOUR, 100 * HOUR])
    users = st.sampled_from(["trial", "known", "row", "none"])
    drawn = data.draw(st.lists(st.tuples(ages, users, ages, users), max_size=6))
    artifacts = {bench.artifact(str(i), age_s=one[0]): one for i, one in enumerate(drawn)}
    stages = {bench.stage(f"{i:02x}", age_s=one[2]): one for i, one in enumerate(drawn)}
    facts = [
        Known(
            f"{i:064x}",
            complete(
                artifact if one[1] == "known" else None, [stage] if one[3] == "known" else []
            ),
        )
        for i, (artifact, stage, one) in enumerate(zip(artifacts, stages, drawn, strict=True))
    ]
    study = bench.study(known=tuple(facts))
    for artifact, stage, one in zip(artifacts, stages, drawn, strict=True):
        its = artifact if one[1] == "trial" else None
        bench.trial(study, its, [stage] if one[3] == "trial" else [])
        if one[1] == "row":
            bench.row(artifact)
    store.release(study, bench.owner, "stopped")
    found = collect(store)

    needed = {"trial", "known"}
    assert keys(store.artifacts) == {
        a.sha256 for a, one in artifacts.items() if one[1] in needed or one[0] < HOUR
    }
    assert keys(store.stages) == {
        key for key, one in stages.items() if one[3] in needed or one[2] < HOUR
    }
    assert rows(store) == {a.sha256 for a, one in artifacts.items() if one[1] in needed}
    assert found.kept.count == sum((o[1] in needed) + (o[3] in needed) for o in drawn)
    total = found.artifacts.count + found.stages.count + found.in_use.count + found.kept.count
    assert total == 2 * len(drawn)
    store.close()


# Beside controllers


def test_what_is_young_stays(store, bench):
    young = [bench.artifact("young", age_s=0.9 * HOUR), bench.artifact("old", age_s=1.1 * HOUR)]
    stage = bench.stage("aa", age_s=0.0)
    found = collect(store)

    assert keys(store.artifacts) == {young[0].sha256}
    assert keys(store.stages) == {stage}
    assert found.in_use.count == 2
    assert collect(store, margin_s=-1).in_use == Amount()
    assert keys(store.artifacts) == keys(store.stages) == set()


def test_what_was_made_since_a_live_controller_began_stays(store, bench):
    study = bench.study()
    bench.set(study, claimed_at=time.time() - 5 * HOUR)
    early, late = (bench.artifact(f"{age}", age_s=age * HOUR) for age in (6.5, 5.5))
    bench.stage("aa", age_s=6.5 * HOUR)
    bench.stage("bb", age_s=0.5 * HOUR)
    found = collect(store)
    assert keys(store.artifacts) == {late.sha256}
    assert keys(store.stages) == {"bb" * 32}
    assert (found.artifacts.count, found.stages.count, found.in_use.count) == (1, 1, 2)
    assert early.sha256 not in keys(store.artifacts)

    store.release(study, bench.owner, "stopped")
    grow_old(store.stages, "bb" * 32, 1.1 * HOUR)
    collect(store)
    assert keys(store.artifacts) == keys(store.stages) == set()


@pytest.mark.parametrize(
    ("owner", "lease_age_s", "is_live"),
    [
        ("ours", -30.0, True),
        ("ours", 0.9 * HOUR, True),  # paused: its lease has run out
        ("dead", -30.0, False),
        ("elsewhere/1/token", -30.0, True),
        ("elsewhere/1/token", 0.9 * HOUR, True),
        ("elsewhere/1/token", 1.1 * HOUR, False),
    ],
)
def test_controllers_that_may_live_are_spared(owner, lease_age_s, is_live, store, bench):
    study = bench.study()
    now = time.time()
    bench.set(
        study,
        owner={"ours": bench.owner, "dead": dead_owner()}.get(owner, owner),
        claimed_at=now - 3 * HOUR,
        lease_until=now - lease_age_s,
    )
    artifact = bench.artifact("its own", age_s=2 * HOUR)
    bench.stage("aa", age_s=2 * HOUR)
    found = collect(store)

    assert keys(store.artifacts) == ({artifact.sha256} if is_live else set())
    assert found.in_use.count == 2 * is_live
    assert found.artifacts.count + found.stages.count == 2 * (not is_live)


def test_a_trial_that_is_not_finished_yet_can_be(store, bench):
    study = bench.study()
    propose(store, study, bench.owner, 1)
    artifact, stage = bench.artifact("built", age_s=0.0), bench.stage("aa", age_s=0.0)
    found = collect(store)
    assert found.in_use.count == 2
    store.finish(study, bench.owner, 1, complete(artifact, [stage]))
    for files, key in ((store.artifacts, artifact.sha256), (store.stages, stage)):
        grow_old(files, key, 9 * HOUR)
    store.release(study, bench.owner, "stopped")

    assert collect(store).kept.count == 2
    assert keys(store.artifacts) == {artifact.sha256}


def test_an_old_artifact_that_a_worker_puts_again_is_in_use(store, bench, tmp_path):
    artifact = bench.artifact("again", age_s=50 * HOUR)
    study = bench.study()
    propose(store, study, bench.owner, 1)
    store.artifacts.put(artifact.sha256, [tmp_path / "model.onnx"])  # it finds it there
    assert collect(store).in_use.count == 1
    store.finish(study, bench.owner, 1, complete(artifact, []))

    assert keys(store.artifacts) == {artifact.sha256}


HOLD = """
import sys
from pathlib import Path
from storage.artifacts import ContentStore

point, root, key, file = sys.argv[1:]

def wait(reached):
    if reached == point:
        print("there", flush=True)
        sys.stdin.readline()

ContentStore.faults = wait
with ContentStore(Path(root)).holding() as holder:
    holder.put(key, [Path(file)])
    wait("held")
"""


def test_what_a_process_holds_stays_until_it_ends(store, bench, tmp_path):
    bench.stage("aa")
    with child(HOLD, "held", store.stages.root, "aa" * 32, tmp_path / "state") as holder:
        wait_for(holder, "there")
        grow_old(store.stages, "aa" * 32, 9 * HOUR)
        for dry_run in (True, False):
            found = collect(store, dry_run=dry_run)
            assert (found.stages.count, found.in_use.count) == (0, 1)
        assert keys(store.stages) == {"aa" * 32}
        grow_old(store.stages, "aa" * 32, 9 * HOUR)
        kill(holder)

    assert collect(store).stages.count == 1
    assert keys(store.stages) == set()


@pytest.mark.parametrize("point", ["put/copied", "put/synced"])
def test_a_put_under_way_is_a_leftover_once_it_is_killed(point, store, bench, tmp_path):
    bench.stage("bb", age_s=0.0)
    with child(HOLD, point, store.stages.root, "aa" * 32, tmp_path / "state") as holder:
        wait_for(holder, "there")
        for dry_run in (True, False):
            found = collect(store, dry_run=dry_run)
            assert (found.leftovers.count, found.in_use.count) == (0, 2)
        kill(holder)
    assert collect(store, dry_run=True).leftovers.count == 1
    assert len(list_leftovers(store.stages.root)) == 1
    assert collect(store).leftovers.count == 1
    assert list_leftovers(store.stages.root) == []


@pytest.mark.parametrize("is_of_our_name", [False, True])
def test_leftovers_may_be_held_on_another_machine(store, bench, is_of_our_name):
    study, host = bench.study(), new_owner().split("/")[0]
    bench.set(study, owner=f"{host if is_of_our_name else 'elsewhere'}/1/another-place.token")
    folder = store.stages.root / "new-elsewhere"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_bytes(b"")
    assert collect(store).in_use.count == 1
    for path in (folder / MANIFEST, folder):
        os.utime(path, (1000, 1000))
    assert collect(store).leftovers.count == 1
    assert not folder.exists()


# Races and crashes


def test_an_artifact_that_gets_a_row_meanwhile_stays(store, bench):
    """The row comes as late as the collection lets it, which then takes a lock."""
    study, artifact = bench.study(), bench.artifact("late")
    propose(store, study, bench.owner, 1)
    is_sqlite = store._transactions.engine.dialect.name == "sqlite"
    last = "collect_rows/committed" if is_sqlite else "collect_files/1"

    def finish(point: str) -> None:
        if point == last:
            store.faults = None
            store.finish(study, bench.owner, 1, complete(artifact, []))

    store.faults = finish
    found = collect(store, margin_s=-1)

    assert keys(store.artifacts) == {artifact.sha256} == rows(store)
    assert (found.artifacts.count, found.kept.count) == (0, 1)


def test_no_trial_can_begin_to_use_an_artifact_that_is_being_removed(
    store, bench, tmp_path, monkeypatch
):
    study, artifact = bench.study(), bench.artifact("gone")
    propose(store, study, bench.owner, 1)
    other = Store(store.url, files=tmp_path / "files")
    errors: list[Exception] = []

    def finish() -> None:
        try:
            other.finish(study, bench.owner, 1, complete(artifact, []))
        except CorruptFiles as error:
            errors.append(error)

    writer = threading.Thread(target=finish)

    def begin(point: str) -> None:
        if point == "remove/renamed":
            writer.start()
            writer.join(0.3)
            assert writer.is_alive(), "it must wait for the collection"

    monkeypatch.setattr(ContentStore, "faults", staticmethod(begin))
    found = collect(store, margin_s=-1)
    writer.join(60)

    assert found.artifacts.count == 1
    assert len(errors) == 1
    assert store.trials(study)[0].state == "running"
    assert rows(store) == keys(store.artifacts) == set()
    other.close()


COLLECT = """
import os, signal, sys
from pathlib import Path
from storage import Store
from storage.artifacts import ContentStore
from storage.garbage import collect

url, files, die_at = sys.argv[1:]
store, reached = Store(url, files=Path(files)), 0

def count(point):
    global reached
    reached += 1
    if reached == int(die_at):
        os.kill(os.getpid(), signal.SIGKILL)

store.faults = ContentStore.faults = count
collect(store)
assert reached < int(die_at), reached
"""


@pytest.mark.slow
def test_a_collection_can_be_killed_anywhere(store, bench, tmp_path):
    study = bench.study()
    needed = bench.artifact("needed")
    bench.trial(study, needed, [bench.stage("aa")])
    store.release(study, bench.owner, "stopped")
    for point in range(1, 100):
        for name in ("one", "two"):
            bench.row(bench.artifact(name))
        bench.artifact("three")
        bench.stage("bb")
        code = run_to_the_end(COLLECT, store.url, tmp_path / "files", point)
        assert rows(store) <= keys(store.artifacts), "no row points to a file that is gone"
        assert needed.sha256 in rows(store)
        assert "aa" * 32 in keys(store.stages)
        if code == 0:
            break
        assert code == -9
        for files in (store.artifacts, store.stages):
            for key in keys(files):
                grow_old(files, key, 2 * HOUR)
        collect(store)
        assert keys(store.artifacts) == {needed.sha256} == rows(store)
        assert keys(store.stages) == {"aa" * 32}
        assert list_leftovers(store.artifacts.root) == list_leftovers(store.stages.root) == []
    assert point > 8, "it was killed at fewer points than there are"


def test_two_may_collect_at_once(store, bench, tmp_path):
    study = bench.study()
    needed = bench.artifact("needed")
    bench.trial(study, needed, [bench.stage("aa")])
    store.release(study, bench.owner, "stopped")
    for i in range(20):
        bench.artifact(f"no {i}")
        bench.stage(f"{i + 16:02x}")
    arguments = (store.url, tmp_path / "files", 10**6)
    with child(COLLECT, *arguments) as one, child(COLLECT, *arguments) as two:
        one.communicate(timeout=120)
        two.communicate(timeout=120)
        assert (one.returncode, two.returncode) == (0, 0)

    assert keys(store.artifacts) == {needed.sha256}
    assert keys(store.stages) == {"aa" * 32}
    assert list_leftovers(store.artifacts.root) == list_leftovers(store.stages.root) == []


# Refused


def test_a_folder_of_another_store_is_left_alone(store, bench, tmp_path):
    study = bench.study()
    bench.trial(study, bench.artifact("ours"), [])
    store.release(study, bench.owner, "stopped")
    other = Store(f"sqlite:///{tmp_path / 'other.db'}", files=tmp_path / "theirs")
    theirs = Bench(other, tmp_path)
    artifact = theirs.artifact("theirs")
    wrong = Store(store.url, files=tmp_path / "theirs")
    with pytest.raises(
        StoreError, match="theirs/artifacts holds none of the 1 artifacts"
    ) as caught:
        collect(wrong)

    assert "\n" not in str(caught.value)
    assert "NASLITE_FILES" in str(caught.value)
    assert keys(other.artifacts) == {artifact.sha256}
    wrong.close()
    other.close()


def test_a_store_in_memory_is_not_collected(tmp_path):
    store = Store("sqlite://", files=tmp_path / "files")
    artifact = Bench(store, tmp_path).artifact("a")
    with pytest.raises(StoreError, match="a store in memory does not own its files"):
        collect(store)

    assert keys(store.artifacts) == {artifact.sha256}
    store.close()


def test_files_that_cannot_be_removed_are_one_clear_error(store, bench):
    bench.artifact("a")
    (store.artifacts.root / ".lock").mkdir()  # the right to remove anything cannot be had
    with pytest.raises(StoreError, match=r"cannot collect garbage: Is a directory \(.*\.lock\)"):
        collect(store)

    assert len(keys(store.artifacts)) == 1
