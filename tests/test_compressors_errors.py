"""Which errors are the machine's, and must not become refusals."""

from __future__ import annotations

import inspect
import os

import numpy as np
import pytest
import torch

from compressors.errors import is_of_the_machine


def without_source():
    namespace = {}
    exec("def f(): pass", namespace)
    inspect.getsource(namespace["f"])


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (lambda: os.mkdir("/proc/none"), True),
        (lambda: np.empty(2**60, np.uint8), True),
        (lambda: torch.empty(2**50, dtype=torch.uint8), True),
        (without_source, False),
        (lambda: torch.zeros(2) @ torch.zeros(3), False),
        (lambda: [][0], False),
    ],
    ids=["file", "numpy", "torch", "source", "shapes", "index"],
)
def test_errors_of_the_machine_are_told_from_those_of_a_model(fails, expected):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fails()
    assert is_of_the_machine(caught.value) == expected
