"""Text that may be shown to others: without paths of this machine and without passwords."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

_FILE_URL = re.compile(r"\b(sqlite|file):/{3,}(?:[^\s'\"]*/)?")
_LOGIN = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/'\"]*@", re.IGNORECASE)
# A word or a dot before the slash means a relative path, a second slash the host of a URL.
_PATH = re.compile(r"(?<![\w./…])/(?!/)(?:[\w.+@~-]+/)+(?=[\w.+@~-])")
_WINDOWS = re.compile(r"\b[A-Za-z]:\\(?:[^\\\s'\"]+\\)*")


def redactor(folders: Iterable[str]) -> Callable[[str], str]:
    """A function that shortens absolute paths to `…/name` and leaves logins out of URLs.

    Args:
        folders: Known ones, which may have spaces in their names.
    """
    own = {*folders, str(Path.home()), os.getcwd(), tempfile.gettempdir()}
    known = sorted((f.rstrip("/") for f in own if f.count("/") > 1 or " " in f), key=len)[::-1]
    names = {folder: f"…/{Path(folder).name}" for folder in known}

    def redacted(text: str) -> str:
        if "/" not in text and "\\" not in text:
            return text
        for folder, name in names.items():
            text = text.replace(f"{folder}/", "…/").replace(folder, name)
        text = _LOGIN.sub(r"\1…@", _FILE_URL.sub(r"\1:///…/", text))
        return _WINDOWS.sub("…/", _PATH.sub("…/", text))

    return redacted


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A value with every text in it changed: of frozen dataclasses, mappings and sequences."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {mapped(k, change): mapped(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(part, change) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: mapped(getattr(value, f.name), change) for f in fields(value)}
        return replace(value, **found)
    return value
