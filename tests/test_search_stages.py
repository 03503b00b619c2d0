"""The keys of the stage cache: what they depend on, and that they stay as they are."""

from __future__ import annotations

from compressors.distillation import ADDED, Distillation
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
    for kind in (StructuredPruning, OnnxRuntime):  # raised since, which is another key
        monkeypatch.setattr(kind, "version", 1)
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
        "onnx_quantization": "2c4ecfa68a8dddb5",
    }


OPTIONS = {"epochs": 3, "temperature": 2.0, "alpha": 0.9, "lr": 0.01}
KNOBS = [
    Int(name="distillation.epochs", low=0, high=9, neutral=0),
    Choice(name="distillation.schedule", values=("one_cycle", "constant"), neutral="one_cycle"),
    Choice(name="distillation.loss", values=("kl", "mse"), neutral="kl"),
]


def training(**options):
    candidate = {f"distillation.{name}": value for name, value in {**OPTIONS, **options}.items()}
    return plan(candidate, Space(KNOBS), STEPS[1:2], OnnxRuntime(), "r")[0]


def test_knobs_that_came_later_do_not_change_the_keys_of_what_was_before():
    assert training(**ADDED).key == training().key
    assert len({training(**{**ADDED, **o}).key for o in ({}, {"loss": "mse"}, {"loss": "x"})}) == 3


def test_a_training_that_can_be_continued_has_the_seed_of_its_shorter_ones():
    stage = training(schedule="constant")
    shorter = [training(schedule="constant", epochs=epochs) for epochs in (2, 1)]
    assert stage.shorter == ((2, shorter[0].key), (1, shorter[1].key))
    assert {s.seed for s in shorter} == {stage.seed}
    assert len({stage.key, *(s.key for s in shorter)}) == 3
    assert training(schedule="constant", lr=0.02).seed != stage.seed
    assert [stage.score_key(n) for n in (1, 2)] == [shorter[0].score_key(n) for n in (1, 2)]
    assert stage.score_key(1) != stage.score_key(2)
    assert (stage.epochs, stage.key == stage.family) == (3, False)


def test_a_training_that_cannot_be_continued_has_a_seed_of_its_own():
    stage, other = training(), training(epochs=2)
    assert (stage.shorter, stage.family) == ((), stage.key)
    assert stage.seed != other.seed
    assert stage.score_key(1) != other.score_key(1)


def test_only_trainings_have_epochs():
    stages = plan(
        {"structured_pruning.ratio": 0.5, "distillation.lr": 0.0}, SPACE, STEPS, OnnxRuntime(), "r"
    )
    assert [stage.epochs for stage in stages] == [0, 0]


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
    keys.add(stages.root_key(*reference, gpu=("cuda", "H100", "13.0", "none")))
    keys.add(stages.root_key(*reference, gpu=("cuda", "H100", "13.0", "bf16")))
    assert len(keys) == 10


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
