"""Optuna's warnings and log lines about its inner workings, kept away from our users."""

from __future__ import annotations

import contextlib
import contextvars
import inspect
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

# These report that a fit fell back to defaults or found little to improve.
_LOGGERS = ("optuna._gp.batched_lbfgsb", "optuna._gp.gp", "optuna._gp.optim_mixed")

_asking: contextvars.ContextVar[bool] = contextvars.ContextVar("asking_optuna", default=False)
_warnings_lock = threading.Lock()


def _is_wanted(record: logging.LogRecord) -> bool:
    return not _asking.get()


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_is_wanted)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it, in this thread, samplers log nothing and numpy does not warn."""
    token = _asking.set(True)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _asking.reset(token)


def new_sampler(sampler: type, arguments: dict[str, Any], *, experimental: bool) -> Any:
    """A sampler made without the warning that its class is experimental.

    Args:
        experimental: Whether its arguments are, too. Only then are the warnings of the whole
            process switched off, for the microseconds that it takes.
    """
    made: Any = object.__new__(sampler)
    initialise = inspect.unwrap(sampler.__init__)  # type: ignore[misc]
    if not experimental:
        initialise(made, **arguments)
        return made
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        initialise(made, **arguments)
    return made
