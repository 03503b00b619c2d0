"""Reading a csv or csv.gz by columns."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import NasliteError
from search.registry import unknown_name

from .problem_file import Scalar, scalar_key

Column = np.ndarray[Any, Any]


class CsvTable:
    """The rows of a csv(.gz) with a header.

    Args:
        where: Columns that must have these values; other rows are left out.

    Raises:
        NasliteError: The file cannot be read, or no row is left.
    """

    def __init__(self, path: Path, where: Mapping[str, Scalar]) -> None:
        opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
        try:
            with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
                rows = [row for row in csv.reader(lines) if row]
        except (OSError, EOFError, ValueError, csv.Error) as error:
            raise NasliteError(f"path: cannot read {path}: {error}") from None
        self.header = [name.strip() for name in rows[0]] if rows else []
        self.rows = rows[1:]
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.header):
                raise NasliteError(
                    f"path: row {number} has {len(row)} cells, the header {len(self.header)}"
                )
        for name, value in where.items():
            kept = [scalar_key(cell) == scalar_key(value) for cell in self.scalars(name, "where")]
            self.rows = [row for row, keep in zip(self.rows, kept, strict=True) if keep]
        if not self.rows:
            raise NasliteError("path: the table has no row" + " that `where` keeps" * bool(where))

    def cells(self, name: str, path: str) -> list[str]:
        if name not in self.header:
            raise NasliteError(f"{path}: {unknown_name('column', name, self.header)}")
        position = self.header.index(name)
        return [row[position].strip() for row in self.rows]

    def scalars(self, name: str, path: str) -> list[Scalar]:
        """The column as true/false, integers, numbers or text: the first that suits all cells."""
        cells = self.cells(name, path)
        converters: tuple[Callable[[str], Scalar], ...] = (_boolean, int, float)
        for convert in converters:
            try:
                return [convert(cell) for cell in cells]
            except ValueError:
                continue
        return list(cells)

    def numbers(self, name: str, path: str) -> Column:
        """The column as float64; NaN where a cell is empty."""
        numbers = []
        for row, cell in enumerate(self.cells(name, path), 1):
            try:
                numbers.append(float(cell or "nan"))
            except ValueError:
                raise NasliteError(
                    f"{path}: column {name!r} must hold numbers, got {cell!r} in row {row};"
                    " an empty cell means that a value is missing"
                ) from None
        return np.array(numbers)


def _boolean(cell: str) -> bool:
    if cell.lower() not in ("true", "false"):
        raise ValueError(f"{cell!r} is neither true nor false")
    return cell.lower() == "true"
