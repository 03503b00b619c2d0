"""The bench of a build worker: stages, their cache, and scores."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
from toy_bench import FLOAT, PRUNED, QUANTIZED, TRAINED, main_file, names, prepared_toy
from zstandard import ZstdCompressor

from compressors.base import Refused
from search.sample_records import packed, unpacked
from search.scoring import zstd_bytes
from search.stages import plan
from search.tango import drop_interval
from search.workbench import make_workbench
from storage.artifacts import file_stores


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepared_toy(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(prepared, tmp_path):
    return make_workbench(prepared, file_stores(tmp_path))


def fail(*_):
    raise RuntimeError("out of luck\nsecond line")


def refuse(*_):
    raise Refused("too small already")


def test_stages_that_differ_only_at_the_end_are_computed_once(bench):
    first = bench.build({**PRUNED, **TRAINED, **FLOAT})
    assert names(first) == [
        ("structured_pruning", False),
        ("distillation", False),
        ("export", False),
    ]
    second = bench.build({**PRUNED, **TRAINED, **QUANTIZED})
    assert names(second) == [
        ("structured_pruning", True),
        ("distillation", True),
        ("export", True),
        ("onnx_quantization", False),
    ]
    third = bench.build({**PRUNED, **TRAINED, **QUANTIZED})
    assert all(cached for _, cached in names(third))
    assert third.artifact == second.artifact != first.artifact


def test_without_the_cache_the_same_bytes_come_out(bench):
    candidate = {**PRUNED, **TRAINED, **QUANTIZED}
    first = bench.build(candidate)
    prefix_only = plan(candidate, bench.space, bench.pipeline, bench.runtime, bench._root)[1:]
    for stage in prefix_only:
        bench.stages.remove(stage.key)
    from_prefix = bench.build(candidate)  # structure replayed from its recipe
    assert [cached for _, cached in names(from_prefix)] == [True, False, False, False]
    shutil.rmtree(bench.stages.root)
    afresh = bench.build(candidate)
    assert not any(cached for _, cached in names(afresh))
    assert first.artifact == from_prefix.artifact == afresh.artifact


def test_a_corrupt_cache_entry_is_made_again(bench):
    candidate = {**PRUNED, "distillation.epochs": 0, **FLOAT}
    first = bench.build(candidate)
    folder, _ = bench.stages.get(first.stages[-1].key)
    (folder / "model.onnx").write_bytes(b"broken")
    again = bench.build(candidate)
    assert names(again) == [("structured_pruning", True), ("export", False)]
    assert again.artifact == first.artifact


def test_neutral_compressors_leave_no_stage(bench):
    built = bench.build(bench.space.baseline())
    assert names(built) == [("export", False)]


def test_a_score_is_that_of_the_stored_file(bench):
    import onnxruntime

    zero = bench.score(bench.build(bench.space.baseline()).artifact)
    assert (zero.score, zero.samples) == (1.0, 96)
    artifact = bench.build({**PRUNED, **TRAINED, **QUANTIZED}).artifact
    scored = bench.score(artifact)
    path = main_file(bench, artifact)
    assert path.stat().st_size == artifact.size_bytes
    session = onnxruntime.InferenceSession(str(path))
    (feed,) = session.get_inputs()
    right = [
        session.run(None, {feed.name: images.numpy()})[0].argmax(1) == labels.numpy()
        for images, labels in bench.loaded.task.eval_batches()
    ]
    assert (scored.score, scored.samples) == (np.concatenate(right).mean(), 96)
    np.testing.assert_array_equal(unpacked(scored.records), np.concatenate(right))
    low, high = scored.interval
    assert low <= scored.score <= high
    assert scored.drop is None
    assert 0 < scored.parameters < zero.parameters
    assert 0 < scored.macs < zero.macs


def test_a_drop_is_bounded_against_the_records_of_the_baseline(bench):
    reference = bench.score(bench.build(bench.space.baseline()).artifact).records
    artifact = bench.build({**PRUNED, "distillation.epochs": 0, **FLOAT}).artifact
    scored = bench.score(artifact, reference)
    assert scored == bench.score(artifact, reference)
    losses = int((unpacked(scored.records) == 0).sum())  # the baseline has them all right
    assert scored.drop == drop_interval(losses, 0, 96, 0.05)
    assert losses > 0
    assert bench.score(artifact, packed(np.ones(95))).drop is None  # not the same samples


def test_the_zstd_size_is_of_the_shipped_files(bench):
    artifact = bench.build(bench.space.baseline()).artifact
    found = bench.score(artifact).size_zstd_bytes
    assert found == bench.score(artifact).size_zstd_bytes
    content = main_file(bench, artifact).read_bytes()
    compressed = ZstdCompressor(3).compress(content)
    assert found == len(compressed) < artifact.size_bytes


def test_every_file_counts_towards_the_zstd_size(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10_000))
    (tmp_path / "b").write_bytes(np.random.default_rng(0).bytes(10_000))
    alone = [zstd_bytes([tmp_path / name]) for name in "ab"]
    assert alone[0] < 100
    assert alone[1] > 10_000
    assert zstd_bytes([tmp_path / "a", tmp_path / "b"]) == sum(alone)


def test_progress_tells_each_stage_that_begins_and_what_has_ended(bench):
    told = []

    def progress(stage, ended, epoch=None):
        if epoch is None:
            told.append((stage, [(run.name, run.cached) for run in ended]))

    artifact = bench.build({**PRUNED, **TRAINED, **FLOAT}, progress=progress).artifact
    pruned, trained = ("structured_pruning", False), ("distillation", False)
    assert told == [
        ("structured_pruning", []),
        ("distillation", [pruned]),
        ("export", [pruned, trained]),
    ]
    told.clear()
    bench.build({**PRUNED, **TRAINED, **QUANTIZED}, progress=progress)
    cached = [("structured_pruning", True), ("distillation", True), ("export", True)]
    assert told == [("onnx_quantization", cached)]
    told.clear()
    bench.build({**PRUNED, **TRAINED, **QUANTIZED}, progress=progress)
    assert told == [("onnx_quantization", cached)]  # its files are stored
    told.clear()
    bench.score(artifact, progress=progress)
    assert told == [("measure", [])]


def test_errors_and_refusals_are_outcomes_with_their_stage(bench, monkeypatch):
    pruning, distillation, _ = (step.compressor for step in bench.pipeline)
    monkeypatch.setattr(distillation, "apply", fail)
    built = bench.build({**PRUNED, **TRAINED, **FLOAT})
    assert (built.state, built.cause) == ("failed", "distillation: RuntimeError: out of luck")
    assert names(built) == [("structured_pruning", False), ("distillation", False)]
    assert built.artifact is None
    monkeypatch.setattr(pruning, "apply", refuse)
    built = bench.build({**PRUNED, "structured_pruning.round_to": 4, **TRAINED, **FLOAT})
    assert (built.state, built.cause) == ("refused", "structured_pruning: too small already")


def test_a_failed_stage_is_not_cached(bench, monkeypatch):
    distillation = bench.pipeline[1].compressor
    with monkeypatch.context() as patch:
        patch.setattr(distillation, "apply", fail)
        assert bench.build({**PRUNED, **TRAINED, **FLOAT}).state == "failed"
    built = bench.build({**PRUNED, **TRAINED, **FLOAT})
    assert built.state == "complete"
    assert names(built)[:2] == [("structured_pruning", True), ("distillation", False)]


def test_a_file_that_lost_something_in_the_export_is_refused(bench, monkeypatch):
    export = bench.runtime.export

    def lossy(model, inputs, path):
        other = copy.deepcopy(model)
        other.classifier.bias.data += 1000.0
        return export(other, inputs, path)

    monkeypatch.setattr(bench.runtime, "export", lossy)
    built = bench.build(bench.space.baseline())
    assert built.state == "refused"
    assert "disagrees with the model" in built.cause
