"""Where real data sets are, on machines that have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def real_data(*needed: str) -> Path:
    """The folder of data, which holds the files and folders `needed`; else the test is skipped.

    Only where NASLITE_DATA says so: to score and train real models takes many minutes.
    """
    folder = Path(os.environ.get("NASLITE_DATA", ""))
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        pytest.skip(f"{missing[0]} is not here; set NASLITE_DATA to the folder that holds it")
    return folder
