"""Jobs that do to a process, or to what it starts, whatever a job can do."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]


class Bench:
    """Each method is a job."""

    def __init__(self):
        self._kept = []

    def echo(self, *values, progress):
        return values

    def touch(self, path, *, progress):
        Path(path).touch()

    def print(self, text, *, progress):
        print(text)
        raise ValueError("printed")

    def facts(self, *, progress):
        """What a process looks like from inside."""
        return {
            "pid": os.getpid(),
            "group": os.getpgrp(),
            "session": os.getsid(0),
            "niceness": os.nice(0),
            "stdin": os.readlink("/proc/self/fd/0"),
            "environment": dict(os.environ),
            "modules": set(sys.modules),
            "arguments": sys.argv,
            "threads": threading.active_count(),
            "oom_score": int(Path("/proc/self/oom_score_adj").read_text()),
        }

    # Deaths

    def signal(self, number, *, progress):
        progress("quantize", ())
        os.kill(os.getpid(), number)
        time.sleep(1000)

    def segfault(self, *, progress):
        progress("quantize", ())
        ctypes.string_at(0)

    def leave(self, code, *, progress):
        progress("quantize", ())
        os._exit(code)

    def leave_later(self, *, progress):
        """Die after having returned."""
        threading.Timer(0.1, os._exit, (3,)).start()
        return "returned"

    def close_everything(self, *, progress):
        os.closerange(3, 1000)
        time.sleep(1000)

    def babble(self, message, *, progress):
        """Write bytes that are no message into the connection to the pool, and wait."""
        progress("quantize", ())
        for descriptor in range(3, 100):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, message)
        time.sleep(1000)

    # Hangs

    def hang(self, path, *, progress):
        write_pids(path, os.getpid())
        time.sleep(1000)

    def hang_in_c(self, path, *, progress):
        """Hold Python's lock for ever."""
        progress("export", ())
        write_pids(path, os.getpid())
        ctypes.PyDLL(None).sleep(1000)

    def talk(self, *, progress):
        """Never come to an end of telling."""
        while True:
            progress("talk", ())

    # Memory

    def allocate(self, size, *, progress):
        progress("distil", ())
        self._kept.append(_filled(size))
        time.sleep(1000)

    def allocate_below(self, size, *, progress):
        """Let a process that it starts take the memory."""
        progress("distil", ())
        code = f"import time; kept = bytearray(b'x') * {size}; time.sleep(1000)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def share(self, size, children, seconds, *, progress):
        """Keep memory that forked children see, too, without a copy of their own."""
        shared = _filled(size)
        found = [_forked_sleep() for _ in range(children)]
        time.sleep(seconds)
        for child in found:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return len(shared)

    # What cannot be told

    def unpicklable(self, *, progress):
        return lambda: None

    def unreadable(self, *, progress):
        return Unreadable()

    def unspeakable(self, *, progress):
        raise Unspeakable

    def interrupt(self, *, progress):
        raise KeyboardInterrupt

    def interrupt_main(self, *, progress):
        """Send itself what Ctrl-C and batch systems send."""
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        _thread.interrupt_main()
        time.sleep(0.05)
        return "still here"

    def find_damage(self, is_stored, *, progress):
        from storage import CorruptFiles

        class Alike(Exception):
            pass

        Alike.__name__ = "CorruptFiles"
        raise (CorruptFiles if is_stored else Alike)("it has 6 bytes, not 7")

    def large(self, size, path, *, progress):
        Path(path).touch()
        return b"x" * size

    # Children

    def start(self, path, apart=False, then="wait", *, progress):
        """Start a process, write its number and ours, and wait or die."""
        child = subprocess.Popen(SLEEP, start_new_session=apart)
        self._kept.append(child)
        write_pids(path, os.getpid(), child.pid)
        if then == "die":
            os._exit(3)
        if then == "hang in C":
            ctypes.PyDLL(None).sleep(1000)
        time.sleep(1000)

    def terminate_children(self, *, progress):
        """How a started and a forked process end on SIGTERM."""
        started = subprocess.Popen(SLEEP)
        started.terminate()
        forked = _forked_sleep()
        os.kill(forked, signal.SIGTERM)
        return started.wait(), os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])


class Unreadable:
    def __reduce__(self):
        return _refuse, ()


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError


class Hanging:
    def __init__(self):
        time.sleep(1000)


class Dying:
    def __init__(self):
        os._exit(4)


class Hungry:
    def __init__(self, size):
        self._kept = _filled(size)
        time.sleep(1000)


class Hiccup:
    """Cannot be made as often as `times`, which a file counts."""

    def __init__(self, path, times, error, after=0):
        with Path(path).open("a") as file:
            file.write(".")
        made = Path(path).stat().st_size
        if after < made <= after + times:
            if error is None:
                time.sleep(1000)
            raise error

    def echo(self, *values, progress):
        return values

    def leave(self, code, *, progress):
        os._exit(code)


class Leaving:
    def __init__(self):
        sys.exit("no such data set")


def write_pids(path, *pids):
    """In one step, so that a reader finds all or nothing."""
    part = Path(f"{path}.part")
    part.write_text(" ".join(map(str, pids)))
    part.rename(path)


def _filled(size):
    return bytearray(b"x") * size


def _forked_sleep():
    child = os.fork()
    if child == 0:
        time.sleep(1000)
        os._exit(0)
    return child


def _refuse():
    if "pytest" in sys.modules:
        raise ValueError("not here")
    return None
