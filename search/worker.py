"""The main loop of a worker process: it makes its bench once, then runs one job at a time.

It loads next to nothing itself: what a worker weighs is its bench.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import os
import pickle
import pkgutil
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .channel import BlockingChannel
from .errors import is_corruption, one_line
from .protocol import answer

if TYPE_CHECKING:
    from storage.records import StageRun

    from .jobs import BenchSpec, Epoch

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ETIMEDOUT)
OOM_SCORE = 500  # of at most 1000: a machine out of memory kills workers before their controller


def main(connection: int, lifeline: int, parent: int, thread_is_lasting: bool) -> NoReturn:
    """Serve the pool at the other end of `connection` until it closes it, dies or kills us.

    Args:
        connection: The descriptor of a stream socket.
        lifeline: The reading end of a pipe whose writing end only the pool holds.
        parent: The pool's process id.
        thread_is_lasting: Whether the thread that started us lives as long as its process.
    """
    for descriptor in (connection, lifeline):
        os.set_inheritable(descriptor, False)
    _end_with(parent, lifeline, thread_is_lasting)
    _leave_signals_to_the_pool()
    _be_killed_first()
    faulthandler.enable()
    channel = BlockingChannel(socket.socket(fileno=connection))
    try:
        bench = _made(channel)
        while True:
            _run(bench, channel)
    except (EOFError, OSError):  # the pool is closed or gone
        pass
    os._exit(0)


def end_group_with(lifeline: int, group: int) -> None:
    """Let the kernel kill a process group when the last writer of a pipe is gone (Linux).

    This belongs to the pipe's reading end, whichever process asks for it and closes it then.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -group)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)


def _end_with(parent: int, lifeline: int, thread_is_lasting: bool) -> None:
    """Let this process and all that it starts end when the pool's process does, however it dies.

    On Linux the kernel sees to it: when the last writer of the lifeline is gone, it kills our
    whole process group, even if Python hangs in C with its lock held. Elsewhere a thread does.
    """
    if sys.platform == "linux":
        end_group_with(lifeline, os.getpgrp())
        if thread_is_lasting:
            # Should a process that the parent forked hold the lifeline, too. Not for other
            # threads: the signal comes when the thread that started us ends.
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()
    poll = select.poll()
    poll.register(lifeline, 0)
    if poll.poll(0) or os.getppid() != parent:  # it died before we were ready for that
        os._exit(1)


def _watch(lifeline: int) -> None:
    os.read(lifeline, 1)  # nothing is ever written
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _leave_signals_to_the_pool() -> None:
    """Ctrl-C and a batch system's SIGTERM may reach us; what follows, our controller decides.

    They are handled, for what is ignored would be ignored by all that we start, too. What we fork
    gets the defaults back before a signal can reach it.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, lambda number, frame: None)

    def hold() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def restore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=restore)


def _be_killed_first() -> None:
    """When memory runs out faster than the pool can see."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < OOM_SCORE:
            file.write(str(OOM_SCORE))


def _made(channel: BlockingChannel) -> Any:
    message = channel.receive()
    try:
        spec: BenchSpec = pickle.loads(message)
        bench = pkgutil.resolve_name(spec.factory)(**spec.arguments)
    except BaseException as error:  # a task's module may call sys.exit
        channel.send(answer("broken", (_line(error), _may_pass(error))))
        os._exit(1)
    channel.send(answer("ready", None))
    return bench


def _may_pass(error: BaseException) -> bool:
    """Whether the machine lacked something that it may have again a moment later."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in PASSING
    )


def _run(bench: Any, channel: BlockingChannel) -> None:
    message = channel.receive()
    began = time.perf_counter()

    def progress(stage: str, ended: Sequence[StageRun], epoch: Epoch | None = None, /) -> None:
        if epoch is None:
            channel.send(answer("stage", (stage, tuple(ended))))
        else:
            channel.send(answer("epoch", (epoch.number, epoch.total, epoch.score)))

    try:
        method, arguments = pickle.loads(message)
        value = getattr(bench, method)(*arguments, progress=progress)
    except BaseException as error:  # SystemExit, too: the bench is still good
        seconds = time.perf_counter() - began
        channel.send(answer("raised", (_line(error), seconds, is_corruption(error))))
        return
    seconds = time.perf_counter() - began
    try:
        end = answer("returned", (value, seconds))
    except Exception as error:
        cause = f"what {method} returned cannot be pickled: {_line(error)}"
        end = answer("raised", (cause, seconds, False))
    channel.send(end)


def _line(error: BaseException) -> str:
    """The one line that the pool is told; the log gets the whole traceback."""
    with contextlib.suppress(Exception):  # the log's disk may be full
        traceback.print_exception(error)
    return one_line(error)
