"""naslite: search for compressed models. `from search import run, resume, open_study`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .build import check, open_study, resume, run

__all__ = ["check", "open_study", "resume", "run"]


def _check_siblings() -> None:
    """Fail early, naming the file, when something shadows one of our other packages."""
    home = Path(__file__).resolve().parent.parent
    for name in ("strategies", "compressors", "storage"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if found is None or found.parent.parent != home:
            raise ImportError(
                f"naslite's package {name!r} must be importable, but Python finds"
                f" {found or 'nothing'}; rename that file or folder, or run from another folder"
            )


def __getattr__(name: str) -> Any:
    if name in __all__:  # lazily: importing `search` must stay cheap
        from . import build

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_check_siblings()
