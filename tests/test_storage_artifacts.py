from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import CorruptFiles, File
from storage.artifacts import MANIFEST, ContentStore, describe_artifact, describe_file

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
    """What lies in the store beside its entries."""
    prefixes = [path for path in store.root.iterdir() if path.is_dir() and len(path.name) == 2]
    return [path.name for path in store.root.iterdir() if path not in prefixes]


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
    store.remove(KEY)

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
    store.remove(KEY)

    assert store.get(KEY) is None
    assert store.get(other) == (kept, {})


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
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "an empty manifest": lambda folder: os.truncate(folder / MANIFEST, 0),
    "a truncated manifest": lambda folder: os.truncate(folder / MANIFEST, 60),
    "a manifest of bytes": lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe\0"),
    "a manifest that is a list": lambda folder: (folder / MANIFEST).write_text("[]"),
    "a manifest without files": lambda folder: edit_manifest(folder, files=...),
    "a manifest without facts": lambda folder: edit_manifest(folder, facts=...),
    "a manifest of nonsense": lambda folder: edit_manifest(folder, files=["model.onnx"]),
    "facts that are a number": lambda folder: edit_manifest(folder, facts=3),
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
def test_a_damaged_entry_is_dropped_and_can_be_made_again(damage, store, files):
    folder = store.put(KEY, files)
    DAMAGES[damage](folder)

    assert store.get(KEY) is None
    assert not folder.exists()
    assert store.put(KEY, files, {"again": True}) == folder
    assert store.get(KEY) == (folder, {"again": True})


def test_a_differing_file_is_named(store, files):
    flip(store.put(KEY, files) / "model.onnx.data")
    with pytest.raises(CorruptFiles, match=r"model\.onnx\.data differs from its SHA-256"):
        store.verified(KEY)


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
