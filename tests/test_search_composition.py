"""Any subset of the compressors, in their order: the same bytes in any study, or none at all."""

from itertools import combinations

import numpy as np
import pytest

from benchmarks.benching import open_workbench

PIPELINE = {
    "depth_pruning": {"blocks": [0, 1]},
    "structured_pruning": {"ratio": [0.0, 0.5]},
    "unstructured_pruning": {"method": ["none", "l1_layer"], "sparsity": 0.5},
    "distillation": {"epochs": [0, 1]},
    "weight_clustering": {"clusters": [0, 16]},
    "onnx_quantization": {"scheme": ["none", "static"]},
}
CHOSEN = {
    "depth_pruning.blocks": 1,
    "structured_pruning.ratio": 0.5,
    "unstructured_pruning.method": "l1_layer",
    "distillation.epochs": 1,
    "weight_clustering.clusters": 16,
    "onnx_quantization.scheme": "static",
}
TASKS = """
from torch import nn

from assets.toy_task import Toy
from assets.vision_models import PaddedBlock
from compressors.training import seeded


class Blocks(Toy):
    def model(self):
        with seeded(0):
            return nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1),
                PaddedBlock(8, 8, 1),
                PaddedBlock(8, 8, 1),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, 4),
            ).eval()


class Convolutions(Toy):
    def model(self):
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 6), nn.Flatten())
"""
SUBSETS = [s for n in range(1, len(PIPELINE) + 1) for s in combinations(PIPELINE, n)]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "tasks.py").write_text(TASKS)
    return folder


def opened(names, tasks, files):
    pipeline = [{name: PIPELINE[name]} for name in names]
    return open_workbench("tasks.py:Blocks", tasks, pipeline, files)


@pytest.fixture(scope="module")
def everything(tasks, tmp_path_factory):
    """A bench of all compressors, whose cache all subsets share."""
    return opened(PIPELINE, tasks, tmp_path_factory.mktemp("everything"))


def built(bench, names):
    active = {k: v for k, v in CHOSEN.items() if k.partition(".")[0] in names}
    return bench.build(bench.space.complete(active))


@pytest.mark.slow
@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_any_subset_runs_its_own_stages_in_order(everything, names):
    found = built(everything, names)
    assert found.state == "complete", found.cause
    models = [name for name in names if name not in ("weight_clustering", "onnx_quantization")]
    stages = [stage.name for stage in found.stages]
    assert stages == [*models, "export", *names[len(models) :]]
    assert np.isfinite(everything.score(found.artifact).score)


@pytest.mark.slow
@pytest.mark.parametrize("names", SUBSETS[::5], ids="+".join)
def test_a_subset_gives_the_same_bytes_alone_and_among_all_others(
    everything, tasks, names, tmp_path
):
    one, other = built(everything, names), built(opened(names, tasks, tmp_path), names)
    assert one.artifact.files == other.artifact.files
    assert one.artifact.sha256 == other.artifact.sha256


def test_what_is_refused_after_pruning_leaves_nothing_to_measure(tasks, tmp_path):
    pipeline = [{"structured_pruning": {}}, {"onnx_quantization": {}}]
    bench = open_workbench("tasks.py:Convolutions", tasks, pipeline, tmp_path)
    candidate = {"structured_pruning.ratio": 0.5, "onnx_quantization.scheme": "dynamic"}
    found = bench.build(bench.space.complete(candidate))
    assert found.state == "refused"
    assert "finds nothing to quantize" in found.cause
    assert found.artifact is None
