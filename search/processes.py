"""A worker process as its pool sees it: started, spoken to, watched, stopped, killed."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import psutil

from .channel import Channel
from .jobs import BenchSpec
from .worker import end_group_with

# Our own command and not multiprocessing's, which would run the main script of the user again.
# -P: no file of the working folder is taken for a module of Python before the path is set.
COMMAND = (sys.executable, "-P", "-u", "-c")
BOOTSTRAP = (
    "import json, sys; sys.path[:], sys.argv[:], numbers = json.loads(sys.argv[1]);"
    " from search.worker import main; main(*numbers)"
)
END_S = 1.0  # within which a process ends after its connection has
REAP_S = 10.0  # within which the kernel ends what was killed, unless a device hangs


class WorkerProcess:
    """A process that makes a bench and serves jobs over `channel`.

    It is the leader of a session and process group of its own, so the Ctrl-C of a terminal does
    not reach it. What it starts is stopped and killed with it, and ends with our own process; only
    what leaves the group for a session of its own may survive the sudden death of either.

    Args:
        scratch: Where it gets a folder for temporary files (TMPDIR), removed when it is dead.

    Raises:
        OSError: The system cannot start another process.
    """

    def __init__(
        self,
        spec: BenchSpec,
        *,
        log: Path | None = None,
        environment: Mapping[str, str],
        scratch: Path | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        try:
            lifeline, self._lifeline = os.pipe()
        except OSError:
            ours.close()
            theirs.close()
            raise
        self.channel = Channel(ours)
        self._scratch: str | None = None
        self._family: dict[int, psutil.Process] = {}  # what it has started, as last seen
        numbers = (theirs.fileno(), lifeline, os.getpid(), _thread_is_lasting())
        settings = json.dumps([_absolute(sys.path), sys.argv, numbers])
        try:
            if scratch is not None:
                self._scratch = tempfile.mkdtemp(prefix="worker-", dir=scratch)
                environment = {**environment, "TMPDIR": self._scratch}
            with _appending(log) as output:
                self._process = subprocess.Popen(
                    [*COMMAND, BOOTSTRAP, settings],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment},
                    pass_fds=(theirs.fileno(), lifeline),
                    start_new_session=True,
                )
            if sys.platform == "linux":
                # It does so itself, too, once it runs; but it may be paused before that.
                end_group_with(lifeline, self._process.pid)
            self._facts = psutil.Process(self._process.pid)
            self.channel.send(pickle.dumps(spec))
        except BaseException:
            self._close()  # which ends a process that was started after all
            raise
        finally:
            theirs.close()
            os.close(lifeline)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        """Whether it has ended; it is not reaped, so its number is still its own."""
        try:
            return bool(self._facts.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True
        except OSError:  # too many open files: it cannot be looked at now
            return False

    def memory_bytes(self, limit: int) -> int:
        """Resident memory of the process and of all that it has started.

        Where that is above `limit`, pages that several of them share count once.
        """
        processes = [self._facts, *self._descendants()]
        resident = sum(_resident(process) for process in processes)
        if resident <= limit or len(processes) == 1:
            return resident
        return sum(_proportional(process) for process in processes)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> int:
        """Kill it with all that it has started, and reap it; gives its return code, each time."""
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
        try:
            return self._process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
        finally:
            self._close()

    def ending(self) -> bool:
        """Whether it ends by itself, now that its connection has ended."""
        deadline = time.monotonic() + END_S
        while not self.is_dead and time.monotonic() < deadline:
            time.sleep(0.002)
        return self.is_dead

    def _descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error, OSError):
            for process in self._facts.children(recursive=True):
                self._family[process.pid] = process
        with contextlib.suppress(OSError):
            self._family = {pid: each for pid, each in self._family.items() if each.is_running()}
        return list(self._family.values())

    def _signal(self, number: int) -> None:
        """Signal the process group, and what has left it for one of its own."""
        descendants = self._descendants()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for process in descendants:
            with contextlib.suppress(psutil.Error, OSError):
                process.send_signal(number)

    def _close(self) -> None:
        self.channel.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._scratch is not None:  # once it is dead, or will be at once
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None


def _thread_is_lasting() -> bool:
    return threading.current_thread() is threading.main_thread()


def _absolute(path: list[str]) -> list[str]:
    return [os.path.abspath(entry) for entry in path]


def _appending(log: Path | None) -> IO[bytes]:
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    return open(log or os.devnull, "ab")


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except (psutil.Error, OSError):
        return 0


def _proportional(process: psutil.Process) -> int:
    try:
        found = process.memory_full_info()
    except (psutil.Error, OSError):
        return _resident(process)
    return int(getattr(found, "pss", found.uss))
