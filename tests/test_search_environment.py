"""How much memory this process may use, whatever control groups it is in."""

from __future__ import annotations

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.detach import worker_log
from search.environment import memory_bytes
from search.pools import LOG_BYTES, begun_log, memory_share

TOTAL = psutil.virtual_memory().total
MB = 10**6


def machine(root, groups, limits):
    """A file system with these lines in /proc/self/cgroup and these files under /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": groups, **limits}.items():
        path = root / (name if name.startswith("proc") else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        ("0::/", {"memory.max": 64 * MB}, 64 * MB),
        ("0::/job/step", {"job/step/memory.max": "max", "job/memory.max": 64 * MB}, 64 * MB),
        ("0::/job", {"job/memory.max": 64 * MB, "memory.max": 32 * MB}, 32 * MB),
        ("0::/job", {"job/memory.max": 32 * MB, "memory.max": 64 * MB}, 32 * MB),
        ("0::/job", {"other/memory.max": 32 * MB, "memory.max": "max"}, TOTAL),
        ("0::/../../docker/job", {"memory.max": 64 * MB}, 64 * MB),
        (
            "5:cpu:/\n4:memory:/slurm/job",
            {
                "memory/slurm/job/memory.limit_in_bytes": 64 * MB,
                "memory/memory.limit_in_bytes": 2**63 - 4096,  # none
            },
            64 * MB,
        ),
        ("4:cpu,memory:/job\n0::/", {"memory/memory.limit_in_bytes": 64 * MB}, 64 * MB),
        ("0::/job:with:colons", {"job:with:colons/memory.max": 64 * MB}, 64 * MB),
        ("0::/", {"memory.max": "?"}, TOTAL),
    ],
)
def test_the_least_limit_above_this_process_counts(tmp_path, groups, limits, found):
    assert memory_bytes(machine(tmp_path, groups, limits)) == found


def test_without_control_groups_it_is_the_machines(tmp_path):
    assert memory_bytes(tmp_path) == TOTAL


def test_this_process_may_use_some():
    assert 0 < memory_bytes() <= TOTAL


@given(workers=st.integers(1, 100))
def test_all_workers_and_the_timer_together_leave_a_tenth(workers):
    share = memory_share(workers)
    assert 0.89 * memory_bytes() < (workers + 1) * share <= 0.9 * memory_bytes()


def test_the_log_of_workers_begins_a_session_with_the_end_of_what_is_too_long(tmp_path):
    log = worker_log(tmp_path, "s")
    assert begun_log(log) == log
    assert log.read_bytes() == b""
    log.write_bytes(b"a" * LOG_BYTES)
    begun_log(log)
    assert log.stat().st_size == LOG_BYTES
    with log.open("ab") as stream:
        stream.write(b"the end")
    begun_log(log)
    assert log.read_bytes() == b"a" * (LOG_BYTES // 10 - 7) + b"the end"
