"""Puts on disks that are full, read-only or too small, and puts that are killed half-way."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from children import run_to_the_end

from storage import CorruptFiles, Store, StoreError
from storage.artifacts import MANIFEST, ContentStore
from storage.entries import NEW, OLD, list_entries, list_leftovers
from storage.eviction import removing
from storage.lease import new_owner
from storage.testing import new_study

KEY = "ab" + "0" * 62
OTHER = "ab" + "1" * 62
PUT_POINTS = ["put/begin", "put/copied", "put/synced", "put/renamed", "put/end"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "made"
    folder.mkdir()
    contents = {"model.onnx": b"graph", "model.onnx.data": b"w" * 300_000}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def whole(store: ContentStore) -> list[str]:
    """The keys that are there, in order; each entry must be whole."""
    keys = [entry.key for entry in list_entries(store.root)]
    for key in keys:
        store.verified(key)
    return keys


# Full and read-only disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a disk in memory, or mounts it anew with other options; skips where it may not."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options: str) -> Path:
        ended = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder],
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            pytest.skip(f"no disk can be mounted here ({ended.stderr.strip()})")
        return folder

    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True)  # even if a file is open


def test_a_put_on_a_full_disk_raises_and_leaves_nothing(disk, files):
    root = disk("size=800k") / "store"
    store = ContentStore(root)
    store.put(KEY, files)
    store.put(OTHER, files)
    before = os.statvfs(root).f_bfree
    for _ in range(2):
        with pytest.raises(OSError, match="No space left") as caught:
            store.put("cd" + "2" * 62, files)
        assert caught.value.errno == errno.ENOSPC

    assert os.statvfs(root).f_bfree >= before - 1, "but for the folder of its prefix"
    assert list_leftovers(root) == []
    assert whole(store) == [KEY, OTHER]
    assert store.remove(KEY), "entries can be removed from a full disk"
    store.put("cd" + "2" * 62, files)
    assert whole(store) == [OTHER, "cd" + "2" * 62]


def test_a_full_disk_does_not_cost_a_corrupt_entry_its_place(disk, files, tmp_path):
    root = disk("size=500k") / "store"
    store = ContentStore(root)
    folder = store.put(KEY, files)
    (folder / "model.onnx").write_bytes(b"broken")
    with pytest.raises(OSError, match="No space left"):
        store.put(KEY, files)
    assert list_leftovers(root) == []
    assert store.get(KEY) is None, "it is dropped by the read, and there is room for it"
    assert store.put(KEY, files) == folder


def test_a_corrupt_entry_that_cannot_be_taken_away_is_an_error(disk, files):
    """As in a folder of another user; a mount point cannot be renamed by anybody."""
    store = ContentStore(disk().parent / "store")
    folder = store.put(KEY, files)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    try:
        with pytest.raises(OSError, match="busy") as caught:
            store.put(KEY, files)
        assert caught.value.errno == errno.EBUSY
        assert store.get(KEY) is None
        assert not store.remove(KEY)
    finally:
        subprocess.run(["umount", folder], check=True)
    assert list_leftovers(store.root) == []
    assert whole(store) == [KEY]


@pytest.mark.parametrize("killed", [False, True])
def test_a_store_on_a_read_only_disk_can_be_read(disk, tmp_path, killed):
    """Also one whose writer was killed, so that the latest commits are in its journal."""
    path = disk("size=8m") / "a folder" / "naslite.db"
    path.parent.mkdir()
    url = f"sqlite:///{path}"
    writer = Store(url)
    owner = new_owner()
    study = writer.create_study(new_study("s"), owner)
    writer.propose(study, owner, 0, {}, "key")
    if not killed:
        writer.close()
    assert path.with_name("naslite.db-wal").exists() == killed
    disk("remount", "ro")
    with closing(Store(url, create=False)) as reader:
        assert [trial.number for trial in reader.trials(reader.study("s"))] == [0]
        with pytest.raises(StoreError, match="readonly database"):
            reader.propose(study, owner, 1, {}, "key")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(url)
    disk("remount", "rw")
    writer.close()


def test_a_read_only_disk_can_be_read(disk, files, caplog):
    root = disk("size=2m") / "store"
    plain = ContentStore(root)
    folder = plain.put(KEY, files)
    plain.put(OTHER, files)
    (root / OTHER[:2] / OTHER / "model.onnx").write_bytes(b"bytes")
    disk("remount", "ro")
    for store in (plain, ContentStore(root, 1000)):
        with store.holding() as holder:
            assert holder.get(KEY) == (folder, {})
            assert holder.put(KEY, files) == folder
        assert store.get(OTHER) is None
        assert store.exists(OTHER)
        with pytest.raises(CorruptFiles, match=r"model\.onnx differs"):
            store.verified(OTHER)
        for key in (OTHER, "cd" + "2" * 62):
            with pytest.raises(OSError, match="Read-only") as caught:
                store.put(key, files)
            assert caught.value.errno == errno.EROFS
        assert not store.remove(KEY)
        assert store.total()[0] == 2
    assert "entry ab1111111111 is corrupt" in caplog.text


def test_a_file_in_the_place_of_the_folder_is_an_error(tmp_path, files):
    (tmp_path / "file").write_bytes(b"not a folder")
    store = ContentStore(tmp_path / "file" / "store")
    with pytest.raises(FileExistsError, match="file"):
        store.put(KEY, files)

    assert store.get(KEY) is None
    assert not store.exists(KEY)
    assert store.total() == (0, 0)
    assert (tmp_path / "file").read_bytes() == b"not a folder"


LIMITED = """
import errno, resource, signal, sys
from pathlib import Path
from storage.artifacts import ContentStore

root, key, *files = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    ContentStore(Path(root)).put(key, [Path(file) for file in files])
except OSError as error:
    assert error.errno == errno.EFBIG, error
else:
    raise AssertionError("300,000 bytes were written")
"""


def test_a_file_that_grows_past_a_limit_leaves_nothing(tmp_path, files):
    store = ContentStore(tmp_path / "store")
    assert run_to_the_end(LIMITED, store.root, KEY, *files) == 0

    assert list_leftovers(store.root) == []
    assert whole(store) == []


# Killed


DIE = """
import os, signal, sys
from pathlib import Path
from storage.artifacts import ContentStore

point, root, max_bytes, key, *files = sys.argv[1:]

def die(reached):
    if reached == point:
        os.kill(os.getpid(), signal.SIGKILL)

ContentStore.faults = die
store = ContentStore(Path(root), int(max_bytes) or None)
if point == "remove":
    store.remove(key)
else:
    store.put(key, [Path(file) for file in files], {"by": "the killed"})
"""


def test_every_point_of_a_put_is_reached_in_order(tmp_path, files):
    seen: list[str] = []
    store = ContentStore(tmp_path / "store")
    with told(seen.append):
        store.put(KEY, files)
        assert seen == PUT_POINTS
        seen.clear()
        store.put(KEY, files)
        assert seen == ["put/begin"], "it was there"
        seen.clear()
        store.remove(KEY)
        assert seen == ["remove/renamed"]
    store.put(KEY, files)
    assert len(seen) == 1


@contextmanager
def told(faults: Callable[[str], None]) -> Iterator[None]:
    ContentStore.faults = faults
    try:
        yield
    finally:
        ContentStore.faults = None


@pytest.mark.parametrize("point", PUT_POINTS)
def test_a_put_that_is_killed_is_whole_or_not_there(point, tmp_path, files):
    store = ContentStore(tmp_path / "store")
    store.put(OTHER, files)
    assert run_to_the_end(DIE, point, store.root, 0, KEY, *files) == -9

    is_there = point in ("put/renamed", "put/end")
    assert whole(store) == [KEY, OTHER] if is_there else [OTHER]
    left = list_leftovers(store.root)
    assert len(left) == (point in ("put/copied", "put/synced"))
    with told(lambda reached: None):
        folder = store.put(KEY, files, {"by": "the next"})
    by = "the killed" if is_there else "the next"
    assert store.get(KEY) == (folder, {"by": by})
    with removing(store.root, store.reach) as removal:
        assert all(removal.take_leftover(folder) for folder in left)
    assert list_leftovers(store.root) == []
    assert whole(store) == [KEY, OTHER]


def test_an_eviction_that_is_killed_leaves_no_half_entry(tmp_path, files):
    store = ContentStore(tmp_path / "store")
    store.put(OTHER, files)
    os.utime(store.root / OTHER[:2] / OTHER / MANIFEST, (1000, 1000))
    assert run_to_the_end(DIE, "remove/renamed", store.root, 400_000, KEY, *files) == -9

    assert whole(store) == [KEY]
    (left,) = list_leftovers(store.root)
    assert left.name.startswith(OLD)
    capped = ContentStore(store.root, 400_000)
    capped.put(OTHER, files)
    assert whole(capped) == [OTHER]
    assert list_leftovers(store.root) == [], "an eviction deletes what another could not"


def test_a_put_that_is_under_way_is_no_leftover(tmp_path, files):
    """Not even at its first moment, when nothing holds its folder yet."""
    store = ContentStore(tmp_path / "store")
    taken: list[bool] = []

    def collect(point: str) -> None:
        if point in ("put/copied", "put/synced"):
            (folder,) = list_leftovers(store.root)
            with removing(store.root, store.reach) as removal:
                taken.append(removal.take_leftover(folder))

    with told(collect):
        store.put(KEY, files)
    assert taken == [False, False]
    assert whole(store) == [KEY]

    first = store.root / f"{NEW}first"
    first.mkdir()
    with removing(store.root, store.reach) as removal:
        assert not removal.take_leftover(first)
        os.utime(first, (1000, 1000))
        assert removal.take_leftover(first)
    assert not first.exists()
