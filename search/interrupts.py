"""Ctrl-C and SIGTERM: at once, or, while trials run, noted first and at once the second time."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Raises KeyboardInterrupt on a signal, and remembers it.

    Libraries may swallow the exception or turn it into one of their own (torch.export does);
    `pending` still tells.
    """

    def __init__(self) -> None:
        self.pending = False
        self._deferred = False
        self._noticed: Callable[[], None] = lambda: None
        self._shielded = False

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came."""
        if self.pending:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self, noticed: Callable[[], None] = lambda: None) -> Iterator[None]:
        """In the block the first signal is only noted; the second one raises.

        Args:
            noticed: Called by the first signal's handler.
        """
        before = self._deferred, self._noticed
        self._deferred, self._noticed = True, noticed
        try:
            yield
        finally:
            self._deferred, self._noticed = before

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Finish the block whatever comes; a signal is remembered."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals here; outside the main thread, Python does not allow it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            first, self.pending = not self.pending, True
            if first:
                self._noticed()
            if self._shielded or (self._deferred and first):
                return
            raise KeyboardInterrupt

        before: dict[int, Any] = {number: signal.signal(number, handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
