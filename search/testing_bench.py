"""The bench that the contract of executors runs its jobs on."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

from storage.records import StageRun

from .jobs import Epoch, Progress

DEADLINE_S = 60.0
STEP_S = 0.005
LOADING = StageRun("loading", "key", {"from": "disk"}, 0.25, False)


class ContractBench:
    """Jobs that end in every way, with stages `loading` and `working`.

    Args:
        seconds: That it takes to be made.
        error: With which it cannot be made.
    """

    def __init__(self, seconds: float = 0.0, error: str = "") -> None:
        time.sleep(seconds)
        if error:
            raise ValueError(error)
        self._count = 0

    def echo(self, *values: Any, progress: Progress) -> tuple[Any, ...]:
        self._begin(progress)
        return values

    def count(self, *, progress: Progress) -> int:
        """How often this bench has been asked."""
        self._count += 1
        return self._count

    def nap(self, seconds: float, *, progress: Progress) -> None:
        time.sleep(seconds)

    def fail(self, message: str, *, progress: Progress) -> NoReturn:
        self._begin(progress)
        raise ValueError(message)

    def leave(self, code: int, *, progress: Progress) -> NoReturn:
        self._begin(progress)
        raise SystemExit(code)

    def die(self, *, progress: Progress) -> None:
        """Take the process down."""
        self._begin(progress)
        os.kill(os.getpid(), signal.SIGKILL)

    def train(self, epochs: int, *, progress: Progress) -> int:
        """Tell of so many epochs, of which the even ones are scored."""
        self._begin(progress)
        for number in range(1, epochs + 1):
            score = None if number % 2 else number / epochs
            progress("working", (LOADING,), Epoch(number, epochs, score))
        return epochs

    def hang(self, *, progress: Progress) -> NoReturn:
        self._begin(progress)
        while True:
            time.sleep(1)

    def meet(self, folder: Path, me: str, other: str, *, progress: Progress) -> bool:
        """Whether another job came to the folder while this one was there."""
        (folder / me).touch()
        return _appears(folder / other)

    def tick(self, folder: Path, *, progress: Progress) -> int:
        """Add bytes to a file `ticks` until there is a file `stop`; returns how many."""
        self._begin(progress)
        with (folder / "ticks").open("ab", buffering=0) as file:
            for count in itertools.count(1):
                file.write(b".")
                if (folder / "stop").exists():
                    return count
                time.sleep(STEP_S)
        raise AssertionError("unreachable")

    def _begin(self, progress: Progress) -> None:
        progress("loading", ())
        progress("working", (LOADING,))


def _appears(path: Path) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(STEP_S)
    return path.exists()
