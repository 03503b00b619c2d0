from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import resource
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import CorruptFiles, File
from storage.artifacts import MANIFEST, ContentStore, describe_artifact, describe_file
from storage.eviction import LOCK

KEY = "ab" + "0" * 62


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write(tmp_path / "made", {"model.onnx": b"graph", "model.onnx.data": b"weights" * 99})


def write(folder: Path, contents: dict[str, bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in contents]


def leftovers(store: ContentStore) -> list[str]:
    """What lies in the store beside its entries and the lock of who removes some."""
    prefixes = [path for path in store.root.iterdir() if path.is_dir() and len(path.name) == 2]
    return [p.name for p in store.root.iterdir() if p not in prefixes and p.name != LOCK]


# Putting and getting


def test_what_is_put_is_got_back_with_its_facts(store, files):
    facts = {"main": "model.onnx", "kept": [1, 0.5, None, True], "note": "½"}
    folder = store.put(KEY, files, facts)

    assert store.get(KEY) == store.verified(KEY) == (folder, facts)
    assert (folder / "model.onnx").read_bytes() == b"graph"
    assert (folder / "model.onnx.data").read_bytes() == b"weights" * 99
    assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "model.onnx", "model.onnx.data"]
    assert leftovers(store) == []


def test_the_originals_may_change_or_go(store, files):
    store.put(KEY, files)
    files[0].write_bytes(b"changed")
    files[1].unlink()

    folder, facts = store.verified(KEY)
    assert (folder / "model.onnx").read_bytes() == b"graph"
    assert facts == {}


def test_an_entry_may_hold_no_files(store):
    folder = store.put(KEY, [], {"only": "facts"})

    assert store.get(KEY) == (folder, {"only": "facts"})


def test_others_can_read_an_entry(store, files):
    assert store.put(KEY, files).stat().st_mode & 0o777 == 0o755


def test_a_missing_entry_is_none_and_a_store_is_made_when_it_is_needed(store):
    assert store.get(KEY) is None
    with pytest.raises(CorruptFiles, match=f"no intact entry at .*{KEY} .FileNotFoundError."):
        store.verified(KEY)
    assert store.remove(KEY)
    assert store.total() == (0, 0)
    assert not store.exists(KEY)

    assert not store.root.exists()


def test_the_first_content_of_a_key_stays(store, files, tmp_path):
    first = store.put(KEY, files, {"who": "first"})
    second = store.put(KEY, write(tmp_path / "b", {"model.onnx": b"other"}), {"who": "second"})

    assert second == first
    assert store.get(KEY) == (first, {"who": "first"})
    assert (first / "model.onnx").read_bytes() == b"graph"
    assert leftovers(store) == []


def test_entries_are_removed_one_by_one(store, files):
    other = "ab" + "1" * 62
    store.put(KEY, files)
    kept = store.put(other, files[:1])
    assert store.remove(KEY)

    assert store.get(KEY) is None
    assert store.get(other) == (kept, {})
    assert leftovers(store) == []


def test_an_entry_that_was_used_since_is_not_removed(store, files):
    folder = store.put(KEY, files)
    made = (folder / MANIFEST).stat().st_mtime
    assert not store.remove(KEY, unused_since=made - 1)
    assert store.exists(KEY)
    assert store.remove(KEY, unused_since=made)
    assert not store.exists(KEY)


def test_entries_are_counted_with_their_bytes_and_nothing_else_is(store, files):
    folders = [store.put(f"{i:02x}{i:062x}", files) for i in range(3)]
    (store.root / "new-killed").mkdir()
    (store.root / "notes.txt").write_text("not ours")
    (store.root / "00" / "notes.txt").write_text("not ours")
    sizes = [path.stat().st_size for folder in folders for path in folder.iterdir()]

    assert store.total() == (3, sum(sizes))
    assert [store.exists(f"{i:02x}{i:062x}") for i in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("read", ["get", "verified", "put"])
def test_reading_or_putting_again_marks_an_entry_as_used(read, store, files):
    manifest = store.put(KEY, files) / MANIFEST
    os.utime(manifest, (0, 0))
    assert store.exists(KEY)
    assert manifest.stat().st_mtime == 0, "looking whether it is there is no use of it"
    arguments = (KEY, files) if read == "put" else (KEY,)
    getattr(store, read)(*arguments)

    assert manifest.stat().st_mtime > 1e9


def test_a_put_that_fails_half_way_leaves_nothing(store, files):
    files[1].unlink()
    with pytest.raises(FileNotFoundError):
        store.put(KEY, files)

    assert store.get(KEY) is None
    assert leftovers(store) == []
    assert list(store.root.rglob("*.onnx*")) == []


def test_a_put_with_facts_that_are_no_json_leaves_nothing(store, files):
    with pytest.raises(TypeError):
        store.put(KEY, files, {"when": object()})

    assert store.get(KEY) is None
    assert leftovers(store) == []


# Corruption


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_manifest(folder: Path, **changes: object) -> None:
    manifest = {**json.loads((folder / MANIFEST).read_text()), **changes}
    kept = {key: value for key, value in manifest.items() if value is not ...}
    (folder / MANIFEST).write_text(json.dumps(kept))


def empty_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


DAMAGES = {
    "a flipped bit": lambda folder: flip(folder / "model.onnx.data"),
    "a truncated file": lambda folder: os.truncate(folder / "model.onnx.data", 10),
    "an empty file": lambda folder: os.truncate(folder / "model.onnx", 0),
    "a longer file": lambda folder: (folder / "model.onnx").write_bytes(b"graph+"),
    "a missing file": lambda folder: (folder / "model.onnx").unlink(),
    "a folder for a file": lambda folder: (
        (folder / "model.onnx").unlink(),
        (folder / "model.onnx").mkdir(),
    ),
    "an extra file": lambda folder: (folder / "more").write_bytes(b""),
    "an empty folder": empty_folder,
    "a file for the folder": lambda folder: (
        empty_folder(folder),
        folder.rmdir(),
        folder.write_bytes(b"?"),
    ),
    "a folder for the manifest": lambda folder: (
        (folder / MANIFEST).unlink(),
        (folder / MANIFEST).mkdir(),
    ),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "an empty manifest": lambda folder: os.truncate(folder / MANIFEST, 0),
    "a truncated manifest": lambda folder: os.truncate(folder / MANIFEST, 60),
    "a manifest of bytes": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\0"),
    "a manifest that is a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "a manifest without files": lambda folder: edit_manifest(folder, files=...),
    "a manifest without facts": lambda folder: edit_manifest(folder, facts=...),
    "a manifest of nonsense": lambda folder: edit_manifest(folder, files=["model.onnx"]),
    "facts that are a number": lambda folder: edit_manifest(folder, facts=3),
    "other facts": lambda folder: edit_manifest(folder, facts={"main": "model.onnx.data"}),
    "no digest": lambda folder: edit_manifest(folder, sha256=..., sha257="0" * 64),
    "an old manifest of nonsense": lambda folder: edit_manifest(folder, sha256=..., files=3),
    "an old manifest that is not whole": lambda folder: edit_manifest(
        folder, sha256=..., facts=...
    ),
}
damaged = pytest.mark.parametrize("damage", DAMAGES)


@damaged
def test_a_damaged_entry_is_reported(damage, store, files):
    folder = store.put(KEY, files)
    DAMAGES[damage](folder)
    with pytest.raises(CorruptFiles, match=KEY) as caught:
        store.verified(KEY)

    assert "\n" not in str(caught.value)
    assert folder.exists(), "verified only reports"


@damaged
def test_a_damaged_entry_is_logged_dropped_and_can_be_made_again(damage, store, files, caplog):
    folder = store.put(KEY, files)
    DAMAGES[damage](folder)

    assert store.get(KEY) is None
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("naslite.storage", "WARNING")
    assert "\n" not in record.getMessage()
    start = f"entry {KEY[:12]} is corrupt and will be made again: "
    assert record.getMessage().startswith(start)
    assert not folder.exists()
    assert store.put(KEY, files, {"again": True}) == folder
    assert store.get(KEY) == (folder, {"again": True})
    assert len(caplog.records) == 1
    assert leftovers(store) == []


@damaged
def test_a_damaged_entry_is_replaced_by_a_put(damage, store, files, caplog):
    folder = store.put(KEY, files)
    DAMAGES[damage](folder)

    assert store.put(KEY, files, {"again": True}) == folder
    assert store.get(KEY) == (folder, {"again": True})
    assert len(caplog.records) == 1
    assert leftovers(store) == []


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        ("a flipped bit", r"model\.onnx\.data differs from its SHA-256"),
        ("a truncated file", r"model\.onnx\.data has 10 bytes, not 693"),
        ("a longer file", r"model\.onnx has 6 bytes, not 5"),
        ("a missing file", r"model\.onnx is missing"),
        ("a folder for a file", r"model\.onnx is no file"),
        ("an extra file", r"more is not in its manifest"),
        ("other facts", r"entry\.json differs from its SHA-256"),
    ],
)
def test_it_is_said_what_differs(damage, difference, store, files):
    DAMAGES[damage](store.put(KEY, files))
    with pytest.raises(CorruptFiles, match=difference):
        store.verified(KEY)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_flipped_bit_is_overlooked(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    files = write(tmp_path_factory.mktemp("made"), {"model.onnx": b"graph"})
    store = ContentStore(tmp_path_factory.mktemp("store"))
    facts = {"recipes": [["pruning", {"kept": [1, 0.5, True, None]}]], "note": "\u00bd"}
    folder = store.put(KEY, files, facts)
    path = folder / data.draw(st.sampled_from(["model.onnx", MANIFEST]))
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, 8 * len(content) - 1))
    content[where // 8] ^= 1 << where % 8
    path.write_bytes(content)

    found = store.get(KEY)
    # The one flip without effect: the case of a digit in an escape of the manifest's JSON.
    assert found is None or (path.name == MANIFEST and found == (folder, facts))


def test_facts_that_json_writes_differently_are_no_corruption(store, files):
    store.put(KEY, files, {"tuple": (1, 2), "numbers": {10: "a", 9: "b"}, "big": 2**70, "e": 1e-9})

    facts = {"tuple": [1, 2], "numbers": {"10": "a", "9": "b"}, "big": 2**70, "e": 1e-9}
    assert store.verified(KEY)[1] == facts


def test_an_entry_of_the_first_version_is_read(store, files):
    folder = store.put(KEY, files, {"main": "model.onnx"})
    edit_manifest(folder, sha256=...)

    assert store.get(KEY) == (folder, {"main": "model.onnx"})


def test_a_missing_entry_is_not_called_corrupt(store, files, caplog):
    assert store.get(KEY) is None
    store.put("ab" + "1" * 62, files)
    assert store.get(KEY) is None
    store.put(KEY, files)

    assert caplog.records == []


# Entries that cannot be read


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here fails with EIO")
def test_a_failing_disk_is_no_corruption(store, files, caplog):
    folder = store.put(KEY, files)
    intact = (folder / "model.onnx").rename(store.root / "intact")
    (folder / "model.onnx").symlink_to("/proc/self/mem")  # to read its beginning is EIO
    for read in (store.get, store.verified):
        with pytest.raises(OSError, match="Input/output error") as caught:
            read(KEY)
        assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        store.put(KEY, files)
    intact.rename(folder / "model.onnx")

    assert store.get(KEY) == (folder, {})
    assert caplog.records == []


def test_too_many_open_files_are_no_corruption(store, files, caplog):
    folder = store.put(KEY, files)
    taken: list[int] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        for free in range(2):  # to hold the manifest, and then to read it or a file
            for read in (store.get, store.verified):
                with pytest.raises(OSError, match="Too many open files") as caught:
                    read(KEY)
                assert caught.value.errno == errno.EMFILE, free
            os.close(taken.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)

    assert store.get(KEY) == (folder, {})
    assert caplog.records == []


# Many writers


def _put_many(root: str, source: str, rounds: int) -> None:
    store = ContentStore(Path(root))
    for i in range(rounds):
        store.put(f"{i:02x}{i:062x}", [Path(source)], {"i": i})


def check_rounds(store: ContentStore, rounds: int) -> None:
    for i in range(rounds):
        folder, facts = store.verified(f"{i:02x}{i:062x}")
        assert facts == {"i": i}
        assert sorted(p.name for p in folder.iterdir()) == [MANIFEST, "model.onnx.data"]
    assert leftovers(store) == []


def test_threads_may_put_the_same_entries_at_once(store, files):
    errors: list[Exception] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait()
        try:
            _put_many(str(store.root), str(files[1]), 20)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    check_rounds(store, 20)


def test_processes_may_put_the_same_entries_at_once(store, files):
    context = multiprocessing.get_context("spawn")
    arguments = (str(store.root), str(files[1]), 20)
    processes = [context.Process(target=_put_many, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    check_rounds(store, 20)


# Descriptions


def test_a_file_is_described_by_name_size_and_hash(files):
    assert describe_file(files[0]) == File("model.onnx", 5, hashlib.sha256(b"graph").hexdigest())


def test_an_artifact_is_described_by_its_files(files):
    artifact = describe_artifact(reversed(files), "onnx")

    assert artifact.format == "onnx"
    assert artifact.size_bytes == 5 + 7 * 99
    assert artifact.files == (describe_file(files[0]), describe_file(files[1]))
    assert len(artifact.sha256) == 64


def test_the_place_and_the_order_of_files_do_not_matter(tmp_path):
    together = write(tmp_path / "a", {"model.xml": b"graph", "model.bin": b"weights"})
    apart = [
        *write(tmp_path / "b" / "1", {"model.xml": b"graph"}),
        *write(tmp_path / "b" / "2", {"model.bin": b"weights"}),
    ]

    assert describe_artifact(together, "openvino") == describe_artifact(apart, "openvino")
    assert describe_artifact(apart, "openvino") == describe_artifact(reversed(apart), "openvino")


@pytest.mark.parametrize(
    "other",
    [
        {"model.xml": b"graph"},
        {"model.xml": b"graph", "weights.bin": b"weights"},
        {"model.xml": b"weights", "model.bin": b"graph"},
        {"model.xml": b"graph", "model.bin": b"weightt"},
        {"model.xml": b"graph", "model.bin": b"weights\0"},
        {"model.xml": b"graph", "model.bin": b"weights", "more": b""},
        {},
    ],
)
def test_names_sizes_and_bytes_make_another_artifact(other, tmp_path):
    one = write(tmp_path / "one", {"model.xml": b"graph", "model.bin": b"weights"})
    two = write(tmp_path / "two", other)

    assert describe_artifact(one, "x").sha256 != describe_artifact(two, "x").sha256


_file_sets = st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=4), max_size=4)


@settings(deadline=None, max_examples=50)
@given(_file_sets, _file_sets)
def test_equal_file_sets_and_only_they_are_one_artifact(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], two: dict[str, bytes]
):
    folder = tmp_path_factory.mktemp("sets")
    first = describe_artifact(write(folder / "one", one), "x")
    second = describe_artifact(write(folder / "two", two), "x")

    assert (first == second) == (first.sha256 == second.sha256) == (one == two)
