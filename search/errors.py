"""Errors that a user can act on: one line each, no traceback, exit code 2.

`NasliteError` is the base; `storage.StoreError` stands beside it.

NasliteError
+-- ConfigError      all problems of a config file, each with its path in the file
+-- UnknownName      a strategy, compressor, runtime or verb that does not exist
+-- ExpressionError  a malformed `--where` or constraint
+-- TaskChanged      the task is not the one the study was created with
+-- BaselineFailed   the uncompressed model cannot be exported or measured
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from compressors.errors import Refused


class NasliteError(Exception):
    """Base of all errors that a user can act on."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a config, and where: `pipeline.0.structured_pruning.ratio.high`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(NasliteError):
    """Everything that is wrong with a config, found in one go."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{source}: {problem}" for problem in self.problems))


class UnknownName(NasliteError, ValueError):  # a ValueError, so that pydantic collects it
    pass


class ExpressionError(NasliteError, ValueError):
    pass


class TaskChanged(NasliteError):
    pass


class BaselineFailed(NasliteError):
    pass


def one_line(error: BaseException) -> str:
    """`ValueError: first line of its message`; a refusal speaks for itself."""
    try:
        text = str(error)
    except Exception:  # a `__str__` that fails itself
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(error, Refused) and lines:
        return lines[0]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def is_corruption(error: BaseException) -> bool:
    """Whether it says that stored files are not what was stored.

    A process that has not loaded the store, such as the timer's, cannot have raised it.
    """
    storage = sys.modules.get("storage.errors")
    return storage is not None and isinstance(error, storage.CorruptFiles)
