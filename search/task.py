"""Loading a user's task, checking it, and its fingerprint."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compressors.base import Task

from .errors import NasliteError, Problem
from .metrics import AUDIT, METRICS, SCORE
from .registry import is_file_reference, load_reference, modules_below

if TYPE_CHECKING:
    from torch import nn

REQUIRED = ("model", "train_batches", "calibration_batches", "eval_batches")
SPLITS = ("train_batches", "calibration_batches", "eval_batches", "audit_batches")
WHOLE_BATCHES = 64  # at the head of each split, all in the fingerprint
SAMPLED_BATCHES = 16  # of the others, where a split is a list


class TaskProblems(NasliteError):
    """What is wrong with a task."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A task that was imported, built and run once.

    Args:
        model: The uncompressed model, in eval mode; never to be changed.
        weights: SHA-256 of its weights.
        fingerprint: SHA-256 over the task's files, options, weights and samples of its data.
        inputs: Model inputs of the first evaluation batch.
    """

    task: Task
    model: nn.Module
    weights: str
    fingerprint: str
    inputs: Any

    def fresh_model(self) -> nn.Module:
        return copy.deepcopy(self.model)


def load_task(reference: str, options: Mapping[str, Any], folder: Path) -> LoadedTask:
    """Import a task, build its model, and run one evaluation batch through it.

    Args:
        reference: `file.py:Class` relative to `folder`, or `package.module:Class`.

    Raises:
        TaskProblems: All that could be found wrong with it.
    """
    task = _construct(reference, options, folder)
    from compressors.inspect import weights_digest
    from compressors.training import seeded

    with seeded(0):
        model = _built_model(task)
    with seeded(0):
        inputs = _check_one_batch(task, model)
    weights = weights_digest(model)
    fingerprint = _fingerprint(task, reference, options, weights)
    return LoadedTask(task, model, weights, fingerprint, inputs)


def _construct(reference: str, options: Mapping[str, Any], folder: Path) -> Task:
    try:
        found = load_reference(reference, folder)
    except NasliteError as error:
        raise TaskProblems(Problem("task", str(error))) from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise TaskProblems(
            Problem("task", f"must be a subclass of compressors.base.Task, got {found!r}")
        )
    missing = [name for name in REQUIRED if getattr(found, name) is getattr(Task, name)]
    if missing:
        raise TaskProblems(
            *(Problem("task", f"{found.__name__} must define {name}()") for name in missing)
        )
    _check_score_name(found)
    try:
        return found(**options)
    except Exception as error:
        raise TaskProblems(
            Problem("task_options", f"{found.__name__}(**task_options) failed: {_short(error)}")
        ) from error


def _check_score_name(task: type[Task]) -> None:
    name = task.score_name
    taken = [metric for metric in METRICS if SCORE not in metric]
    if (
        not re.fullmatch(r"[A-Za-z_]\w{0,79}", name)
        or name in taken
        or name.startswith(("latency_", AUDIT))
    ):
        raise TaskProblems(
            Problem(
                "task",
                f"{task.__name__}.score_name must be a word of letters, digits and '_' that is"
                f" no other metric ({', '.join(taken)}), got {name!r}",
            )
        )


def _built_model(task: Task) -> nn.Module:
    from torch import nn

    model = _call("model()", task.model)
    if not isinstance(model, nn.Module):
        raise TaskProblems(
            Problem("task", f"model() must return a torch.nn.Module, got {type(model).__name__}")
        )
    copied: nn.Module = _call("copying the model", partial(copy.deepcopy, model))
    return copied.eval()


def _check_one_batch(task: Task, model: nn.Module) -> Any:
    """Run one batch of each split through the task's methods; returns evaluation inputs."""
    import torch

    from compressors.inspect import forward, tensors_in

    for split in ("train_batches", "calibration_batches", "eval_batches"):
        batch = _call(f"{split}()", partial(_first, getattr(task, split)))
        inputs = _call(f"inputs() of {split}()", partial(task.inputs, batch))
    if not list(tensors_in(inputs)):
        raise TaskProblems(
            Problem("task", f"inputs() must give torch tensors, got {type(inputs).__name__}")
        )
    with torch.no_grad():
        outputs = _call("the model on the first evaluation batch", partial(forward, model, inputs))
    tensors = list(tensors_in(outputs))
    arrays = _call("reading the model's outputs", lambda: tuple(t.numpy() for t in tensors))
    given = arrays[0] if len(arrays) == 1 else arrays
    records = _call("records()", lambda: np.asarray(task.records(given, batch)))
    if records.ndim == 0:
        raise TaskProblems(
            Problem("task", "records() must give an array with one entry per sample, got a number")
        )
    score = _call("score()", lambda: float(task.score(records)))
    if not np.isfinite(score):
        raise TaskProblems(Problem("task", f"score() must be finite, got {score}"))
    return inputs


def _first(batches: Callable[[], Iterable[Any]]) -> Any:
    for batch in batches():
        return batch
    raise ValueError("it gave no batch")


def _call(what: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise TaskProblems(Problem("task", f"{what} failed: {_short(error)}")) from error


def _short(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _fingerprint(task: Task, reference: str, options: Mapping[str, Any], weights: str) -> str:
    from compressors.training import seeded

    digest = hashlib.sha256(type(task).__qualname__.encode())
    for path in _own_files(task, reference):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    digest.update(json.dumps(options, sort_keys=True).encode())
    digest.update(weights.encode())
    for split in SPLITS:
        digest.update(split.encode())
        with seeded(0):
            _call(f"{split}()", partial(_digest_split, digest, getattr(task, split)))
    return digest.hexdigest()


def _own_files(task: Task, reference: str) -> list[Path]:
    """The task's file and the modules beside it that it imported, or its whole package."""
    module = type(task).__module__
    file = sys.modules[module].__file__
    assert file is not None
    main = Path(file).resolve()
    if is_file_reference(reference):
        return sorted({main, *modules_below(main.parent).values()})
    if "." not in module:
        return [main]
    package = sys.modules[module.partition(".")[0]]
    return sorted(path for folder in package.__path__ for path in Path(folder).rglob("*.py"))


def _digest_split(digest: Any, split: Callable[[], Iterable[Any] | None]) -> None:
    """The first batches, a seeded sample of the others where they can be had, and their number."""
    batches = split()
    if batches is None:
        return
    if isinstance(batches, Sized):
        digest.update(f"{len(batches)} batches".encode())
    for position, batch in enumerate(islice(batches, WHOLE_BATCHES)):
        digest.update(f"{position}".encode())
        _digest_value(digest, batch)
    if isinstance(batches, Sequence) and len(batches) > WHOLE_BATCHES:
        rng = np.random.default_rng(0)
        for position in rng.integers(WHOLE_BATCHES, len(batches), size=SAMPLED_BATCHES):
            _digest_value(digest, batches[int(position)])


def _digest_value(digest: Any, value: Any) -> None:
    """Tensors, arrays, numbers and text in nested containers; other objects count by their type,
    since their representation may hold an address."""
    import torch

    from compressors.inspect import tensor_bytes

    if isinstance(value, torch.Tensor):
        digest.update(f"{tuple(value.shape)}/{value.dtype}".encode())
        digest.update(tensor_bytes(value))
    elif isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.shape}/{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, (str, bytes, int, float, bool, np.generic)) or value is None:
        digest.update(repr(value).encode())
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _digest_value(digest, key)
            _digest_value(digest, part)
    elif isinstance(value, (tuple, list, np.ndarray)):
        for part in value:
            _digest_value(digest, part)
    else:
        digest.update(type(value).__qualname__.encode())
