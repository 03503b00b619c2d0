"""Whether an exported file does what the model does that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from compressors.arrays import named_arrays
from compressors.base import Refused

from .errors import one_line
from .measure import check_outputs
from .runtimes.base import Session

if TYPE_CHECKING:
    from torch import nn

PARITY = 1e-3  # largest difference between a model and its exported file, relative
LEAST = 1e-3  # outputs below count as so large: they are what rounding leaves of larger numbers


def check_parity(model: nn.Module, session: Session, inputs: Any) -> None:
    """Compare an exported file with the model that it was made from, on the same inputs.

    Args:
        session: The file, loaded; nothing has been quantized in it yet.

    Raises:
        Refused: They disagree, so the exporter has lost something.
        ValueError: The model's own outputs hold NaN.
    """
    import torch

    from compressors.inspect import forward, tensors_in

    with torch.no_grad():
        wanted = list(tensors_in(forward(model, inputs)))
    try:
        given = session(named_arrays(inputs, session.input_names))
    except Exception as error:
        raise Refused(f"the exported file does not run ({one_line(error)})") from error
    arrays = given if isinstance(given, tuple) else (given,)
    if len(arrays) != len(wanted):
        raise Refused(f"the exported file has {len(arrays)} outputs, the model {len(wanted)}")
    for tensor, array in zip(wanted, arrays, strict=True):
        expected = tensor.numpy()
        check_outputs(expected)
        if array.shape != expected.shape:
            raise Refused(
                f"the exported file gives shape {array.shape}, the model {expected.shape}"
            )
        if np.isnan(array).any():
            raise Refused("the exported file's outputs hold NaN, the model's do not")
        off = _difference(array, expected)
        if not off <= PARITY:
            raise Refused(
                f"the exported file disagrees with the model by {off:.2g} of its largest"
                f" output (at most {PARITY:g} is allowed): the exporter lost something"
            )


def _difference(array: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest finite output but at least to LEAST."""
    given, wanted = array.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(wanted[np.isfinite(wanted)])
    differing = given != wanted  # infinities that agree have no difference
    off = np.abs(given[differing] - wanted[differing])
    return float(off.max(initial=0.0)) / max(LEAST, float(finite.max(initial=0.0)))
