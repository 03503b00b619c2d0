"""Whether an exported file does what its model does, whatever the size of the outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressors.base import Refused
from search.parity import check_parity

INPUTS = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)


class File:
    """Stands for the session of a file: it gives the outputs that it was made with."""

    input_names = ["x"]

    def __init__(self, outputs: np.ndarray) -> None:
        self.outputs = outputs

    def __call__(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        assert feed["x"].shape == (4, 3)
        return self.outputs


def scaled(size: float) -> tuple[nn.Module, np.ndarray]:
    """A model whose outputs are at most so large, and those."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.mul_(size / model(INPUTS).abs().max())
        model.bias.zero_()
        model.weight.mul_(size / model(INPUTS).abs().max())
        return model, model(INPUTS).numpy()


@pytest.mark.parametrize("size", [0.002, 0.05, 1.0, 3e4])
def test_a_difference_is_judged_by_the_size_of_the_outputs(size: float) -> None:
    model, outputs = scaled(size)
    check_parity(model, File(outputs * (1 + 5e-4)), INPUTS)
    with pytest.raises(Refused, match="disagrees with the model by"):
        check_parity(model, File(outputs * (1 + 5e-3)), INPUTS)


def test_what_rounding_leaves_of_nothing_is_no_difference() -> None:
    model, outputs = scaled(1e-12)
    check_parity(model, File(outputs + 5e-7), INPUTS)
    with pytest.raises(Refused, match="disagrees with the model by"):
        check_parity(model, File(outputs + 5e-6), INPUTS)


def test_shapes_and_nan_are_refused() -> None:
    model, outputs = scaled(1.0)
    with pytest.raises(Refused, match=r"gives shape \(4, 1\), the model \(4, 2\)"):
        check_parity(model, File(outputs[:, :1]), INPUTS)
    with pytest.raises(Refused, match="hold NaN"):
        check_parity(model, File(outputs * np.nan), INPUTS)
