"""What a user's task is, and what a compressor is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from strategies.space import Knob

from .errors import Refused as Refused

if TYPE_CHECKING:
    from torch import Tensor, nn

Options = Mapping[str, Any]
Recipe = dict[str, Any]


class Task:
    """A user's trained model, its data and its quality metric.

    Subclass it and write `model` and the three kinds of batches. A batch is whatever the methods
    below agree on; the defaults take `(inputs, labels)` tensors, samples along dimension 0.
    Batches must be the same on every call, up to the global random state, which naslite seeds.

    `task_options:` of the config are keyword arguments of a subclass's own `__init__`.
    """

    score_name: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, **options: Any) -> None:
        if options:
            raise TypeError(
                f"{type(self).__name__} takes no option {sorted(options)[0]!r};"
                " give it an __init__ with the options that it has"
            )

    def model(self) -> nn.Module:
        """The trained model."""
        raise TypeError(f"{type(self).__name__} must define model()")

    def train_batches(self) -> Iterable[Any]:
        """One epoch of training data."""
        raise TypeError(f"{type(self).__name__} must define train_batches()")

    def calibration_batches(self) -> Iterable[Any]:
        """Some hundred samples for the ranges of quantized activations."""
        raise TypeError(f"{type(self).__name__} must define calibration_batches()")

    def eval_batches(self) -> Iterable[Any]:
        """The search split: every candidate is scored on it."""
        raise TypeError(f"{type(self).__name__} must define eval_batches()")

    def audit_batches(self) -> Iterable[Any] | None:
        """A split that the search never sees; None if there is none."""
        return None

    def inputs(self, batch: Any) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        """What the model is called with."""
        inputs: Tensor = batch[0]
        return inputs

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """The training loss, a scalar tensor; default: cross-entropy with the labels."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, batch[1])

    def records(self, outputs: Any, batch: Any) -> np.ndarray:
        """Per-sample records of a batch, samples along axis 0; default: 1.0 where correct.

        Args:
            outputs: What the exported file gave, a numpy array (a tuple for several outputs).
        """
        correct: np.ndarray = outputs.argmax(axis=-1) == np.asarray(batch[1])
        return correct.astype(np.float64)

    def score(self, records: np.ndarray) -> float:
        """The score of the whole set from all its records; default: their mean."""
        return float(np.mean(records))


@dataclass(frozen=True, slots=True)
class Earlier:
    """The result of the same training with fewer epochs, to go on from.

    Args:
        epochs: How many it has had.
        state: What it handed to `Context.keep`.
    """

    epochs: int
    model: nn.Module
    state: Mapping[str, Tensor]


def _unheard(epoch: int, epochs: int, model: nn.Module) -> None: ...


def _dropped(state: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a compressor may use besides the model.

    Args:
        original: Returns a fresh copy of the uncompressed model.
        seed: For every random choice of this stage.
        workdir: An empty folder for the files of an artifact compressor.
        device: Where models are trained, `cpu` or `cuda`; what is given back lies on the CPU.
        amp: The number format of a mixed-precision training on `cuda`: none, bf16 or fp16.
        epoch_ended: To be called after each epoch of a training with its number (from 1), of how
            many, and the model as it is then; what it raises must be let through.
        earlier: See `TrainingCompressor.continues`.
        keep: Takes the tensors with which a longer training could go on from this one's end.
    """

    task: Task
    original: Callable[[], nn.Module]
    seed: int
    workdir: Path
    device: str = "cpu"
    amp: str = "none"
    epoch_ended: Callable[[int, int, nn.Module], None] = _unheard
    earlier: Earlier | None = None
    keep: Callable[[Mapping[str, Tensor]], None] = _dropped


@runtime_checkable
class ModelCompressor(Protocol):
    """nn.Module -> nn.Module; deterministic by seed, never mutates its input.

    `version` is raised when the same options begin to give another result; `libraries` names the
    distributions whose versions matter. Both are part of a stage's cache key. It may also have a
    `kind`, `prune` or `distil`, by which a config with another order is refused.
    """

    version: int
    libraries: tuple[str, ...]

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]:
        """The knobs with all values that are legal, without the compressor's name in front."""
        ...

    def apply(
        self, model: nn.Module, options: Options, context: Context
    ) -> tuple[nn.Module, Recipe]:
        """The compressed model, and JSON from which `replay` rebuilds its structure.

        Raises:
            Refused: It cannot be done.
        """
        ...

    def replay(self, model: nn.Module, recipe: Recipe) -> nn.Module:
        """The structure that a recipe describes; the weights come from a state dict."""
        ...


@runtime_checkable
class TrainingCompressor(ModelCompressor, Protocol):
    """A model compressor that trains; how many epochs, its option `epochs` says."""

    def epochs(self, options: Options) -> int:
        """Of how many epochs it will tell `context.epoch_ended`."""
        ...

    def continues(self, options: Options) -> bool:
        """Whether a training with more epochs begins with exactly this one.

        Its seed does then not depend on `epochs`, and it goes on from `context.earlier` where
        there is such, with the same result as from the beginning.
        """
        ...


@runtime_checkable
class ArtifactCompressor(Protocol):
    """File set -> file set, after export; if it has a `kind`, that is `cluster` or `quantize`."""

    version: int
    libraries: tuple[str, ...]
    formats: frozenset[str]

    def knobs(self, model: nn.Module, task: Task) -> list[Knob]: ...

    def apply(self, path: Path, options: Options, context: Context) -> Path:
        """The main file of a new file set in `context.workdir`, named as `path` is.

        Raises:
            Refused: It cannot be done.
        """
        ...
