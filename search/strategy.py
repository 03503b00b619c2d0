"""Making the strategy that a config names, with its options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import strategies
from strategies.base import Strategy, capabilities

from .errors import NasliteError, Problem
from .registry import load, unknown_name


def make_strategy(
    name: str, options: Mapping[str, Any], folder: Path, problems: list[Problem]
) -> Strategy | None:
    """The strategy under a name, entry point or `file.py:Class`; needs neither task nor model.

    Args:
        options: Keyword arguments of its class. Where that takes any (`**options`), it checks
            their names itself.
        folder: Where the file of a `file.py:Class` is looked for.
        problems: Joined by whatever is wrong; the result is None then.
    """
    try:
        found = load("strategy", "strategies", name, strategies.BUILTIN, folder)
    except NasliteError as error:
        problems.append(Problem("strategy.name", str(error)))
        return None
    if not callable(found):
        problems.append(Problem("strategy.name", f"{name} must be a class, got {found!r}"))
        return None
    known, takes_any = _option_names(found)
    unknown = [] if takes_any else [option for option in options if option not in known]
    for option in unknown:
        problems.append(Problem(f"strategy.{option}", unknown_name("option", option, known)))
    if unknown:
        return None
    try:
        strategy = found(**options)
    except (TypeError, ValueError, ImportError) as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            problems.append(Problem(_path(line, {*known, *options}), line))
        return None
    except Exception as error:
        text = f"making {name!r} failed: {type(error).__name__}: {error}"
        problems.append(Problem("strategy", text))
        return None
    if not isinstance(strategy, Strategy):
        problems.append(Problem("strategy.name", f"{name} must define propose()"))
        return None
    try:
        capabilities(strategy)
    except TypeError as error:
        problems.append(Problem("strategy.name", f"{name}: {error}"))
        return None
    return strategy


def _option_names(found: Any) -> tuple[list[str], bool]:
    """The options that a class names, and whether it takes others as well."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # some classes written in C
        return [], True
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [parameter.name for parameter in parameters if parameter.kind in named]
    return known, any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def _path(message: str, options: Collection[str]) -> str:
    """Where in the config a message belongs.

    It may begin with the option that it is about, or with "unknown <option>" or "unknown option
    <option>".
    """
    first, *others = re.findall(r"\w+", message)[:3] or [""]
    words = others if first == "unknown" else [first]
    named = [word for word in words if word in options]
    return f"strategy.{named[0]}" if named else "strategy"
