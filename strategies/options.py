"""Checking the options of a strategy: each error begins with the option that it is about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


class OptionChecks:
    """Checks the options of a strategy one by one, so that all problems come at once."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __call__(self, check: Callable[..., Any], name: str, value: object, *rule: Any) -> Any:
        """What `check(name, value, *rule)` returns; a ValueError is kept for `report`."""
        try:
            return check(name, value, *rule)
        except ValueError as error:
            self.problems.append(str(error))
            return value

    def report(self) -> None:
        """Raise what was found.

        Raises:
            ValueError: A line for each problem, each beginning with an option's name.
        """
        if self.problems:
            raise ValueError("\n".join(self.problems))


def one_of(name: str, value: object, known: Sequence[str]) -> Any:
    """An option that must be one of some words.

    Raises:
        ValueError: It is something else; the message begins with the option's name.
    """
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def flag(name: str, value: object) -> bool:
    """An option that must be true or false.

    Raises:
        ValueError: It is something else; the message begins with the option's name.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


def whole_number(name: str, value: object, low: int) -> int:
    """An option that must be an integer >= low.

    Raises:
        ValueError: It is something else; the message begins with the option's name.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be an integer >= {low}, got {value!r}")
    return value


def real_number(name: str, value: object, low: float, high: float = math.inf) -> float:
    """An option that must be a number in [low, high].

    Raises:
        ValueError: It is something else; the message begins with the option's name.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value < math.inf or value > high:  # type: ignore[operator]
        rule = f">= {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be a number {rule}, got {value!r}")
    return float(value)  # type: ignore[arg-type]
