from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest

from compressors.base import Refused
from search.build import _workbench
from search.evaluation import Baseline, evaluate
from search.interrupts import Interrupts
from search.prepare import prepare
from search.stages import plan
from storage import CorruptFiles
from storage.artifacts import file_stores

PRUNED = {
    "structured_pruning.ratio": 0.5,
    "structured_pruning.importance": "l2",
    "structured_pruning.scope": "uniform",
    "structured_pruning.round_to": 2,
    "structured_pruning.batchnorm_batches": 50,
}
TRAINED = {
    "distillation.epochs": 1,
    "distillation.temperature": 2.0,
    "distillation.alpha": 0.9,
    "distillation.lr": 0.01,
}
QUANTIZED = {
    "onnx_quantization.scheme": "static",
    "onnx_quantization.activation": "uint8",
    "onnx_quantization.calibrator": "minmax",
}
FLOAT = {"onnx_quantization.scheme": "none"}


def names(built) -> list[tuple[str, bool]]:
    return [(stage.name, stage.cached) for stage in built.stages]


@pytest.fixture(scope="module")
def prepared(finished):
    from search.build import _read

    config, folder, problems, label = _read(finished.folder / "toy.yaml")
    return prepare(config, folder, problems, label)


@pytest.fixture
def bench(prepared, tmp_path):
    return _workbench(prepared, file_stores(tmp_path), Interrupts())


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


def test_keys_depend_on_options_seed_threads_and_everything_before(bench, prepared):
    def keys(root="r", **changes):
        candidate = {**PRUNED, **TRAINED, **FLOAT, **changes}
        stages = plan(candidate, bench.space, bench.pipeline, bench.runtime, root)
        return [stage.key for stage in stages]

    reference = keys()
    assert keys() == reference
    assert all(a != b for a, b in zip(keys("other"), reference, strict=True))
    late = keys(**{"distillation.lr": 0.02})
    assert late[0] == reference[0]
    assert all(a != b for a, b in zip(late[1:], reference[1:], strict=True))


def test_metrics_are_those_of_the_stored_file(bench):
    import onnxruntime

    base = bench.build(bench.space.baseline()).artifact
    zero = {m.metric: m.value for m in bench.measure(base, None)}
    assert zero["accuracy"] == 1.0
    assert zero["accuracy_drop"] == 0.0
    assert zero["latency_ratio"] == 1.0
    small = bench.build({**PRUNED, **TRAINED, **QUANTIZED}).artifact
    measured = {m.metric: m for m in bench.measure(small, Baseline(base, zero["accuracy"]))}
    path = bench.main_path(small)
    assert measured["size_bytes"].value == path.stat().st_size == small.size_bytes
    session = onnxruntime.InferenceSession(str(path))
    (feed,) = session.get_inputs()
    right = [
        session.run(None, {feed.name: images.numpy()})[0].argmax(1) == labels.numpy()
        for images, labels in bench.loaded.task.eval_batches()
    ]
    assert measured["accuracy"].value == np.concatenate(right).mean()
    drop = 1.0 - measured["accuracy"].value
    assert measured["accuracy_drop"].value == pytest.approx(drop, abs=1e-12)
    assert measured["parameters"].value < zero["parameters"]
    assert measured["macs"].value < zero["macs"]
    ratio = measured["latency_ratio"]
    assert 0 < ratio.low <= ratio.value <= ratio.high


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


def test_a_score_that_is_not_finite_fails_the_trial(bench, monkeypatch):
    monkeypatch.setattr(bench.loaded.task, "score", lambda records: float("nan"))
    outcome = evaluate(bench, bench.space.baseline(), None, lambda sha256: None)
    assert (outcome.state, outcome.cause) == ("failed", "measure: ValueError: accuracy is nan")
    assert outcome.measurements == ()


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


def test_identical_files_are_measured_once(bench, monkeypatch):
    first = evaluate(bench, bench.space.baseline(), None, lambda sha256: None)
    monkeypatch.setattr(bench, "measure", fail)
    again = evaluate(
        bench,
        bench.space.baseline(),
        None,
        lambda sha256: (0, first.measurements) if sha256 == first.artifact.sha256 else None,
    )
    assert again.reused_from == 0
    assert again.measurements == first.measurements


def test_a_changed_artifact_is_not_measured(bench):
    artifact = bench.build(bench.space.baseline()).artifact
    path = bench.main_path(artifact)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CorruptFiles):
        bench.measure(artifact, None)


def test_what_an_interrupt_left_is_not_cached(prepared, tmp_path, monkeypatch):
    """torch.export swallows an interrupt, and the export then falls back to TorchScript."""
    interrupts = Interrupts()
    bench = _workbench(prepared, file_stores(tmp_path), interrupts)
    whole = bench.build(bench.space.baseline())
    bench.stages.remove(whole.stages[0].key)
    export = bench.runtime.export

    def interrupted(model, inputs, path):
        interrupts.pending = True
        return export(model, inputs, path)

    def swallowed(model, inputs, path):
        interrupts.pending = True
        raise RuntimeError("a library's own error")

    for replacement in (interrupted, swallowed):
        with monkeypatch.context() as patch:
            patch.setattr(bench.runtime, "export", replacement)
            with pytest.raises(KeyboardInterrupt):
                bench.build(bench.space.baseline())
        assert bench.stages.get(whole.stages[0].key) is None
    interrupts.pending = False
    assert bench.build(bench.space.baseline()).artifact == whole.artifact


def test_the_root_key_depends_on_all_that_training_depends_on(monkeypatch):
    from search import stages

    reference = ("weights", "task", 0, 1, "AVX2")
    keys = {stages.root_key(*reference)}
    for position, other in enumerate(("w", "t", 1, 2, "AVX512")):
        changed = list(reference)
        changed[position] = other
        keys.add(stages.root_key(*changed))
    monkeypatch.setattr(stages, "CACHE_FORMAT", -1)
    keys.add(stages.root_key(*reference))
    monkeypatch.setattr(stages, "library_versions", lambda names: {"torch": "other"})
    keys.add(stages.root_key(*reference))
    assert len(keys) == 8


def test_an_edited_compressor_of_the_user_does_not_reuse_its_old_stages(bench, tmp_path):
    from search.registry import load_reference
    from search.stages import Step
    from strategies.space import Float, Space

    text = (
        "import copy\nfrom strategies.space import Float\n"
        "class Mine:\n    version = 1\n    libraries = ()\n"
        "    def knobs(self, model, task): return []\n"
        "    def apply(self, model, options, context): return copy.deepcopy(model), {}\n"
        "    def replay(self, model, recipe): return copy.deepcopy(model)\n"
    )
    space = Space([Float(name="Mine.x", low=0.0, high=1.0, neutral=0.0)])

    def key() -> str:
        step = Step("Mine", load_reference("mine.py:Mine", tmp_path)())
        return plan({"Mine.x": 1.0}, space, [step], bench.runtime, "r")[0].key

    (tmp_path / "mine.py").write_text(text)
    first = key()
    assert key() == first
    (tmp_path / "mine.py").write_text(text + "# edited\n")
    assert key() != first
