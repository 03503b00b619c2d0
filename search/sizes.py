"""Bytes as people write them: `4 GB`, `512 MB`."""

from __future__ import annotations

import re

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SMALLEST = 10**6
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(text: str | int) -> int:
    """The number of bytes that a text such as `4 GB` or `512MiB`, or a whole number, means.

    Raises:
        ValueError: It is something else, or less than a megabyte: somebody forgot the unit.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    unit = UNITS.get((match[2] or "B").upper()) if match else None
    found = int(float(match[1]) * unit) if match and unit else 0
    if isinstance(text, bool) or found < SMALLEST:
        raise ValueError(
            f"a size must be like '4 GB', '512 MB' or '2 GiB', at least 1 MB, got {text!r}"
        )
    return found


def format_bytes(size: float) -> str:
    """`4.2 GB`: three digits, decimal units."""
    for unit in ("TB", "GB", "MB", "kB"):
        scale = UNITS[unit.upper()]
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size:.0f} B"
