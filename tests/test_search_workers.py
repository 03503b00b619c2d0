"""Worker processes under attack, and what is left of them afterwards."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from benches import Bench
from conftest import REPOSITORY

from search import starting
from search.channel import HEADER
from search.executor import Serial
from search.jobs import BenchSpec, Job
from search.protocol import answer
from search.testing_supervision import the_end, until
from search.workers import ProcessPool

BENCH = BenchSpec("benches:Bench", {})
MB = 10**6


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """No open file, no process, no zombie."""
    gc.collect()  # what earlier tests have left to be collected is not ours
    files, processes = _open_files(), _children()
    yield
    gc.collect()
    assert _open_files() == files
    assert _children() == processes


def _open_files():
    return len(os.listdir("/proc/self/fd"))


def _children():
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture
def pool():
    with ProcessPool(BENCH) as pool:
        yield pool


def goes_on(pool):
    return the_end(pool, Job(10**6, "echo", ("next",), 60)).value == ("next",)


def pids_in(path):
    until(path.exists)
    return [int(pid) for pid in path.read_text().split()]


def is_gone(pid):
    """Whether a process has ended; init may be slow to reap it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Deaths


@pytest.mark.parametrize(
    ("method", "arguments", "how"),
    [
        ("segfault", (), "signal 11"),
        ("signal", (signal.SIGABRT,), "signal 6"),
        ("signal", (signal.SIGKILL,), "signal 9"),
        ("leave", (3,), "exit code 3"),
        ("leave", (0,), "exit code 0"),
    ],
)
def test_a_death_is_told_with_its_stage(pool, method, arguments, how):
    end = the_end(pool, Job(0, method, arguments))
    assert (end.kind, end.cause, end.stage) == ("lost", f"worker died ({how})", "quantize")
    assert goes_on(pool)


def test_a_worker_killed_from_outside_is_lost(pool, tmp_path):
    pool.submit(Job(0, "hang", (tmp_path / "pid",)))
    until(lambda: pool.wait(0) == [] and (tmp_path / "pid").exists())
    os.kill(*pids_in(tmp_path / "pid"), signal.SIGKILL)
    (end,) = pool.wait(60)
    assert (end.kind, end.cause) == ("lost", "worker died (signal 9)")
    assert goes_on(pool)


def test_a_death_is_noticed_in_a_pause(pool, tmp_path):
    pool.submit(Job(0, "hang", (tmp_path / "pid",)))
    (pid,) = pids_in(tmp_path / "pid")
    pool.pause()
    os.kill(pid, signal.SIGKILL)
    (end,) = pool.wait(60)
    assert (end.kind, end.cause) == ("lost", "worker died (signal 9)")
    pool.resume()
    assert goes_on(pool)


def test_a_worker_that_dies_between_jobs_costs_none(pool):
    pid = the_end(pool, Job(0, "facts")).value["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))
    assert the_end(pool, Job(1, "echo", (1,))).value == (1,)


def test_what_was_returned_before_a_death_counts(pool):
    worker = the_end(pool, Job(0, "facts")).value["pid"]
    pool.submit(Job(1, "leave_later"))
    until(lambda: is_gone(worker))
    (end,) = pool.wait(60)
    assert (end.kind, end.value) == ("returned", "returned")
    assert goes_on(pool)


def test_a_worker_that_closes_its_connection_is_lost(pool):
    end = the_end(pool, Job(0, "close_everything"))
    assert (end.kind, end.cause) == ("lost", "worker closed its connection")
    assert goes_on(pool)


# Time


def test_a_hang_that_holds_pythons_lock_expires(pool, tmp_path):
    end = the_end(pool, Job(0, "hang_in_c", (tmp_path / "pid",), 1.0))
    assert (end.kind, end.stage) == ("expired", "export")
    assert end.cause == "no result after 1 s (limits.timeout)"
    assert goes_on(pool)


def test_a_hang_that_holds_pythons_lock_can_be_cancelled(pool, tmp_path):
    pool.submit(Job(0, "hang_in_c", (tmp_path / "pid",)))
    (pid,) = pids_in(tmp_path / "pid")
    pool.cancel(0)
    assert is_gone(pid)
    assert goes_on(pool)


def test_telling_stages_for_ever_is_no_way_to_live_longer(pool):
    end = the_end(pool, Job(0, "talk", (), 1.0))
    assert (end.kind, end.stage) == ("expired", "talk")


def test_a_result_that_came_in_time_counts_however_late_it_is_read(pool, tmp_path):
    assert goes_on(pool)
    began = time.monotonic()
    pool.submit(Job(0, "touch", (tmp_path / "done",), 0.5))
    until(lambda: (tmp_path / "done").exists() and time.monotonic() - began > 0.6)
    (end,) = pool.wait(60)
    assert end.kind == "returned"
    assert end.seconds < 0.5


def test_a_bench_that_takes_too_long_to_make_again_and_again_is_broken(impatient):
    with ProcessPool(BenchSpec("benches:Hanging", {}), start_timeout_s=0.3) as pool:
        end = the_end(pool, Job(0, "echo"))
    assert (end.kind, end.cause, end.stage) == ("broken", "no bench after 0.3 s", "start")


def test_python_runs_signal_handlers_while_the_pool_waits(pool, tmp_path):
    pool.submit(Job(0, "hang", (tmp_path / "pid",)))

    class Alarm(Exception):
        pass

    def ring(number, frame):
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Alarm):
            pool.wait(3600)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert pool.busy == 1
    pool.cancel(0)
    assert goes_on(pool)


# Memory


@pytest.mark.parametrize("method", ["allocate", "allocate_below"])
def test_memory_above_the_limit_costs_the_job_its_worker(method):
    with ProcessPool(BENCH, memory_bytes=150 * MB) as pool:
        end = the_end(pool, Job(0, method, (200 * MB,)))
        assert (end.kind, end.stage) == ("lost", "distil")
        assert re.fullmatch(r"used \d+ MB, more than limits\.memory = 150 MB", end.cause)
        assert goes_on(pool)


def test_memory_that_forked_processes_share_counts_once():
    with ProcessPool(BENCH, memory_bytes=250 * MB) as pool:
        end = the_end(pool, Job(0, "share", (100 * MB, 3, 1.0)))
        assert (end.kind, end.value) == ("returned", 100 * MB)


def test_a_bench_above_the_memory_limit_is_lost_at_the_start():
    spec = BenchSpec("benches:Hungry", {"size": 200 * MB})
    with ProcessPool(spec, memory_bytes=150 * MB) as pool:
        end = the_end(pool, Job(0, "echo"))
    assert (end.kind, end.stage) == ("lost", "start")
    assert "more than limits.memory" in end.cause


# Benches that cannot be made


@pytest.mark.parametrize(
    ("factory", "kind", "cause"),
    [
        ("benches:Leaving", "broken", "SystemExit: no such data set"),
        ("benches:Missing", "broken", "AttributeError: "),
        ("no_such_module:Bench", "broken", "ModuleNotFoundError: No module named 'no_such_m"),
        ("benches:Dying", "lost", "worker died (exit code 4)"),
    ],
)
def test_a_bench_that_cannot_be_made_says_why(factory, kind, cause):
    with ProcessPool(BenchSpec(factory, {})) as pool:
        for number in range(2):
            end = the_end(pool, Job(number, "echo"))
            assert (end.kind, end.stage) == (kind, "start")
            assert end.cause.startswith(cause)


def test_a_worker_that_cannot_be_started_is_no_fault_of_the_job(tmp_path, impatient):
    with ProcessPool(BENCH, log=tmp_path) as pool:  # a folder
        end = the_end(pool, Job(0, "echo"))
    assert end.kind == "broken"
    assert end.cause.startswith("no worker can be started: IsADirectoryError: ")


# Benches that cannot be made now


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(starting, "FIRST_DELAY_S", 0.05)


def hiccup(path, times, error, after=0):
    return BenchSpec(
        "benches:Hiccup", {"path": path, "times": times, "error": error, "after": after}
    )


@pytest.mark.parametrize(
    "error",
    [MemoryError(), BlockingIOError(errno.EAGAIN, "no process"), OSError(errno.EMFILE, "files")],
)
def test_what_the_machine_lacks_for_a_moment_costs_nothing(tmp_path, impatient, caplog, error):
    with ProcessPool(hiccup(tmp_path / "made", 2, error)) as pool:
        assert the_end(pool, Job(0, "echo", (1,))).value == (1,)
    assert [message[:22] for message in caplog.messages] == 2 * ["a worker cannot begin,"]


def test_what_the_machine_lacks_for_ever_is_broken(tmp_path, impatient):
    with ProcessPool(hiccup(tmp_path / "made", 9, MemoryError())) as pool:
        end = the_end(pool, Job(0, "echo"))
        assert (end.kind, end.cause, end.stage) == ("broken", "MemoryError", "start")
    assert (tmp_path / "made").stat().st_size == starting.MOST_FAILURES


def test_a_bench_that_once_takes_too_long_is_made_again(tmp_path, impatient):
    with ProcessPool(hiccup(tmp_path / "made", 1, None), start_timeout_s=1.5) as pool:
        assert the_end(pool, Job(0, "echo", (1,))).value == (1,)


def test_a_bench_that_was_made_before_may_fail_twice(tmp_path, impatient):
    """Whatever it is: a file of the task is being written, say."""
    error = ValueError("half a file")
    with ProcessPool(hiccup(tmp_path / "made", 2, error, after=1)) as pool:
        assert the_end(pool, Job(0, "leave", (3,))).kind == "lost"
        assert the_end(pool, Job(1, "echo", (1,))).value == (1,)
        assert the_end(pool, Job(2, "leave", (3,))).kind == "lost"
        assert the_end(pool, Job(3, "echo", (1,))).value == (1,)


def test_an_error_of_a_bench_that_was_never_made_is_told_at_once(tmp_path):
    with ProcessPool(hiccup(tmp_path / "made", 1, ValueError("no task"))) as pool:
        assert the_end(pool, Job(0, "echo")).kind == "broken"
    assert (tmp_path / "made").stat().st_size == 1


def test_others_are_supervised_while_a_worker_cannot_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "FIRST_DELAY_S", 600.0)
    spec = hiccup(tmp_path / "made", 9, MemoryError(), after=1)
    with ProcessPool(spec, 2) as pool:
        assert the_end(pool, Job(0, "echo", (1,))).value == (1,)
        pool.submit(Job(1, "leave", (3,)))
        pool.submit(Job(2, "echo", (2,)))  # for a second worker, which does not come
        (end,) = pool.wait(60)
        assert (end.job.id, end.kind) == (1, "lost")
        assert pool.busy == 1
        pool.cancel(2)
        assert pool.busy == 0


def test_files_that_are_all_open_for_a_moment_cost_nothing(pool, impatient):
    """Neither does the pool leave any open that it could not use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(4):  # a pair of sockets, a pipe...
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + spare, hard))
        try:
            pool.submit(Job(spare, "echo", (spare,)))
            assert pool.wait(0) == []
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (end,) = pool.wait(60)
        assert end.value == (spare,)
        pool._kill(pool._workers[0])  # the next one starts anew


# What is no message


@pytest.mark.parametrize(
    "message",
    [
        b"\xff" * 100,  # a length that nobody has written
        HEADER.pack(7) + b"garbage",
        HEADER.pack(4) + pickle.dumps(None),
        HEADER.pack(len(answer("sold", 1))) + answer("sold", 1),
        HEADER.pack(len(answer("returned", 1))) + answer("returned", 1),
        HEADER.pack(len(answer("broken", None))) + answer("broken", None),
    ],
    ids=["length", "bytes", "pickle", "kind", "shape of an end", "shape of a fault"],
)
def test_a_worker_that_sends_what_is_no_message_is_lost(pool, message):
    end = the_end(pool, Job(0, "babble", (message,)))
    assert (end.kind, end.stage) == ("lost", "quantize")
    assert end.cause.startswith("worker sent what is no message (")
    assert goes_on(pool)


# What cannot be told


@pytest.mark.parametrize(
    ("method", "cause"),
    [
        ("unpicklable", "what unpicklable returned cannot be pickled: "),
        ("unreadable", "its result cannot be unpickled: ValueError: not here"),
        ("unspeakable", "Unspeakable"),
        ("interrupt", "KeyboardInterrupt"),
    ],
)
def test_what_cannot_be_told_is_raised(pool, method, cause):
    end = the_end(pool, Job(0, method))
    assert end.kind == "raised"
    assert end.cause.startswith(cause)
    assert goes_on(pool)


@pytest.mark.parametrize("is_corrupt", [True, False])
def test_it_is_told_whether_stored_files_were_damaged(pool, is_corrupt):
    end = the_end(pool, Job(0, "find_damage", (is_corrupt,)))
    assert (end.kind, end.is_corrupt) == ("raised", is_corrupt)
    assert end.cause == "CorruptFiles: it has 6 bytes, not 7"  # what it says is the same
    with_serial = the_end(Serial(Bench()), Job(0, "find_damage", (is_corrupt,)))
    assert (with_serial.is_corrupt, with_serial.cause) == (is_corrupt, end.cause)


def test_arguments_that_cannot_be_sent_are_raised(pool):
    end = the_end(pool, Job(0, "echo", (lambda: None,)))
    assert end.kind == "raised"
    assert end.cause.startswith("the arguments of echo cannot be pickled: ")
    assert goes_on(pool)


def test_a_pause_in_the_middle_of_a_large_result_blocks_nobody(pool, tmp_path):
    pool.submit(Job(0, "large", (50 * MB, tmp_path / "made"), 60))
    until((tmp_path / "made").exists)
    until(lambda: pool._workers[0].process.channel.has_partial or pool.wait(0))
    pool.pause()
    assert pool.wait(0.3) == []
    pool.resume()
    (end,) = pool.wait(60)
    assert len(end.value) == 50 * MB


# Signals, the terminal, the environment


def test_a_worker_ignores_what_its_controller_decides(pool):
    assert the_end(pool, Job(0, "interrupt_main", timeout_s=60)).value == "still here"


def test_what_a_worker_starts_can_be_terminated(pool):
    end = the_end(pool, Job(0, "terminate_children", timeout_s=60))
    assert end.value == (-signal.SIGTERM, -signal.SIGTERM)


def test_a_worker_is_apart_from_the_terminal_but_has_our_environment(monkeypatch):
    monkeypatch.setenv("NASLITE_MARK", "ours")
    with ProcessPool(BENCH, environment={"NASLITE_THREADS": "1"}) as pool:
        facts = the_end(pool, Job(0, "facts")).value
    assert facts["pid"] == facts["group"] == facts["session"]
    assert facts["stdin"] == os.devnull
    assert facts["niceness"] == os.nice(0)
    assert facts["environment"]["NASLITE_MARK"] == "ours"
    assert facts["environment"]["NASLITE_THREADS"] == "1"
    assert facts["arguments"] == sys.argv
    assert facts["oom_score"] >= 500


def test_a_worker_is_light(pool):
    facts = the_end(pool, Job(0, "facts")).value
    assert not {"numpy", "torch", "sqlalchemy", "psutil", "optuna"} & facts["modules"]
    assert facts["threads"] == 1  # or Python warns of every fork


def test_the_log_has_prints_tracebacks_and_crashes(tmp_path, capfd):
    log = tmp_path / "logs" / "workers.log"
    with ProcessPool(BENCH, log=log) as pool:
        the_end(pool, Job(0, "print", ("épochs: 3",)))
        the_end(pool, Job(1, "segfault"))
    text = log.read_text()
    assert "épochs: 3\n" in text
    assert "ValueError: printed" in text
    assert "in print" in text
    assert "Fatal Python error: Segmentation fault" in text
    assert "in segfault" in text
    assert capfd.readouterr() == ("", "")


# What a worker starts


@pytest.mark.parametrize("apart", [False, True], ids=["in its group", "in its own session"])
@pytest.mark.parametrize("how", ["cancel", "close", "expire"])
def test_what_a_worker_has_started_is_killed_with_it(pool, tmp_path, apart, how):
    path = tmp_path / "pids"
    pool.submit(Job(0, "start", (path, apart), 2.0 if how == "expire" else None))
    until(lambda: pool.wait(0) == [] and path.exists())
    pids = pids_in(path)
    if how == "cancel":
        pool.cancel(0)
    elif how == "close":
        pool.close()
    else:
        assert pool.wait(60)[0].kind == "expired"
    until(lambda: all(map(is_gone, pids)))


def test_what_a_dead_worker_has_started_is_killed(pool, tmp_path):
    end = the_end(pool, Job(0, "start", (tmp_path / "pids", False, "die")))
    assert (end.kind, end.cause) == ("lost", "worker died (exit code 3)")
    until(lambda: all(map(is_gone, pids_in(tmp_path / "pids"))))


@pytest.mark.parametrize("apart", [False, True], ids=["in its group", "in its own session"])
def test_what_a_worker_has_started_pauses_with_it(pool, tmp_path, apart):
    pool.submit(Job(0, "start", (tmp_path / "pids", apart)))
    processes = [psutil.Process(pid) for pid in pids_in(tmp_path / "pids")]
    pool.pause()
    until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in processes))
    pool.resume()
    until(lambda: all(p.status() == psutil.STATUS_SLEEPING for p in processes))


# Whoever uses it


SCRIPT = """
import os, sys, threading, time
from pathlib import Path
from search.jobs import BenchSpec, Job
from search.workers import ProcessPool
"""

SURVIVING = (
    SCRIPT
    + """
pool = ProcessPool(BenchSpec("benches:Bench", {}))
job = Job(0, "start", (sys.argv[1], False, sys.argv[2]))
if sys.argv[3] == "in another thread":
    thread = threading.Thread(target=pool.submit, args=(job,))
    thread.start()
    thread.join()
else:
    pool.submit(job)
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)
if sys.argv[3] == "and pauses":
    pool.pause()
print("ready", flush=True)
time.sleep(1000)
"""
)

STARTING = (
    SCRIPT
    + """
pool = ProcessPool(BenchSpec("benches:Hanging", {}))
pool.submit(Job(0, "echo"))
if sys.argv[1] == "pauses":
    pool.pause()
print(pool._workers[0].process.pid, flush=True)
time.sleep(1000)
"""
)


def start_script(code, *arguments, **options):
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *([] if code is None else ["-c", code]), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("then", ["wait", "hang in C"])
@pytest.mark.parametrize("how", ["in the main thread", "in another thread", "and pauses"])
def test_workers_and_what_they_started_end_with_a_killed_parent(tmp_path, then, how):
    path = tmp_path / "pids"
    with start_script(SURVIVING, path, then, how) as parent:
        assert parent.stdout.readline() == "ready\n"
        pids = pids_in(path)
        assert not any(map(is_gone, pids))
        parent.kill()
    until(lambda: all(map(is_gone, pids)))


@pytest.mark.parametrize("then", ["waits", "pauses"])
@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.04, 0.08])
def test_a_worker_that_still_starts_ends_with_a_killed_parent(delay_s, then):
    with start_script(STARTING, then) as parent:
        (pid,) = map(int, parent.stdout.readline().split())
        time.sleep(delay_s)
        parent.kill()
    until(lambda: is_gone(pid))


def test_a_main_script_without_a_guard_runs_once(tmp_path):
    """And files in the working folder are not taken for modules of Python."""
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT
        + """
print("begin")
with ProcessPool(BenchSpec("benches:Bench", {}), 2) as pool:
    pool.submit(Job(0, "echo", (1,)))
    pool.submit(Job(1, "echo", (2,)))
    ends = []
    while pool.busy:
        ends += pool.wait(60)
print(sorted(end.value for end in ends))
"""
    )
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("json", "socket", "pickle"):
        (folder / f"{name}.py").write_text("raise ImportError('a file of the user')")
    with start_script(None, script, cwd=folder, stderr=subprocess.STDOUT) as running:
        out, _ = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, "begin\n[(1,), (2,)]\n")


def test_a_pool_outlives_the_thread_that_started_its_workers(pool):
    found = []
    thread = threading.Thread(target=lambda: found.append(the_end(pool, Job(0, "facts"))))
    thread.start()
    thread.join()
    (end,) = found
    assert the_end(pool, Job(1, "facts")).value["pid"] == end.value["pid"]


def test_a_watching_thread_serves_where_the_kernel_does_not():
    """The fallback for systems other than Linux."""
    code = """
import os, threading, time
from search.worker import _watch
os.setsid()
ours, theirs = os.pipe()
threading.Thread(target=_watch, args=(ours,), daemon=True).start()
time.sleep(0.1)
os.close(theirs)
time.sleep(1000)
"""
    with start_script(code) as process:
        assert process.wait(60) == -signal.SIGKILL


def test_a_closed_pool_takes_no_jobs(pool):
    pool.close()
    with pytest.raises(RuntimeError, match="a closed pool takes no jobs"):
        pool.submit(Job(0, "echo"))


def test_a_pool_has_slots():
    with pytest.raises(ValueError, match="at least one slot, got 0"):
        ProcessPool(BENCH, 0)
