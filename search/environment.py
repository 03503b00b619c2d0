"""What machine and which libraries a figure comes from."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

LIBRARIES = ("naslite", "torch", "torch-pruning", "onnx", "onnxscript", "onnxruntime", "numpy")
ISA_FLAGS = (
    "avx",
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "sve",
    "i8mm",
)


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions by distribution name; a missing one is left out."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_facts() -> dict[str, Any]:
    """Model name, cores, and the instruction sets that decide which kernels run."""
    model, flags = platform.processor() or platform.machine(), set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    except OSError:
        pass  # not Linux: the machine's name must do
    return {
        "cpu": model,
        "cores": core_count(),
        "machine": platform.machine(),
        "isa": [flag for flag in ISA_FLAGS if flag in flags],
    }


def core_count() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may use: the machine's, or the least limit of its control groups.

    Args:
        root: Of the file system, where /proc and /sys are looked for.
    """
    import psutil

    limits = [_limit(file) for file in _limit_files(root)]
    return min([int(psutil.virtual_memory().total), *(found for found in limits if found)])


def _limit_files(root: Path) -> Iterator[Path]:
    """Where the limits of this process's control group and all above it stand (cgroup v2, v1)."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mounted, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mounted, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's, while only its lower part is mounted.
        parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
        for length in range(len(parts), -1, -1):
            yield mounted.joinpath(*parts[:length]) / name


def _limit(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such group, or `max`
        return None
