"""The blows of an attack: which process is killed when, and whether the kill has hit."""

from __future__ import annotations

import math
import random
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

LONGEST_DELAY_S = 0.05  # between the moment that is waited for and the kill
STARTING = 0.2  # of the kills come while a session starts
PER_WORKER_KILL = 4  # so many kills of a session for each of a worker
VICTIMS = ("controller", "controller", "controller", "everything")
STOP_S = 10.0  # within which the kernel stops what is told to stop, and a dead worker is seen
POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class Blow:
    """A kill to come.

    Args:
        ended: How many trials must have ended; None: while the session starts, at the latest when
            it has ended a trial.
        delay_s: After that, or after the session began.
        victim: controller, everything (it and its workers, at once) or worker (one of them).
        collects: Whether garbage is collected afterwards, beside what is left of the session.
    """

    ended: int | None
    delay_s: float
    victim: str
    collects: bool


def blows(kills: int, trials: int, start_s: float, rng: random.Random) -> list[Blow]:
    """So many kills of a session, and kills of a worker between them, spread over the whole
    study: starts, trials, and the last moments."""
    moments = [rng.randint(1, trials - 1) for _ in range(kills - 1)] + [trials]
    wanted = [(ended, rng.choice(VICTIMS)) for ended in sorted(moments)]
    first = wanted[0]
    for _ in range(math.ceil(kills / PER_WORKER_KILL)):
        wanted.append((rng.randint(1, trials - 1), "worker"))
    found = []
    for ended, victim in sorted(wanted, key=lambda blow: blow[0]):
        is_start = (ended, victim) == first or (ended < trials and rng.random() < STARTING)
        longest = 1.2 * start_s if is_start else LONGEST_DELAY_S
        delay_s = rng.uniform(0.0, longest)
        found.append(Blow(None if is_start else ended, delay_s, victim, rng.random() < 0.25))
    return found


def family(pid: int) -> list[psutil.Process]:
    """The workers of a session that have not ended."""
    found = []
    with suppress(psutil.NoSuchProcess):
        found = psutil.Process(pid).children(recursive=True)
    return list(filter(is_alive, found))


def kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def kill_alive(process: psutil.Process) -> bool:
    """Kill a process that runs; False if it had ended, even where nobody has noticed yet."""
    deadline = time.monotonic() + STOP_S
    with suppress(psutil.NoSuchProcess):
        while is_alive(process) and time.monotonic() < deadline:
            process.suspend()  # what stands still does not end by itself before the kill
            if process.status() == psutil.STATUS_STOPPED:
                process.kill()
                return True
            time.sleep(POLL_S / 10)
    return False


def is_buried(process: psutil.Process) -> bool:
    """Whether it ended within some seconds, and its parent has taken note."""
    deadline = time.monotonic() + STOP_S
    while process.is_running() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return not process.is_running()


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
