"""Trainings that are watched: decisions equal trained or cached, and no bit changes."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from assets.toy_models import TaskOf, mlp
from assets.toy_task import Toy
from conftest import Workspace
from toy_bench import FLOAT, PRUNED, QUANTIZED, names

from compressors.inspect import weights_digest
from compressors.testing import random_states
from search.config import load_config, parse_config
from search.epochs import SAMPLES, EpochScore
from search.prepare import prepare
from search.stages import plan
from search.stopping import Training
from search.workbench import make_workbench
from storage.artifacts import file_stores

EPOCHS = 4
CANDIDATE = {
    **PRUNED,
    "distillation.epochs": EPOCHS,
    "distillation.loss": "kl",
    "distillation.temperature": 2.0,
    "distillation.alpha": 0.9,
    "distillation.optimizer": "adamw",
    "distillation.lr": 0.01,
    "distillation.weight_decay": 0.01,
    "distillation.schedule": "one_cycle",
    **FLOAT,
}
CONSTANT = {**CANDIDATE, "distillation.schedule": "constant", "distillation.lr": 0.003}
# By the median rule, all of them are beaten from the second epoch on: no accuracy is above 1.
UNBEATABLE = tuple(Training("distillation", f"{n}", EPOCHS, (2.0,) * EPOCHS) for n in range(4))


class Watched:
    """A bench of the toy task, and how many epochs it computed."""

    def __init__(self, folder, stop="median", **changes):
        folder.mkdir(exist_ok=True)
        pipeline = [
            {"structured_pruning": {"ratio": [0.0, 0.5], "round_to": 2}},
            {
                "distillation": {
                    "epochs": {"low": 0, "high": 9},
                    "lr": {"low": 0.0001, "high": 0.01},
                    "schedule": ["one_cycle", "constant"],
                }
            },
            {"onnx_quantization": {"scheme": ["none", "static"]}},
        ]
        path = Workspace(folder).config(pipeline=pipeline, stop=stop, **changes)
        config, problems = parse_config(load_config(path))
        assert config is not None, problems
        self.bench = make_workbench(prepare(config, folder, problems, "toy"), file_stores(folder))
        self.told = []

    def build(self, candidate, peers=()):
        return self.bench.build(candidate, peers, progress=self.progress)

    def progress(self, stage, ended, epoch=None, /):
        if epoch is not None:
            self.told.append((stage, epoch.number, epoch.total, epoch.score))

    @property
    def computed(self):
        """The epochs computed since this was asked last."""
        found, self.told = [number for _, number, *_ in self.told], []
        return found

    def stage(self, candidate, position=1):
        bench = self.bench
        return plan(candidate, bench.space, bench.pipeline, bench.runtime, bench._root)[position]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """What the candidates give where nothing is watched."""
    quiet = Watched(tmp_path_factory.mktemp("quiet"), stop="none")
    return {c["distillation.schedule"]: quiet.build(c) for c in (CANDIDATE, CONSTANT)}


def scores_of(built):
    (run,) = [run for run in built.stages if run.name == "distillation"]
    return run.scores


def test_watching_changes_no_bit(reference, tmp_path):
    watched = Watched(tmp_path / "a")
    built = watched.build(CANDIDATE)
    quiet = reference["one_cycle"]
    assert built.artifact == quiet.artifact
    assert [run.key for run in built.stages] == [run.key for run in quiet.stages]
    assert [run.epochs for run in built.stages] == [0, EPOCHS, 0]
    assert scores_of(quiet) == ()
    assert len(scores_of(built)) == EPOCHS
    assert watched.told == [
        ("distillation", n + 1, EPOCHS, score) for n, score in enumerate(scores_of(built))
    ]


def test_the_last_score_is_that_of_the_result(tmp_path):
    watched = Watched(tmp_path / "a")
    built = watched.build(CANDIDATE)
    assert scores_of(built)[-1] == watched.bench.score(built.artifact).score


def test_a_hopeless_training_is_given_up(tmp_path):
    watched = Watched(tmp_path / "a")
    built = watched.build(CANDIDATE, UNBEATABLE)
    assert (built.state, built.artifact) == ("stopped", None)
    assert built.cause.startswith("median rule: accuracy ")
    assert built.cause.endswith(" by epoch 2 of 4, below the median 2 of 4 trainings")
    assert watched.computed == [1, 2]
    assert names(built) == [("structured_pruning", False), ("distillation", False)]
    assert len(scores_of(built)) == 2


def test_without_a_rule_peers_mean_nothing(reference, tmp_path):
    watched = Watched(tmp_path / "a", stop="none")
    assert watched.build(CANDIDATE, UNBEATABLE).artifact == reference["one_cycle"].artifact


def test_what_comes_from_the_cache_is_judged_as_when_it_was_trained(tmp_path):
    trained = Watched(tmp_path / "a")
    first = trained.build(CANDIDATE, UNBEATABLE)
    # By what was trained until it was given up, by all that was trained, and afresh.
    again = trained.build({**CANDIDATE, **QUANTIZED}, UNBEATABLE)
    assert trained.computed == [1, 2]
    lenient = trained.build(CANDIDATE)
    assert (lenient.state, trained.computed) == ("complete", [1, 2, 3, 4])
    cached = trained.build(CANDIDATE, UNBEATABLE)
    assert trained.computed == []
    assert all(was_cached for _, was_cached in names(cached))
    afresh = Watched(tmp_path / "b").build(CANDIDATE, UNBEATABLE)
    decisions = {(b.state, b.cause, scores_of(b)) for b in (first, again, cached, afresh)}
    assert len(decisions) == 1
    assert scores_of(lenient)[:2] == scores_of(first)


def test_what_was_given_up_is_trained_to_the_same_end_for_another_trial(reference, tmp_path):
    watched = Watched(tmp_path / "a")
    watched.build(CANDIDATE, UNBEATABLE)
    assert watched.build(CANDIDATE).artifact == reference["one_cycle"].artifact


def test_what_was_cached_without_scores_is_trained_again_to_be_judged(reference, tmp_path):
    quiet = Watched(tmp_path / "a", stop="none")
    quiet.build(CANDIDATE)
    watched = Watched(tmp_path / "a")
    stopped = watched.build(CANDIDATE, UNBEATABLE)
    assert (stopped.state, watched.computed) == ("stopped", [1, 2])
    assert names(stopped)[0] == ("structured_pruning", True)
    assert watched.build(CANDIDATE).artifact == reference["one_cycle"].artifact
    assert watched.computed == [1, 2, 3, 4]
    assert all(was_cached for _, was_cached in names(watched.build(CANDIDATE)))


def test_scores_of_a_visible_trial_need_not_be_computed_again(tmp_path):
    watched = Watched(tmp_path / "a")
    stage = watched.stage(CANDIDATE)
    peer = Training("distillation", stage.key, EPOCHS, (0.25, 0.5))
    built = watched.build(CANDIDATE, [peer])
    assert scores_of(built)[:2] == (0.25, 0.5)
    stopped = watched.build(CANDIDATE, [*UNBEATABLE, peer])
    assert stopped.cause.startswith("median rule: accuracy 0.5 at best by epoch 2 of 4")


def test_a_cache_that_cannot_be_written_changes_no_decision(tmp_path, monkeypatch):
    watched = Watched(tmp_path / "a")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.holding.Holder.put", full)
    built = watched.build(CANDIDATE, UNBEATABLE)
    assert (built.state, len(scores_of(built))) == ("stopped", 2)


# Going on from a shorter training


def test_a_longer_training_goes_on_from_a_cached_one(reference, tmp_path):
    watched = Watched(tmp_path / "a", stop="none")
    shorter = {**CONSTANT, "distillation.epochs": 1}
    watched.build(shorter)
    watched.build({**CONSTANT, "distillation.epochs": 3})
    assert watched.computed == [1, 2, 3]  # the first of them once
    built = watched.build(CONSTANT)
    assert watched.computed == [4]
    assert built.artifact == reference["constant"].artifact
    notes = [run.note for run in built.stages]
    assert notes == ["", "went on from a cached training of 3 epochs", ""]


def test_a_cycle_does_not_go_on(tmp_path):
    watched = Watched(tmp_path / "a", stop="none")
    watched.build({**CANDIDATE, "distillation.epochs": 2})
    watched.build(CANDIDATE)
    assert watched.computed == [1, 2, 1, 2, 3, 4]


@pytest.mark.parametrize("change", [{"distillation.lr": 0.002}, {"structured_pruning.ratio": 0.0}])
def test_another_training_is_not_gone_on_from(tmp_path, change):
    watched = Watched(tmp_path / "a", stop="none")
    watched.build({**CONSTANT, "distillation.epochs": 2})
    candidate = {**CONSTANT, **change}
    if "structured_pruning.ratio" in change:
        candidate = {
            name: value
            for name, value in candidate.items()
            if not name.startswith("structured_pruning.") or name in change
        }
    assert watched.computed == [1, 2]
    watched.build(candidate)
    assert watched.computed == [1, 2, 3, 4]


def test_a_damaged_training_is_not_gone_on_from(reference, tmp_path):
    watched = Watched(tmp_path / "a", stop="none")
    shorter = {**CONSTANT, "distillation.epochs": 2}
    watched.build(shorter)
    folder, _ = watched.bench.stages.get(watched.stage(shorter).key)
    (folder / "training.safetensors").write_bytes(b"broken")
    assert watched.computed == [1, 2]
    assert watched.build(CONSTANT).artifact == reference["constant"].artifact
    assert watched.computed == [1, 2, 3, 4]


def test_a_training_that_goes_on_is_judged_by_the_scores_before(tmp_path):
    watched = Watched(tmp_path / "a")
    shorter = watched.build({**CONSTANT, "distillation.epochs": 2})
    longer = watched.build(CONSTANT)
    assert watched.computed == [1, 2, 3, 4]
    assert scores_of(longer)[:2] == scores_of(shorter)
    afresh = Watched(tmp_path / "b").build(CONSTANT)
    assert (scores_of(longer), longer.artifact) == (scores_of(afresh), afresh.artifact)


def test_a_training_whose_first_scores_are_unknown_does_not_skip_them(reference, tmp_path):
    Watched(tmp_path / "a", stop="none").build({**CONSTANT, "distillation.epochs": 2})
    watched = Watched(tmp_path / "a")
    built = watched.build(CONSTANT)
    assert watched.computed == [1, 2, 3, 4]
    assert (len(scores_of(built)), built.artifact) == (4, reference["constant"].artifact)


def test_going_on_needs_no_cache_of_what_is_before(reference, tmp_path):
    watched = Watched(tmp_path / "a", stop="none")
    shorter = {**CONSTANT, "distillation.epochs": 2}
    watched.build(shorter)
    watched.bench.stages.remove(watched.stage(shorter, 0).key)
    assert watched.build(CONSTANT).artifact == reference["constant"].artifact
    shutil.rmtree(watched.bench.stages.root)
    assert watched.build(CONSTANT).artifact == reference["constant"].artifact
    assert watched.computed == [1, 2, 3, 4, 1, 2, 3, 4]


# The score of a model


def batches_of(count, size):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(size, 8, generator=generator), torch.arange(size) % 4) for _ in range(count)
    ]


class Counting(TaskOf):
    """Records the samples that it is asked for."""

    def __init__(self, *batches):
        super().__init__(mlp(), *batches)
        self.seen = []

    def records(self, outputs, batch):
        self.seen.append(np.asarray(batch[0]))
        return super().records(outputs, batch)


def test_the_score_of_a_small_split_is_that_of_all_its_samples():
    toy = Toy()
    assert EpochScore(toy, seed=0)(toy.model()) == 1.0  # its labels are what the model says


def test_a_large_split_is_scored_on_the_same_samples_every_time():
    task = Counting(*batches_of(50, 32))
    score = EpochScore(task, seed=3)
    scores = [score(task.model()) for _ in range(2)]
    seen = np.concatenate(task.seen)
    assert len(seen) == 2 * SAMPLES
    np.testing.assert_array_equal(seen[:SAMPLES], seen[SAMPLES:])
    assert len(np.unique(seen[:SAMPLES], axis=0)) == SAMPLES
    assert scores[0] == scores[1]
    other = Counting(*batches_of(50, 32))
    EpochScore(other, seed=4)(other.model())
    assert not np.array_equal(np.concatenate(other.seen), seen[:SAMPLES])


def test_scoring_leaves_modes_weights_and_generators_alone():
    toy = Toy()
    model = copy.deepcopy(toy.model()).train()
    model.stem_norm.eval()
    before = weights_digest(model), random_states(), [m.training for m in model.modules()]
    EpochScore(toy, seed=0)(model)
    after = weights_digest(model), random_states(), [m.training for m in model.modules()]
    assert before == after


class Uncut(TaskOf):
    """Batches that hold something which cannot be cut."""

    def eval_batches(self):
        return [(*batch, object()) for batch in super().eval_batches()]


def test_batches_that_cannot_be_cut_are_scored_whole(caplog):
    task = Uncut(mlp(), *batches_of(40, 32))
    score = EpochScore(task, seed=0)
    with torch.no_grad():
        right = [(mlp()(x).argmax(-1) == y).float() for x, y in batches_of(40, 32)]
    assert [score(task.model()) for _ in range(2)] == [
        pytest.approx(torch.cat(right).mean().item())
    ] * 2
    assert sum("scored on the whole search split" in r.message for r in caplog.records) == 1


class Scoreless(TaskOf):
    def score(self, records):
        raise ValueError("no positive sample")


class NotANumber(TaskOf):
    def score(self, records):
        return float("nan")


@pytest.mark.parametrize("kind", [Scoreless, NotANumber])
def test_where_nothing_can_be_scored_yet_there_is_no_score(kind):
    task = kind(mlp(), *batches_of(2, 8))
    assert EpochScore(task, seed=0)(task.model()) is None
