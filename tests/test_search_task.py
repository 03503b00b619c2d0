from __future__ import annotations

import pytest

from search.task import TaskProblems, load_task

PLAIN = """
import torch
from torch import nn
from compressors.base import Task
{imports}
class Plain(Task):
    def __init__(self, scale=1.0, **options):
        super().__init__(**options)
        self.scale = scale
    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    def train_batches(self):
        return [(torch.ones(3, 4) * self.scale, torch.zeros(3).long())]
    calibration_batches = eval_batches = train_batches
"""


@pytest.fixture
def write(tmp_path):
    def _write(text: str, name: str = "task.py") -> None:
        (tmp_path / name).write_text(text)

    return _write


def problems(folder, reference, options=None) -> list[str]:
    with pytest.raises(TaskProblems) as caught:
        load_task(reference, options or {}, folder)
    return [str(problem) for problem in caught.value.problems]


def test_a_plain_task_loads(tmp_path, write):
    write(PLAIN.format(imports=""))
    loaded = load_task("task.py:Plain", {}, tmp_path)
    assert not loaded.model.training
    assert loaded.inputs.shape == (3, 4)
    assert len(loaded.fingerprint) == len(loaded.weights) == 64
    assert loaded.fresh_model() is not loaded.model


def test_a_task_without_its_methods_names_all_of_them(tmp_path, write):
    write("from compressors.base import Task\nclass Bare(Task): pass\n")
    assert problems(tmp_path, "task.py:Bare") == [
        f"task: Bare must define {name}()"
        for name in ("model", "train_batches", "calibration_batches", "eval_batches")
    ]


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("class Plain(Task)", "class Plain", "must be a subclass of compressors.base.Task"),
        ("return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))", "return 3", "must return a torch"),
        ("nn.Linear(4, 2)", "nn.Linear(5, 2)", "the model on the first evaluation batch failed"),
        ("return [(torch", "return [][:0] or []; [(torch", "train_batches() failed: ValueError"),
        (
            "    calibration",
            "    def score(self, r): return 0 / 0\n    calibration",
            "score() failed: ZeroDivisionError",
        ),
        (
            "    calibration",
            "    def score(self, r): return float('nan')\n    calibration",
            "score() must be finite, got nan",
        ),
        (
            "    calibration",
            "    def records(self, o, b): return o.nope\n    calibration",
            "records() failed: AttributeError",
        ),
        (
            "    calibration",
            "    def inputs(self, b): return 3\n    calibration",
            "inputs() must give torch tensors, got int",
        ),
    ],
)
def test_a_broken_task_says_which_method_and_why(tmp_path, write, old, new, part):
    text = PLAIN.format(imports="")
    assert old in text
    write(text.replace(old, new))
    (message,) = problems(tmp_path, "task.py:Plain")
    assert part in message


def test_wrong_options_are_a_problem_of_task_options(tmp_path, write):
    write(PLAIN.format(imports="").replace(", **options", "").replace("**options", ""))
    (message,) = problems(tmp_path, "task.py:Plain", {"size": 3})
    assert message.startswith("task_options: ")
    assert "unexpected keyword argument 'size'" in message


def test_the_fingerprint_is_a_function_of_files_options_weights_and_data(tmp_path, write):
    def fingerprint(text: str, **options) -> str:
        write(text)
        return load_task("task.py:Plain", options, tmp_path).fingerprint

    plain = PLAIN.format(imports="")
    first = fingerprint(plain)
    assert fingerprint(plain) == first
    others = [
        fingerprint(plain + "# a comment\n"),
        fingerprint(plain, scale=2.0),
        fingerprint(plain.replace("manual_seed(0)", "manual_seed(1)")),
        fingerprint(plain.replace("torch.zeros(3)", "torch.ones(3)")),
    ]
    assert len({first, *others}) == 5


def test_the_fingerprint_covers_modules_beside_the_task(tmp_path, write):
    write("VALUE = 1\n", "mine_beside.py")
    write(PLAIN.format(imports="import mine_beside"))
    first = load_task("task.py:Plain", {}, tmp_path).fingerprint
    write("VALUE = 2\n", "mine_beside.py")
    assert load_task("task.py:Plain", {}, tmp_path).fingerprint != first


def test_loading_leaves_the_global_generators_alone(tmp_path, write):
    import torch

    write(PLAIN.format(imports=""))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_task("task.py:Plain", {}, tmp_path)
    assert torch.equal(torch.rand(1), expected)


READS = """
import numpy as np
import torch
from torch import nn
from compressors.base import Task

class Reads(Task):
    def model(self):
        torch.manual_seed(int(np.load("seed.npy")))
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    def train_batches(self):
        x = torch.from_numpy(np.load("data.npy"))
        return [(x[i], torch.zeros(2).long(), np.load("extra.npy")) for i in range(len(x))]
    calibration_batches = eval_batches = train_batches

class Other(Reads):
    pass
"""


def test_the_fingerprint_sees_weights_data_and_class_though_no_text_changes(
    tmp_path, write, monkeypatch
):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    write(READS)

    def fingerprint(seed=0, cell=(0, 0, 0), extra=1.0, name="Reads") -> str:
        data = np.ones((40, 2, 4), np.float32)
        data[cell] += 1
        np.save("seed.npy", seed)
        np.save("data.npy", data)
        np.save("extra.npy", np.array([extra]))
        return load_task(f"task.py:{name}", {}, tmp_path).fingerprint

    assert fingerprint() == fingerprint()
    changed = [
        fingerprint(),
        fingerprint(seed=1),
        fingerprint(cell=(1, 0, 0)),
        fingerprint(cell=(39, 1, 3)),
        fingerprint(extra=2.0),
        fingerprint(name="Other"),
    ]
    assert len(set(changed)) == len(changed)


def test_a_changed_module_beside_the_task_is_read_again(tmp_path, write):
    text = PLAIN.format(imports="import beside_again").replace("scale=1.0", "scale=0.0")
    write(text.replace("self.scale = scale", "self.scale = beside_again.VALUE"))
    write("VALUE = 1\n", "beside_again.py")
    assert load_task("task.py:Plain", {}, tmp_path).inputs.max() == 1
    write("VALUE = 2  # longer\n", "beside_again.py")
    assert load_task("task.py:Plain", {}, tmp_path).inputs.max() == 2


def test_the_fingerprint_does_not_depend_on_what_else_the_process_runs(tmp_path, write):
    import subprocess
    import sys

    write(PLAIN.format(imports=""))
    script = (
        "from pathlib import Path\nfrom search.task import load_task\n"
        "print(load_task('task.py:Plain', {}, Path.cwd()).fingerprint)\n"
    )
    write("VALUE = 3\n", "unrelated_app.py")
    write(f"import unrelated_app\n{script}", "go.py")
    printed = [
        subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for arguments in (["go.py"], ["-c", script])
    ]
    assert printed[0] == printed[1]


@pytest.mark.parametrize("name", ["size_bytes", "F1-score", "latency_x", "", "macs"])
def test_a_score_needs_a_name_of_its_own(tmp_path, write, name):
    write(PLAIN.format(imports="").replace("(Task):", f"(Task):\n    score_name = {name!r}"))
    (message,) = problems(tmp_path, "task.py:Plain")
    assert "score_name must be a word" in message


def test_options_that_a_task_does_not_declare_are_named(tmp_path, write):
    write(PLAIN.format(imports=""))
    (message,) = problems(tmp_path, "task.py:Plain", {"sclae": 2})
    assert "takes no option 'sclae'" in message


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("raise SystemExit(1)", "model() failed: SystemExit"),
        ("return nn.Linear(4, 2, dtype=torch.bfloat16)", "failed"),
    ],
)
def test_nothing_that_a_task_does_ends_in_a_traceback(tmp_path, write, body, part):
    text = PLAIN.format(imports="")
    write(text.replace("return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))", body))
    (message,) = problems(tmp_path, "task.py:Plain")
    assert part in message
