"""Python processes that tests start, talk to by lines, and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
