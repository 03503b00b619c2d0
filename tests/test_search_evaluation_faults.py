"""What goes wrong in a bench, or around it: NaN, damaged files, full disks."""

from __future__ import annotations

import copy
import dataclasses
import errno
import logging
import os
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from toy_bench import FLOAT, PRUNED, QUANTIZED, TRAINED, main_file, names, prepared_toy

from search.stages import plan
from search.workbench import make_workbench
from storage import CorruptFiles
from storage.artifacts import ContentStore, Holder, describe_artifact, file_stores


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepared_toy(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(prepared, tmp_path):
    return make_workbench(prepared, file_stores(tmp_path))


class Spoilt:
    """A model compressor that does nothing but write a value into one tensor."""

    version = 1
    libraries = ()

    def __init__(self, tensor, value):
        self.tensor, self.value = tensor, value

    def apply(self, model, options, context):
        copied = copy.deepcopy(model)
        copied.state_dict()[self.tensor].view(-1)[-1] = self.value
        return copied, {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("tensor", ["conv1.weight", "norm2.running_var", "classifier.bias"])
def test_weights_that_are_not_finite_fail_the_stage_that_made_them(
    bench, monkeypatch, tensor, value
):
    distillation = bench.pipeline[1].compressor
    monkeypatch.setattr(distillation, "apply", Spoilt(tensor, value).apply)
    built = bench.build({**PRUNED, **TRAINED, **FLOAT})
    assert (built.state, built.cause) == (
        "failed",
        f"distillation: ValueError: the weights of {tensor!r} hold NaN or infinite values",
    )
    assert names(built) == [("structured_pruning", False), ("distillation", False)]
    assert bench.stages.get(built.stages[-1].key) is None


def test_what_is_infinite_in_the_original_model_may_stay_so(prepared, tmp_path):
    """As the minus infinity of an attention mask; NaN in the outputs is still found."""
    bench = make_workbench(prepared, file_stores(tmp_path))
    model = copy.deepcopy(prepared.loaded.model)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    loaded = dataclasses.replace(prepared.loaded, model=model)
    bench = make_workbench(dataclasses.replace(prepared, loaded=loaded), file_stores(tmp_path))
    assert bench.build({**PRUNED, **TRAINED, **FLOAT}).state == "complete"
    model.classifier.bias.data[0] = torch.nan
    built = bench.build(bench.space.baseline())
    assert (built.state, built.cause) == (
        "failed",
        "export: ValueError: the model's outputs hold NaN",
    )


def test_infinite_outputs_that_agree_are_exported(prepared, tmp_path):
    model = copy.deepcopy(prepared.loaded.model)
    model.classifier.bias.data[0] = -torch.inf
    loaded = dataclasses.replace(prepared.loaded, model=model)
    bench = make_workbench(dataclasses.replace(prepared, loaded=loaded), file_stores(tmp_path))
    built = bench.build(bench.space.baseline())
    assert built.state == "complete"
    assert bench.score(built.artifact).score < 1.0


def test_a_file_whose_outputs_hold_nan_has_no_score(bench, tmp_path):
    artifact = bench.build(bench.space.baseline()).artifact
    model = onnx.load(main_file(bench, artifact))
    for tensor in model.graph.initializer:
        if tensor.name == "classifier.bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, "f4"), tensor.name))
    onnx.save(model, tmp_path / "model.onnx")
    spoilt = describe_artifact([tmp_path / "model.onnx"], "onnx")
    assert spoilt != artifact
    bench.artifacts.put(spoilt.sha256, [tmp_path / "model.onnx"], {"main": "model.onnx"})
    with pytest.raises(ValueError, match=r"^the model's outputs hold NaN$"):
        bench.score(spoilt)


@pytest.mark.parametrize("position", [0, 1], ids=["prune", "distil"])
def test_without_memory_a_trial_fails_and_is_not_refused(bench, monkeypatch, position):
    """Refusals are believed in later studies, too."""
    forward = type(bench.loaded.model).forward

    def hungry(self, images):
        return forward(self, images) + torch.empty(2**50, dtype=torch.uint8).sum()

    monkeypatch.setattr(type(bench.loaded.model), "forward", hungry)
    candidate = {**bench.space.baseline(), **(PRUNED, TRAINED)[position]}
    built = bench.build(candidate)
    stage = ("structured_pruning", "distillation")[position]
    assert built.state == "failed"
    assert built.cause.startswith(f"{stage}: RuntimeError: ")
    assert "can't allocate memory" in built.cause


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_a_damaged_artifact_has_no_score_until_it_is_built_again(bench):
    candidate = {**PRUNED, **TRAINED, **QUANTIZED}
    artifact = bench.build(candidate).artifact
    scored = bench.score(artifact)
    for damage in (truncate, lambda path: path.write_bytes(path.read_bytes() + b"0"), Path.unlink):
        damage(main_file(bench, artifact))
        with pytest.raises(CorruptFiles):
            bench.score(artifact)
        built = bench.build(candidate)
        assert built.artifact == artifact
        assert all(cached for _, cached in names(built))
        assert bench.score(artifact) == scored


def test_damaged_stages_are_computed_again_when_an_artifact_is_lost(bench):
    candidate = {**PRUNED, **TRAINED, **QUANTIZED}
    first = bench.build(candidate)
    truncate(main_file(bench, first.artifact))
    for run in first.stages[2:]:  # export and quantization
        truncate(bench.stages.root / run.key[:2] / run.key / "model.onnx")
    again = bench.build(candidate)
    assert [cached for _, cached in names(again)] == [True, True, False, False]
    assert again.artifact == first.artifact
    bench.score(first.artifact)
    assert all(cached for _, cached in names(bench.build(candidate)))


class Quota(ContentStore):
    """A store on a disk that is full."""

    def put(self, key, files, facts={}):
        return FullHolder(self).put(key, files, facts)

    @contextmanager
    def holding(self):
        with FullHolder(self) as holder:
            yield holder


class FullHolder(Holder):
    def put(self, key, files, facts={}):
        raise OSError(errno.ENOSPC, "No space left on device")


def unusable(folder):
    """A store that cannot be used, whoever asks: its folder is a file."""
    folder.write_text("")
    return ContentStore(folder)


@pytest.mark.parametrize("kind", [Quota, unusable])
def test_without_a_stage_cache_trials_go_on_and_one_warning_is_given(
    prepared, tmp_path, caplog, monkeypatch, kind
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    artifacts, stages = file_stores(tmp_path)
    candidate = {**PRUNED, **TRAINED, **QUANTIZED}
    expected = make_workbench(prepared, (artifacts, stages)).build(candidate)
    bench = make_workbench(
        prepared, (ContentStore(tmp_path / "others"), kind(tmp_path / "unusable"))
    )
    with caplog.at_level(logging.WARNING, "naslite.search"):
        for _ in range(2):
            built = bench.build(candidate)
            assert (built.state, built.artifact) == ("complete", expected.artifact)
            assert not any(cached for _, cached in names(built))
    bench.score(built.artifact)
    (record,) = [record for record in caplog.records if record.name == "naslite.search"]
    assert "stages are computed anew" in record.getMessage()
    assert list(scratch.iterdir()) == []


@contextmanager
def not_as_root():
    """Root may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that everybody may read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        for path in folder.rglob("*"):
            if path.is_dir():
                path.chmod(0o755)


def test_a_read_only_cache_gives_what_it_has_and_no_trial_fails(prepared, open_folder):
    bench = make_workbench(prepared, file_stores(open_folder))
    first = bench.build({**PRUNED, **TRAINED, **QUANTIZED})
    bench.stages.remove(first.stages[-1].key)
    (folder, _), (damaged, _) = (bench.stages.get(run.key) for run in first.stages[1:3])
    truncate(damaged / "model.onnx")
    for path in (bench.artifacts.root, bench.artifacts.root / first.artifact.sha256[:2]):
        path.chmod(0o777)
    for path in (folder, damaged, *bench.stages.root.iterdir(), bench.stages.root):
        path.chmod(0o555)
    with not_as_root():
        built = bench.build({**PRUNED, **TRAINED, **QUANTIZED})
        assert built.artifact == first.artifact
        assert [cached for _, cached in names(built)] == [True, True, False, False]
        assert bench.score(built.artifact).samples == 96


def test_no_entry_goes_while_a_build_uses_it(prepared, tmp_path, monkeypatch):
    """A cache of one byte gives up everything that nobody holds."""
    artifacts, stages = file_stores(tmp_path, stage_bytes=1)
    bench = make_workbench(prepared, (artifacts, stages))
    distillation = bench.pipeline[1].compressor
    train, kept = distillation.apply, []

    def trained_while_others_need_room(*arguments):
        pruned = plan(PRUNED | FLOAT, bench.space, bench.pipeline, bench.runtime, bench._root)[0]
        file_stores(tmp_path, stage_bytes=1)[1].make_room(1)
        kept.append(stages.exists(pruned.key))
        return train(*arguments)

    monkeypatch.setattr(distillation, "apply", trained_while_others_need_room)
    built = bench.build({**PRUNED, **TRAINED, **QUANTIZED})
    assert (built.state, kept) == ("complete", [True])
    stages.make_room(1)
    assert stages.total() == (0, 0)
    assert bench.build({**PRUNED, **TRAINED, **QUANTIZED}).artifact == built.artifact
    assert bench.score(built.artifact).samples == 96


@contextmanager
def files_limited_to(size_bytes):
    """As on a full disk, writing more to a file is an error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("candidate", "stage", "cause"),
    [
        (PRUNED, "structured_pruning", "SafetensorError: "),
        (TRAINED, "distillation", "SafetensorError: "),
        ({}, "export", "OSError: [Errno 27] File too large"),
        (QUANTIZED, "onnx_quantization", "OSError: [Errno 27] File too large"),
    ],
    ids=["prune", "distil", "export", "quantize"],
)
def test_a_full_disk_fails_a_trial_and_refuses_nothing(bench, candidate, stage, cause):
    candidate = {**bench.space.baseline(), **candidate}
    if stage == "onnx_quantization":
        bench.build(bench.space.baseline())
    with files_limited_to(3000):
        built = bench.build(candidate)
    assert built.state == "failed"
    assert built.cause.startswith(f"{stage}: {cause}")
    assert built.stages[-1].name == stage
    assert bench.build(candidate).state == "complete"


def test_an_artifact_that_cannot_be_stored_fails_the_trial(prepared, tmp_path):
    _, stages = file_stores(tmp_path)
    bench = make_workbench(prepared, (Quota(tmp_path / "full"), stages))
    cause = "storing the files: OSError: [Errno 28] No space left on device"
    for candidate, stage in ((QUANTIZED, "onnx_quantization"), (FLOAT, "export")):
        built = bench.build({**bench.space.baseline(), **candidate})
        assert (built.state, built.artifact) == ("failed", None)
        assert built.cause == f"{stage}: {cause}"
        assert built.stages[-1].name == stage
