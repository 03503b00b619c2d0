"""The keys of the stage cache: what they depend on, and that they stay as they are."""

from __future__ import annotations

from compressors.distillation import Distillation
from compressors.pruning import StructuredPruning
from compressors.quantization import OnnxQuantization
from search import stages
from search.registry import load_reference
from search.runtimes.onnx_runtime import OnnxRuntime
from search.stages import Step, plan
from strategies.space import Choice, Float, Int, Space

STEPS = (
    Step("structured_pruning", StructuredPruning()),
    Step("distillation", Distillation()),
    Step("onnx_quantization", OnnxQuantization()),
)
SPACE = Space(
    [
        Float(name="structured_pruning.ratio", low=0.0, high=0.9, neutral=0.0),
        Float(name="distillation.lr", low=0.0, high=1.0, neutral=0.0),
    ]
)


def test_keys_depend_on_options_seed_threads_and_everything_before():
    def keys(root="r", lr=0.01):
        candidate = {"structured_pruning.ratio": 0.5, "distillation.lr": lr}
        return [stage.key for stage in plan(candidate, SPACE, STEPS, OnnxRuntime(), root)]

    reference = keys()
    assert keys() == reference
    assert all(a != b for a, b in zip(keys("other"), reference, strict=True))
    late = keys(lr=0.02)
    assert late[0] == reference[0]
    assert all(a != b for a, b in zip(late[1:], reference[1:], strict=True))


def test_stage_keys_stay_as_they_are(monkeypatch):
    """Or every cache that users have is useless; raise CACHE_FORMAT if that is meant."""
    monkeypatch.setattr(stages, "library_versions", lambda names: dict.fromkeys(names, "1"))
    monkeypatch.setattr(stages, "cpu_facts", lambda: {"isa": ["avx2"]})
    space = Space(
        [
            Float(name="structured_pruning.ratio", low=0.0, high=0.9, neutral=0.0),
            Int(name="distillation.epochs", low=0, high=4, neutral=0),
            Choice(name="onnx_quantization.scheme", values=("none", "static"), neutral="none"),
        ]
    )
    candidate = dict(zip([knob.name for knob in space], (0.5, 2, "static"), strict=True))
    root = stages.root_key("w", "t", 0, 1, "AVX2")
    planned = plan(candidate, space, STEPS, OnnxRuntime(), root)
    assert {stage.name: stage.key[:16] for stage in planned} == {
        "structured_pruning": "16fad7099938462e",
        "distillation": "5717e61cfb619b8b",
        "export": "d16e8b00915f90f0",
        "onnx_quantization": "926ae5128b4714ba",
    }


def test_the_root_key_depends_on_all_that_training_depends_on(monkeypatch):
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


MINE = """
import copy
class Mine:
    version = 1
    libraries = ()
    def knobs(self, model, task): return []
    def apply(self, model, options, context): return copy.deepcopy(model), {}
    def replay(self, model, recipe): return copy.deepcopy(model)
"""


def key_of_mine(folder, source) -> str:
    """The key of a stage of a user's compressor in this folder."""
    (folder / "mine.py").write_text(source)
    step = Step("Mine", load_reference("mine.py:Mine", folder)())
    space = Space([Float(name="Mine.x", low=0.0, high=1.0, neutral=0.0)])
    return plan({"Mine.x": 1.0}, space, [step], OnnxRuntime(), "r")[0].key


def test_an_edited_compressor_of_the_user_does_not_reuse_its_old_stages(tmp_path):
    first = key_of_mine(tmp_path, MINE)
    assert key_of_mine(tmp_path, MINE) == first
    assert key_of_mine(tmp_path, MINE + "# edited") != first


def test_a_compressor_of_the_user_gives_the_same_wherever_its_file_lies(tmp_path):
    """The seed of a stage is derived from its key: a moved search would give other bytes."""
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
    assert len({key_of_mine(folder, MINE) for folder in folders}) == 1
