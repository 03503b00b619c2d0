from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from children import child, kill, wait_for
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage import CorruptFiles, eviction
from storage.artifacts import MANIFEST, ContentStore, file_stores
from storage.entries import list_entries, list_leftovers
from storage.eviction import LOCK, removing

KB = 1000


def key(number: int) -> str:
    return f"{number % 256:02x}{number:062x}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file that makes entries of a little more than a kilobyte."""
    path = tmp_path / "state"
    path.write_bytes(b"x" * KB)
    return path


def put(store: ContentStore, source: Path, numbers: Iterable[int]) -> None:
    for number in numbers:
        store.put(key(number), [source])


def used(store: ContentStore, number: int, moment: float) -> None:
    """Say when an entry was used last."""
    os.utime(store.root / key(number)[:2] / key(number) / MANIFEST, (moment, moment))


def kept(store: ContentStore) -> set[int]:
    """The numbers of the entries that are there; all must be whole."""
    found = {int(entry.key[2:], 16) for entry in list_entries(store.root)}
    for number in found:
        store.verified(key(number))
    return found


# The cap


def test_nothing_is_evicted_without_a_cap(tmp_path, source):
    store = ContentStore(tmp_path / "store")
    put(store, source, range(30))

    assert len(kept(store)) == 30


def test_artifacts_have_no_cap(tmp_path, source):
    artifacts, stages = file_stores(tmp_path, stage_bytes=3 * KB)
    put(artifacts, source, range(9))
    put(stages, source, range(9))

    assert len(kept(artifacts)) == 9
    assert stages.total()[1] <= 3 * KB


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_a_cap_must_be_positive(max_bytes, tmp_path):
    with pytest.raises(ValueError, match=f"max_bytes must be positive, got {max_bytes}"):
        ContentStore(tmp_path, max_bytes)


def test_what_was_used_last_is_kept(tmp_path, source):
    plain = ContentStore(tmp_path / "store")
    put(plain, source, range(8))
    for number in range(8):
        used(plain, number, 1000 + number)
    assert plain.get(key(0)) is not None  # now it is the one that was used last
    size = plain.total()[1] // 8
    capped = ContentStore(plain.root, 5 * size)
    put(capped, source, [8])

    assert kept(capped) == {8, 0, 7, 6}  # 90 % of 5
    assert list_leftovers(capped.root) == []


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 5)), min_size=1, max_size=8),
    st.integers(1, 9000),
    st.integers(0, 1500),
)
@example([(0, 0), (1500, 1)], 1000, 0)
def test_the_entries_kept_are_the_most_recently_used_ones_that_fit(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[tuple[int, int]],
    max_bytes: int,
    new_bytes: int,
):
    """Each entry has a size and a moment of use; one more is put then."""
    folder = tmp_path_factory.mktemp("lru")
    plain, source = ContentStore(folder / "store"), folder / "state"
    for number, (size, moment) in enumerate(entries):
        source.write_bytes(b"x" * size)
        put(plain, source, [number])
        used(plain, number, 1e6 + moment)
    source.write_bytes(b"x" * new_bytes)
    new = len(entries)
    sizes = {int(e.key[2:], 16): e.size_bytes for e in list_entries(plain.root)}
    capped = ContentStore(plain.root, max_bytes)
    put(capped, source, [new])
    sizes[new] = capped.total()[1] - sum(
        e.size_bytes for e in list_entries(plain.root) if e.key != key(new)
    )
    left = kept(capped)

    assert new in left, "what was just put is there for its user"
    fitting = [n for n in sizes if sizes[n] <= max_bytes]
    if sum(sizes.values()) <= max_bytes:
        assert left == set(sizes)
        return
    assert left - {new} <= set(fitting), "what is too large went first"
    total = sum(sizes[n] for n in fitting)
    goal = max_bytes if total <= max_bytes else int(max_bytes * 0.9)
    by_use = sorted(fitting, key=lambda n: (n == new, entries[n][1] if n != new else 0, key(n)))
    while by_use and by_use != [new] and sum(sizes[n] for n in by_use) > goal:
        by_use.pop(0)
    assert left - {new} == set(by_use) - {new}


def test_an_entry_larger_than_the_cap_is_there_until_the_next_put(tmp_path, source):
    large = tmp_path / "large"
    large.write_bytes(b"x" * 20 * KB)
    store = ContentStore(tmp_path / "store", 10 * KB)
    put(store, source, range(4))
    put(store, large, [9])
    assert kept(store) == {0, 1, 2, 3, 9}, "no other went for its sake"
    put(store, source, [4])
    assert kept(store) == {0, 1, 2, 3, 4}


def test_the_disk_is_looked_at_once_in_a_while(tmp_path, source, monkeypatch):
    looks = 0

    def counted(root: Path) -> object:
        nonlocal looks
        looks += 1
        return list_entries(root)

    monkeypatch.setattr(eviction, "list_entries", counted)
    store = ContentStore(tmp_path / "store", 110 * KB)
    put(store, source, range(120))

    assert store.total()[1] <= 110 * KB
    assert 10 < looks <= 1 + 120 // 5, "5 % of the cap are five entries"


def test_an_entry_used_after_it_was_looked_at_stays(tmp_path, source, monkeypatch):
    plain = ContentStore(tmp_path / "store")
    put(plain, source, range(4))
    for number in range(4):
        used(plain, number, 1000 + number)

    def overtaken(root: Path) -> object:
        found = list_entries(root)
        plain.get(key(0))
        return found

    monkeypatch.setattr(eviction, "list_entries", overtaken)
    size = plain.total()[1] // 4
    capped = ContentStore(plain.root, 4 * size)
    put(capped, source, [4])

    assert kept(capped) == {0, 3, 4}


def test_a_put_waits_for_nobody_who_evicts(tmp_path, source):
    store = ContentStore(tmp_path / "store", 3 * KB)
    put(store, source, [0, 1])
    with removing(store.root, store.reach):
        put(store, source, [2, 3])
        assert kept(store) == {0, 1, 2, 3}
    put(store, source, [4])

    assert 4 in kept(store)
    assert store.total()[1] <= 3 * KB


def _put_and_get_many(root: str, source: str, seed: int) -> None:
    store = ContentStore(Path(root), 40 * KB)
    for i in range(120):
        number = (i * 7 + seed * 31) % 97
        with store.holding() as holder:
            if holder.get(key(number)) is None:
                holder.put(key(number), [Path(source)], {"number": number})
            folder, facts = holder.verified(key(number))
            assert facts == {"number": number}
            assert (folder / "state").stat().st_size == KB


def test_processes_may_evict_at_once(tmp_path, source, caplog):
    store = ContentStore(tmp_path / "store", 40 * KB)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_put_and_get_many, args=(str(store.root), str(source), seed))
        for seed in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert store.total()[1] <= 40 * KB * (1 + 3 * 0.05)
    put(store, source, [97])
    assert len(kept(store)) > 20
    assert store.total()[1] <= 40 * KB
    assert list_leftovers(store.root) == []
    assert caplog.records == []


# Holding

HOLD = """
import sys
from pathlib import Path
from storage.artifacts import ContentStore

root, how, key, source = sys.argv[1:]
with ContentStore(Path(root)).holding() as holder:
    got = holder.get(key) if how == "get" else holder.put(key, [Path(source)])
    assert got is not None
    print("held", flush=True)
    sys.stdin.readline()
print("let go", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["get", "put"])
@pytest.mark.parametrize("end", ["block", "killed"])
def test_what_another_process_holds_is_not_evicted(how, end, tmp_path, source):
    store = ContentStore(tmp_path / "store", 4 * KB)
    if how == "get":
        put(store, source, [0])
    with child(HOLD, store.root, how, key(0), source) as holder:
        wait_for(holder, "held")
        used(store, 0, 1000)
        put(store, source, range(1, 9))
        assert 0 in kept(store)
        assert not store.remove(key(0))
        assert 0 in kept(store)
        used(store, 0, 1000)
        if end == "killed":
            kill(holder)
        else:
            assert holder.stdin is not None
            holder.stdin.write("\n")
            holder.stdin.flush()
            wait_for(holder, "let go")
        put(store, source, range(9, 13))

    assert 0 not in kept(store)
    assert 12 in kept(store)


@pytest.mark.parametrize("how", ["get", "verified", "put"])
def test_what_is_held_is_not_removed(how, tmp_path, source):
    store = ContentStore(tmp_path / "store")
    put(store, source, [0])
    arguments = (key(0), [source]) if how == "put" else (key(0),)
    with store.holding() as holder:
        getattr(holder, how)(*arguments)
        getattr(holder, how)(*arguments)
        assert not store.remove(key(0))
        assert store.exists(key(0))
    assert store.remove(key(0))
    assert not store.exists(key(0))


def test_the_room_that_holding_took_is_given_back(tmp_path, source):
    store = ContentStore(tmp_path / "store", 3 * KB)
    with store.holding() as holder:
        for number in range(6):
            holder.put(key(number), [source])
        assert kept(store) == set(range(6))
    assert store.total()[1] <= 3 * KB
    assert 5 in kept(store)


def test_an_error_lets_go(tmp_path, source):
    store = ContentStore(tmp_path / "store")
    with pytest.raises(ZeroDivisionError), store.holding() as holder:
        1 / len(holder.put(key(0), [source]).name[:0])

    assert store.remove(key(0))


def test_holding_costs_no_descriptor_once_it_ends(tmp_path, source):
    store = ContentStore(tmp_path / "store")
    before = len(os.listdir("/proc/self/fd"))
    with store.holding() as holder:
        for number in range(5):
            holder.put(key(number), [source])
            holder.get(key(number))
            holder.get(key(99))
        assert len(os.listdir("/proc/self/fd")) == before + 5
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_corrupt_entry_that_is_held_is_replaced_where_it_is(tmp_path, source):
    store = ContentStore(tmp_path / "store")
    with store.holding() as holder:
        folder = holder.put(key(0), [source])
        (folder / "state").write_bytes(b"y" * KB)
        assert store.get(key(0)) is None
        assert folder.exists(), "its holder may still be at work there"
        assert store.put(key(0), [source]) == folder
        assert (folder / "state").read_bytes() == b"x" * KB
    assert list_leftovers(store.root) == []


def test_what_is_being_removed_is_waited_for(tmp_path, source):
    """A reader that opened an entry before it was taken away finds none, or holds the next."""
    code = """
import sys
from pathlib import Path
from storage.artifacts import ContentStore
with ContentStore(Path(sys.argv[1])).holding() as holder:
    print(holder.get(sys.argv[2]) is not None, flush=True)
    sys.stdin.readline()
"""
    store = ContentStore(tmp_path / "store")
    for is_back in (False, True):
        put(store, source, [0])
        folder = store.root / key(0)[:2] / key(0)
        descriptor = os.open(folder / MANIFEST, os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with child(code, store.root, key(0)) as reader:
            _wait_until_blocked(reader.pid)
            folder.rename(store.root / f"old-{is_back}")
            if is_back:
                put(store, source, [0])
            os.close(descriptor)
            wait_for(reader, str(is_back))
            assert store.remove(key(0)) is not is_back


def _wait_until_blocked(pid: int) -> None:
    """Wait until a process waits for a flock."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        locks = Path("/proc/locks").read_text().splitlines()
        if any("-> FLOCK" in line and f" {pid} " in line for line in locks):
            return
        time.sleep(0.01)
    raise AssertionError("it does not wait for the lock")


# File systems and folders that do not do all this


def test_without_flock_recent_use_protects(tmp_path, source, monkeypatch):
    def no_flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_flock)
    store = ContentStore(tmp_path / "store", 3 * KB)
    put(store, source, range(6))
    assert kept(store) == set(range(6))
    for number in range(5):
        used(store, number, time.time() - 3700 - number)
    put(store, source, [6])

    assert kept(store) == {5, 6}
    with store.holding() as holder:
        assert holder.get(key(5)) is not None
        with pytest.raises(CorruptFiles, match="no intact entry"):
            holder.verified(key(0))


def test_a_put_works_where_nothing_can_be_removed(tmp_path, source):
    store = ContentStore(tmp_path / "store")
    put(store, source, range(4))
    (store.root / LOCK).mkdir()  # nobody gets the right to remove anything
    capped = ContentStore(store.root, 3 * KB)
    put(capped, source, [4])

    assert kept(store) == {0, 1, 2, 3, 4}
    assert not capped.remove(key(1))
