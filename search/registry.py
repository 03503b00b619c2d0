"""Names in a config to code: visible tables, entry points and `file.py:attribute`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import NasliteError, UnknownName


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """`unknown strategy 'gentic'; did you mean 'genetic'? known: genetic, random`."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names)}"


def known_names(group: str, builtin: Mapping[str, str]) -> list[str]:
    """Built-in names and those of installed distributions (`naslite.<group>` entry points)."""
    return sorted({*builtin, *(p.name for p in entry_points(group=f"naslite.{group}"))})


def check_name(kind: str, group: str, name: str, builtin: Mapping[str, str]) -> None:
    """Check a name without importing anything.

    Raises:
        UnknownName: It is neither built in, nor an entry point, nor `file.py:attribute`.
    """
    if not is_file_reference(name) and name not in known_names(group, builtin):
        raise UnknownName(unknown_name(kind, name, known_names(group, builtin)))


def load(kind: str, group: str, name: str, builtin: Mapping[str, str], folder: Path) -> Any:
    """The object behind a name.

    Args:
        kind: The word for it in messages: strategy, compressor, runtime.
        folder: Where the file of a `file.py:attribute` reference is looked for.

    Raises:
        UnknownName: See `check_name`.
        NasliteError: The file or the attribute does not exist.
    """
    if is_file_reference(name):
        return load_reference(name, folder)
    check_name(kind, group, name, builtin)
    if name in builtin:
        module, _, attribute = builtin[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    (point,) = entry_points(group=f"naslite.{group}", name=name)
    return point.load()


def is_file_reference(name: str) -> bool:
    return name.partition(":")[0].endswith(".py")


def load_reference(reference: str, folder: Path) -> Any:
    """The attribute of `file.py:attribute` (beside the config) or `package.module:attribute`.

    Raises:
        NasliteError: It is malformed, or the file, module or attribute does not exist.
    """
    source, _, attribute = reference.partition(":")
    if not source or not attribute:
        raise NasliteError(
            f"must be file.py:Name or package.module:Name, got {reference!r}; add what is missing"
        )
    module = _file_module(folder / source) if source.endswith(".py") else _module(source)
    if not hasattr(module, attribute):
        names = [n for n in vars(module) if isinstance(getattr(module, n), type)]
        own = [n for n in names if getattr(module, n).__module__ == module.__name__]
        raise NasliteError(
            f"no {attribute!r} in {source}; its classes: {', '.join(own) or 'none'}"
        )
    return getattr(module, attribute)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise NasliteError(f"cannot import {name!r}: {error}") from None


def _file_module(path: Path) -> ModuleType:
    """A file as a module under a private name, so that it shadows nothing.

    Modules beside the file can be imported by it: its folder comes last on the path.
    """
    path = path.resolve()
    if not path.is_file():
        raise NasliteError(f"the file {path} does not exist")
    name = f"_naslite_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if str(path.parent) not in sys.path:
        for ours in ("compressors", "storage", "strategies"):  # before a user's can be found
            importlib.import_module(ours)
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        line = _line_in(error, path)
        raise NasliteError(
            f"importing {path.name} failed{line}: {type(error).__name__}: {error}"
        ) from error
    return module


def _line_in(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f" at line {error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f" at line {lines[-1]}" if lines else ""
