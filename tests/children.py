"""Python processes that tests start, talk to by lines, and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

REPOSITORY = Path(__file__).parent.parent


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs this code, killed in the end; `sys.argv[1:]` are the arguments."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Wait until the process prints this line; fails if it ends before."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line, f"exit code {process.poll()}"


def run_to_the_end(code: str, *arguments: object) -> int:
    """The exit code; -9 if the process was killed with SIGKILL."""
    with child(code, *arguments) as process:
        process.communicate(timeout=120)
        return process.returncode


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def until(condition: Callable[[], T], what: str = "it", seconds: float = 90.0) -> T:
    """Poll until the condition holds, and give what it gave; fails at the deadline."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.02)
    return found
