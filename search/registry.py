"""Names in a config to code: visible tables, entry points and `file.py:attribute`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import NasliteError, UnknownName

OUR_PACKAGES = ("compressors", "search", "storage", "strategies")


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """`unknown strategy 'gentic'; did you mean 'genetic'? known: genetic, random`."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {kind} {name!r}{hint} known: {', '.join(names) or 'none'}"


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
        NasliteError: The file or the attribute does not exist, what a distribution installs
            cannot be imported, or two distributions install the name.
    """
    if is_file_reference(name):
        return load_reference(name, folder)
    check_name(kind, group, name, builtin)
    if name in builtin:
        module, _, attribute = builtin[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    return _installed(kind, name, list(entry_points(group=f"naslite.{group}", name=name)))


def _installed(kind: str, name: str, points: list[EntryPoint]) -> Any:
    if len(points) > 1:
        sources = ", ".join(sorted(point.dist.name for point in points if point.dist))
        raise NasliteError(f"{kind} {name!r} is installed by {sources}; uninstall all but one")
    (point,) = points
    try:
        return point.load()
    except Exception as error:
        source = f" of {point.dist.name}" if point.dist else ""
        raise NasliteError(
            f"the entry point {name} = {point.value}{source} cannot be loaded:"
            f" {type(error).__name__}: {error}"
        ) from error


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
    except Exception as error:
        raise NasliteError(
            f"importing {name!r} failed: {type(error).__name__}: {error}"
        ) from error


def _file_module(path: Path) -> ModuleType:
    """A file as a module under a private name, so that it shadows nothing.

    Modules beside the file can be imported by it: its folder comes last on the path.
    """
    path = path.resolve()
    if not path.is_file():
        raise NasliteError(f"the file {path} does not exist")
    name = f"_naslite_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    for ours in OUR_PACKAGES:  # before a user's of the same name can be found
        importlib.import_module(ours)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    for beside in modules_below(path.parent):  # read again, as they are now
        del sys.modules[beside]
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


def modules_below(folder: Path) -> dict[str, Path]:
    """The loaded modules of a user's folder: name -> file; not ours, nor the installed ones."""
    found = {}
    installed = [Path(p).resolve() for p in (sys.prefix, sys.base_prefix)]
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        # multiprocessing knows the main module by a second name.
        private = module is sys.modules.get("__main__") or name.startswith("_naslite_")
        if not file or private or name.split(".")[0] in OUR_PACKAGES:
            continue
        if not os.path.isabs(file) or not os.path.isfile(file):  # torch.ops says `_ops.py`
            continue
        path = Path(file).resolve()
        if folder in path.parents and not any(place in path.parents for place in installed):
            found[name] = path
    return found


def source_digest(found: object) -> str:
    """SHA-256 (hex) of the file that a `file.py:attribute` came from; "" for anything else.

    What a distribution installs has a version; a user's file has only its content.
    """
    module = sys.modules.get(getattr(found, "__module__", ""), None)
    file = getattr(module, "__file__", None)
    if module is None or not file or not module.__name__.startswith("_naslite_"):
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


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
