"""Memory and load time of a file, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import psutil
import pytest
from children import child, kill, wait_for
from onnx import TensorProto, helper, numpy_helper, save

from search import footprint as module
from search.footprint import footprint
from search.timing import Timer

FEED = {"x": np.zeros((3, 2), np.float32)}

HEAVY = """
import time
from pathlib import Path

class Heavy:
    modules = ("heavy_library",)

    def load(self, path, *, threads):
        import heavy_library

        content = Path(path).read_text()
        if content == "fail":
            print("talk before it")
            raise ValueError("no such model")
        if content == "die":
            import os
            os._exit(3)
        return Session(int(content), threads)

class Session:
    input_names = ["renamed"]

    def __init__(self, megabytes, threads):
        if megabytes == 7:
            self.input_names = ["mask", "x"]
        self.weights = bytearray(b"x") * (megabytes << 20)
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:
            pass

    def __call__(self, feed):
        shapes = {name: array.shape for name, array in feed.items()}
        two = {"mask": (3,), "x": (3, 2)}
        assert shapes == (two if "mask" in self.input_names else {"renamed": (3, 2)})
        print("talk")
        work = bytearray(b"x") * (30 << 20)
"""
# It stays at 100 MiB, and had a greater peak before.
LIBRARY = """
weight = bytearray(b"x") * (100 << 20)
spare = bytearray(b"x") * (200 << 20)
del spare
"""


@pytest.fixture
def weigh(tmp_path):
    """The footprint of a file with such content under a runtime given as a file."""
    (tmp_path / "heavy.py").write_text(HEAVY)
    (tmp_path / "heavy_library.py").write_text(LIBRARY)

    def of(content, feed=FEED):
        (tmp_path / "model").write_text(content)
        return footprint("heavy.py:Heavy", str(tmp_path), tmp_path / "model", 1, feed)

    return of


def test_inputs_are_given_by_their_names_whatever_their_order(weigh):
    assert weigh("7", {**FEED, "mask": np.zeros(3, np.float32)}) is not None


def test_loading_and_one_call_count_but_not_the_library(weigh):
    load_ms, peak_bytes = weigh("40")
    assert load_ms >= 50
    assert 68 << 20 < peak_bytes < 90 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be set back")
def test_what_this_process_weighs_does_not_count(weigh):
    weight = bytearray(b"x") * (300 << 20)
    assert 28 << 20 < weigh("0")[1] < 50 << 20
    del weight


@pytest.mark.parametrize(
    ("content", "said"),
    [("fail", "ValueError: no such model"), ("die", "exit status 3")],
)
def test_a_failure_is_told_and_gives_nothing(weigh, caplog, content, said):
    assert weigh(content) is None
    (message,) = caplog.messages
    assert "model: memory and load time are not measured" in message
    assert said in message


def test_a_process_that_takes_too_long_is_given_up(weigh, caplog, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_S", 0.01)
    assert weigh("1") is None
    assert "timed out" in caplog.text


def test_a_failure_does_not_fail_the_timing(tmp_path):
    (tmp_path / "picky.py").write_text(PICKY)
    timer = Timer("picky.py:Picky", str(tmp_path), 1, [2], FEED)
    (found,) = timer.time(tmp_path / "model", tmp_path / "baseline", 0)
    assert found.milliseconds > 0
    assert (found.load_ms, found.peak_rss_bytes) == (None, None)


PICKY = f"""
import os

class Picky:
    def load(self, path, *, threads):
        if os.getpid() != {os.getpid()}:
            raise OSError("not here")
        session = lambda feed: None
        return Session()

class Session:
    input_names = ["x"]

    def __call__(self, feed):
        sum(range(100))
"""


def test_a_larger_file_of_onnx_weighs_more(tmp_path):
    weights = []
    for name, width in (("small", 8), ("large", 2000)):
        matrix = numpy_helper.from_array(np.ones((2, width * 100), np.float32), "w")
        back = numpy_helper.from_array(np.ones((width * 100, 2), np.float32), "v")
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in "xz"]
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("MatMul", ["y", "v"], ["z"]),
        ]
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [matrix, back])
        opset = helper.make_opsetid("", 17)
        path = tmp_path / f"{name}.onnx"
        save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
        weights.append(footprint("onnxruntime", ".", path, 1, FEED))
    (small_ms, small_bytes), (large_ms, large_bytes) = weights
    assert min(small_ms, large_ms) > 0
    assert small_bytes < 20 << 20  # the library alone is larger
    assert large_bytes > small_bytes + (3 << 20)


HOLDER = """
import sys
from pathlib import Path
import numpy as np
from search.footprint import footprint
print("ready", flush=True)
footprint("slow.py:Slow", sys.argv[1], Path(sys.argv[1]) / "model", 1, {"x": np.zeros((1, 1))})
"""
SLOW = """
import os
from pathlib import Path

class Slow:
    def load(self, path, *, threads):
        Path(path).with_name("writing").write_text(str(os.getpid()))
        Path(path).with_name("writing").rename(Path(path).with_name("pid"))
        while True:
            pass
"""


def test_it_belongs_to_the_group_of_the_process_that_asked(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    with child(HOLDER, tmp_path) as holder:
        wait_for(holder, "ready")
        while not (tmp_path / "pid").exists():
            assert holder.poll() is None
        process = psutil.Process(int((tmp_path / "pid").read_text()))
        assert os.getpgid(process.pid) == os.getpgid(holder.pid)
        kill(holder)
        process.send_signal(signal.SIGKILL)


def test_the_process_of_a_footprint_is_small():
    program = """
import sys
import search.footprint, search.runtimes.onnx_runtime, onnxruntime
heavy = {"torch", "onnx", "sqlalchemy", "storage", "psutil", "pydantic"} & set(sys.modules)
print(heavy or "small", flush=True)
"""
    with child(program) as process:
        wait_for(process, "small")
