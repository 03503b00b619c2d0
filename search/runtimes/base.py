"""What a runtime is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import nn


class Session(Protocol):
    """A loaded artifact.

    Attributes:
        input_names: The names under which inputs are fed, in order.
    """

    input_names: list[str]

    def __call__(self, feed: Mapping[str, np.ndarray]) -> Any:
        """The output array, or a tuple of arrays if there are several."""
        ...


class Runtime(Protocol):
    """Writes, loads and inspects artifacts of one format.

    `version` is raised when the same model begins to give another file; `libraries` names the
    distributions whose versions matter. Both are part of the export's cache key. A runtime may
    name the Python modules that `load` imports in `modules`: they are no part of a file's weight.
    """

    format: str
    main_file: str
    version: int
    libraries: tuple[str, ...]

    def export(self, model: nn.Module, inputs: Any, path: Path) -> str:
        """Write the model with a dynamic batch dimension; returns a note for the user, or "".

        Args:
            inputs: Example inputs, samples along dimension 0 of every tensor.

        Raises:
            compressors.base.Refused: The model cannot be exported.
        """
        ...

    def load(self, path: Path, *, threads: int) -> Session: ...

    def inspect(self, path: Path) -> dict[str, float]:
        """`parameters`, and `macs` of one sample, counted in the file's graph."""
        ...

    def loading_example(self, path: Path, *, threads: int) -> list[str]:
        """Lines of Python that load and call the artifact with this runtime alone."""
        ...


def renamed(feed: Mapping[str, np.ndarray], names: list[str]) -> Mapping[str, np.ndarray]:
    """The same arrays under a file's own input names, which depend on the exporter.

    Raises:
        ValueError: The file has more or fewer inputs.
    """
    if len(feed) != len(names):
        raise ValueError(f"the file takes {names}, the task's inputs() gives {len(feed)} tensors")
    return feed if feed.keys() == set(names) else dict(zip(names, feed.values(), strict=True))
