"""What real code does to its process, its memory and its disk by mistake, done on purpose."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
MB = 10**6
HUGE = 32 * MB  # more than the disk of a test holds
HOARD = 2_000 * MB  # more than any limit of a test; nobody should get this far

STRIKES = ("raise", "exit", "sigkill", "segfault", "hang", "memory")


def is_armed():
    """Faults happen in folders with a file `armed`; elsewhere, the same trials are harmless."""
    return (HERE / "armed").exists()


def strike(fault):
    """Do to this process what the fault says; faults that spoil results do nothing here."""
    if not is_armed() or fault not in STRIKES:
        return
    if fault == "raise":
        raise ValueError("deliberate")
    if fault == "exit":
        sys.exit(3)
    if fault == "sigkill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "segfault":
        ctypes.string_at(0)
    if fault == "memory":
        hoard()
    while True:
        time.sleep(3600)


def hoard():
    """Use ever more memory, slowly enough to be seen at it."""
    hoarded = []
    for _ in range(HOARD // (10 * MB)):
        hoarded.append(bytearray(b"x") * (10 * MB))
        time.sleep(0.02)
    raise AssertionError(f"nobody minds {HOARD // MB} MB")


def spoils(fault, wanted):
    """Whether a result is to be spoilt in the wanted way."""
    return is_armed() and fault == wanted


def write_too_much(folder):
    """Write a file for which the disk has no room; what there was room for is removed again."""
    path = Path(folder) / "huge.bin"
    try:
        path.write_bytes(bytes(HUGE))
    finally:
        path.unlink()


def damage(path, how):
    """Truncate a stored file, or flip a bit of it, as a failing disk would."""
    content = bytearray(path.read_bytes())
    if how == "truncate":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


def first_time(name):
    """Whether nobody has asked for this name yet, in any process."""
    (HERE / "damaged").mkdir(exist_ok=True)
    try:
        (HERE / "damaged" / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
