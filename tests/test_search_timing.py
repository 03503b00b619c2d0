"""Timing loaded artifacts, and the bench that does it in a process of its own."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from assets.toy_models import Masked, MaskedByBranches

from search import timed_calls, timed_rounds, timing
from search.measure import timing_feed
from search.runtimes.onnx_runtime import OnnxRuntime
from search.timing import SessionPair, Timer
from search.timing_statistics import FEWEST

REAL_INTERRUPTIONS = timed_calls.interruptions
FEED = {"x": np.zeros((8, 4))}


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """How many blocks count depends on what else the machine does; not here."""
    monkeypatch.setattr(timed_calls, "interruptions", lambda: 0)


class Burner:
    """A session that multiplies matrices as often as it is told, or at random up to that."""

    def __init__(self, products=40, *, steady=True, input_name="x"):
        self.products = products
        self.steady = steady
        self.input_names = [input_name]
        self.calls = 0
        self.fed = set()
        self._matrix = np.eye(48, dtype=np.float32)
        self._rng = np.random.default_rng(0)

    def __call__(self, feed):
        self.calls += 1
        self.fed.update(feed)
        count = self.products if self.steady else self._rng.integers(1, self.products + 1)
        for _ in range(count):
            self._matrix @ self._matrix


def timed(candidate, baseline, seed=0, **options):
    rng = np.random.default_rng(seed)
    pair = SessionPair(lambda: candidate, lambda: baseline, rng)
    return timing.time_against(pair, FEED, 8, rng, **options)


def test_a_slower_candidate_has_a_greater_ratio():
    found = timed(Burner(80), Burner(40))
    assert found.ratio > 1.3
    assert found.low <= found.ratio <= found.high
    assert found.low > 1


def test_a_faster_candidate_has_a_smaller_ratio():
    found = timed(Burner(40), Burner(80))
    assert found.ratio < 1 / 1.3
    assert found.low <= found.ratio <= found.high < 1


class Cut:
    """Something else has the processor in some calls, which take `lost_s` longer for it.

    Args:
        others_s: That other threads of ours run in a call.
    """

    input_names = ["x"]
    interruptions = 0
    clock_s = 0.0
    thread_s = 0.0
    process_s = 0.0

    def __init__(self, seconds, share, lost_s=None, others_s=0.0):
        self.seconds = seconds
        self.share = share
        self.lost_s = 9 * seconds if lost_s is None else lost_s
        self.others_s = others_s
        self._rng = np.random.default_rng(0)

    def __call__(self, feed):
        is_cut = self._rng.random() < self.share
        Cut.interruptions += is_cut
        Cut.thread_s += self.seconds
        Cut.process_s += self.seconds + self.others_s
        Cut.clock_s += self.seconds + self.lost_s * is_cut


def use_clocks(monkeypatch):
    """Those of `Cut`, and its count of interruptions."""
    clocks = SimpleNamespace(
        perf_counter=lambda: Cut.clock_s,
        thread_time=lambda: Cut.thread_s,
        process_time=lambda: Cut.process_s,
    )
    for module in (timing, timed_calls):
        monkeypatch.setattr(module, "time", clocks)
    monkeypatch.setattr(timed_calls, "interruptions", lambda: Cut.interruptions)


def test_calls_that_were_cut_short_of_their_processor_do_not_count(monkeypatch):
    """Of long calls more are, so that the fastest of a run would flatter the shorter file."""
    monkeypatch.setattr(timing, "RUN_S", 0.0)
    use_clocks(monkeypatch)
    long, short = Cut(1e-3, 0.9), Cut(1e-4, 0.1)
    found = timed(short, long)
    assert not found.noisy
    assert found.ratio == pytest.approx(0.1)
    assert found.milliseconds == pytest.approx(0.1)
    monkeypatch.setattr(timed_calls, "interruptions", lambda: 0)
    monkeypatch.setattr(timed_rounds, "SLACK", float("inf"))
    assert timed(short, long).ratio < 0.07, "what it would be if they counted"


def test_a_timing_of_cut_calls_alone_is_noisy(monkeypatch):
    use_clocks(monkeypatch)
    found = timed(Cut(1e-3, 0.0), Cut(1e-3, 1.0), seconds=0.1)
    assert found.noisy
    assert found.blocks >= FEWEST
    assert found.ratio == pytest.approx(0.1)


def test_long_calls_count_that_were_cut_for_next_to_nothing_and_the_cut_is_taken_off(monkeypatch):
    """The kernel's own work cuts nearly every one, and takes as long from a short one."""
    use_clocks(monkeypatch)
    found = timed(Cut(0.025, 1.0, 1e-4), Cut(0.075, 1.0, 1e-4))
    assert not found.noisy
    assert found.ratio == pytest.approx(1 / 3, rel=1e-6)
    assert found.milliseconds == pytest.approx(25)


@pytest.mark.parametrize("cut", [{"lost_s": 4e-4}, {"lost_s": 0.0, "others_s": 0.04}])
def test_calls_do_not_count_that_lost_more_or_may_have_waited_for_another_thread(monkeypatch, cut):
    """A thread that spins until another is back has lost nothing by its own clocks."""
    use_clocks(monkeypatch)
    assert timed(Cut(0.04, 1.0, **cut), Cut(0.04, 0.0)).noisy


def test_interruptions_are_those_of_this_process():
    before = REAL_INTERRUPTIONS()
    with ThreadPoolExecutor(4) as threads:  # more threads than cores take them from each other
        list(threads.map(burn, [200] * 4))
    assert REAL_INTERRUPTIONS() > before


def burn(times):
    for _ in range(times):
        np.linalg.svd(np.eye(64))


def test_neither_file_is_always_the_first_to_be_called_or_the_last():
    """Of new sessions as well: what is called last leaves its data in the caches."""
    called = []

    class Named(Burner):
        def __init__(self, name):
            super().__init__(10)
            self.name = name

        def __call__(self, feed):
            super().__call__(feed)
            called.append((self.name, self))

    rng = np.random.default_rng(0)
    pair = SessionPair(lambda: Named("candidate"), lambda: Named("baseline"), rng)
    timing.time_against(pair, FEED, 8, rng)
    first = {}
    for name, session in called:  # in order of their first calls, two and two
        first.setdefault(session, name)
    order = list(first.values())
    rounds = list(zip(order[::2], order[1::2], strict=False))
    assert {frozenset(pair) for pair in rounds} == {frozenset({"candidate", "baseline"})}
    assert len({start for start, _ in rounds[1:]}) == 2


def test_a_timing_says_what_was_timed():
    found = timed(Burner(), Burner())
    assert found.batch_size == 8
    assert 0 < found.milliseconds <= found.p90_ms
    assert FEWEST <= found.blocks <= timing.BLOCKS * timing.LOOKS[-1]


def test_times_are_of_single_calls_not_means_of_blocks():
    """Every fourth call takes much longer: no median sees it, the 90th percentile does."""

    class Uneven(Burner):
        def __call__(self, feed):
            self.products = 400 if self.calls % 4 == 0 else 20
            super().__call__(feed)

    found = timed(Uneven(), Burner(20))
    assert found.p90_ms > 3 * found.milliseconds
    assert found.ratio < 3


def test_each_file_is_fed_under_its_own_input_names():
    candidate, baseline = Burner(input_name="images"), Burner(input_name="input_0")
    rng = np.random.default_rng(0)
    pair = SessionPair(lambda: candidate, lambda: baseline, rng)
    timing.time_against(pair, {"images": np.zeros((8, 4))}, 8, rng)
    assert (candidate.fed, baseline.fed) == ({"images"}, {"input_0"})


def test_short_calls_are_repeated_until_a_block_can_be_timed(monkeypatch):
    monkeypatch.setattr(timing, "WARM_UP_S", 1e-9)  # one call
    candidate = Burner(1)
    found = timed(candidate, Burner(1))
    assert candidate.calls > 10 * found.blocks


@pytest.mark.parametrize("call_s", [1e-7, 1e-5, 1e-3, 0.01, 0.03, 0.1, 2.0])
def test_a_round_is_as_long_as_its_time_allows(call_s):
    plan = timing._plan([call_s, call_s / 3])
    calls = plan.blocks * (plan.calls + plan.unheard)
    assert 1 <= plan.blocks <= timing.BLOCKS
    assert plan.calls >= 1
    assert calls == 1 or calls * call_s * 4 / 3 <= timing.ROUND_S * 1.0001


def test_a_warm_up_lasts_until_calls_get_no_faster(monkeypatch):
    monkeypatch.setattr(timing, "WARM_UP_S", 1e-9)  # one call a look
    clock = iter(range(10**6))
    now = [0.0]

    def session(feed):
        now[0] += max(1.0 - 0.1 * next(clock), 0.25)

    monkeypatch.setattr(timing, "MAX_WARM_UP_S", 100.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    assert timing._warm_up(session, {}) == pytest.approx(0.25)
    assert next(clock) == 10  # 1.0, 0.9 ... 0.25, and once more


def test_a_warm_up_that_never_settles_ends(monkeypatch):
    now = [0.0]
    step = [1.0]

    def session(feed):
        step[0] *= 0.9
        now[0] += step[0]

    monkeypatch.setattr(timing, "MAX_WARM_UP_S", 3.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    timing._warm_up(session, {})
    assert 3.0 <= now[0] < 4.0


def test_sessions_that_load_quickly_are_loaded_anew_for_every_round():
    loads = []
    rng = np.random.default_rng(0)
    pair = SessionPair(lambda: loads.append("a") or Burner(), lambda: loads.append("b"), rng)
    for _ in range(19):
        assert pair.renew()
    assert sorted(loads) == ["a"] * 20 + ["b"] * 20
    firsts = loads[::2]
    assert 4 < firsts.count("a") < 16


def test_sessions_that_load_slowly_are_kept(monkeypatch):
    monkeypatch.setattr(timing, "RELOAD_S", 0.0)
    pair = SessionPair(Burner, Burner, np.random.default_rng(0))
    assert pair.renew(), "once may be chance"
    candidate, baseline = pair.sessions
    assert candidate is not baseline
    assert not pair.renew()
    assert pair.sessions[0] is candidate
    assert pair.sessions[1] is baseline


def test_the_baseline_is_as_fast_as_itself():
    found = timing.time_baseline(Burner(), FEED, 8)
    assert (found.low, found.ratio, found.high) == (1.0, 1.0, 1.0)
    assert found.milliseconds > 0


NOTES = """
import json
from pathlib import Path

class Notes:
    \"\"\"A runtime that writes down what it is asked for, beside the files that it loads.\"\"\"

    def load(self, path, *, threads):
        return Session(Path(path), threads)

class Session:
    input_names = ["x"]

    def __init__(self, path, threads):
        self.path = path
        self.note("load", threads)

    def __call__(self, feed):
        if getattr(self, "size", None) != len(feed["x"]):
            self.size = len(feed["x"])
            self.note("feed", self.size)

    def note(self, *entry):
        with (self.path.parent / "notes").open("a") as notes:
            notes.write(json.dumps([self.path.name, *entry]) + chr(10))
"""


@pytest.fixture
def noted(tmp_path):
    """A timer of two batch sizes, and a function that gives what its runtime was asked for."""
    (tmp_path / "notes.py").write_text(NOTES)
    feed = {"input_0": np.zeros((3, 2))}

    def notes():
        found = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
        (tmp_path / "notes").unlink()
        return found

    return Timer("notes.py:Notes", str(tmp_path), 2, [4, 2], feed, footprints=False), notes


def test_a_timer_times_every_batch_size_against_the_baseline(noted, tmp_path):
    timer, notes = noted
    timings = timer.time(tmp_path / "candidate", tmp_path / "baseline", 0)
    assert [found.batch_size for found in timings] == [4, 2]
    entries = notes()
    assert {tuple(e[1:]) for e in entries} == {("load", 2), ("feed", 4), ("feed", 2)}
    first = [e[0] for e in entries].index("candidate")
    assert {e[0] for e in entries[:first]} == {"baseline"}  # the control
    sizes = [e[2] for e in entries if e[0] == "candidate" and e[1] == "feed"]
    assert sizes == sorted(sizes, reverse=True)
    assert set(sizes) == {4, 2}


def test_the_control_of_a_process_is_timed_once(noted, tmp_path):
    timer, _ = noted
    timer.time(tmp_path / "baseline", None, 0)
    first, second = (timer.time(tmp_path / n, tmp_path / "baseline", 0) for n in ("a", "b"))
    control = first[0].control
    assert control.low <= control.ratio <= control.high
    assert control.noise_floor == max(1 - control.low, control.high - 1)
    assert control.blocks > 0
    assert control.load >= 0
    assert [found.control for found in (first[1], *second)] == [None] * 3


def test_a_control_is_told_by_the_first_timing_that_succeeds(noted, tmp_path, monkeypatch):
    timer, _ = noted
    whole = timing.time_against
    calls = []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise ValueError("the first candidate")
        return whole(*arguments, **options)

    monkeypatch.setattr(timing, "time_against", failing)
    with pytest.raises(ValueError, match="the first candidate"):
        timer.time(tmp_path / "a", tmp_path / "baseline", 0)
    assert timer.time(tmp_path / "b", tmp_path / "baseline", 0)[0].control is not None
    assert len(calls) == 4  # the control once, the candidates' batch sizes


def test_what_the_control_does_not_explain_widens_every_interval(noted, tmp_path, monkeypatch):
    timer, _ = noted
    answers = iter(
        [
            timing.Timing(4, 1.0, 1.25, 1.2, 1.3, 9),
            *(timing.Timing(n, 1, 1, 0.99, 1.01, 9) for n in (4, 2)),
        ]
    )
    monkeypatch.setattr(timing, "time_against", lambda *_, **__: next(answers))
    for found in timer.time(tmp_path / "candidate", tmp_path / "baseline", 0):
        assert found.low < 1 / 1.2
        assert found.ratio == 1
        assert found.high > 1.2


def test_the_baseline_itself_is_timed_alone(noted, tmp_path):
    timer, notes = noted
    timings = timer.time(tmp_path / "baseline", None, 0)
    assert [(found.batch_size, found.ratio) for found in timings] == [(4, 1.0), (2, 1.0)]
    assert [entry for entry in notes() if entry[1] == "load"] == [["baseline", "load", 2]]


def test_a_timer_says_when_it_begins(noted, tmp_path):
    began = []
    noted[0].time(
        tmp_path / "baseline", None, 0, progress=lambda stage, ended: began.append((stage, ended))
    )
    assert began == [("measure", ())]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two models of two positional inputs each, whose files call them differently."""
    folder = tmp_path_factory.mktemp("timed")
    inputs = torch.ones(2, 4), torch.zeros(2, 4)
    paths = [folder / "plain.onnx", folder / "branches.onnx"]
    for model, path in zip((Masked(), MaskedByBranches()), paths, strict=True):
        OnnxRuntime().export(model.eval(), inputs, path)
    return paths, timing_feed(inputs)


def test_positional_inputs_are_given_in_order_to_files_with_other_names(files):
    (path, baseline), feed = files
    timer = Timer("onnxruntime", ".", 1, [1, 3], feed)
    for found in (timer.time(path, baseline, 0), timer.time(path, None, 0)):
        assert [each.batch_size for each in found] == [1, 3]
        assert all(each.milliseconds > 0 for each in found)
        assert found[0].load_ms > 0
        assert found[0].peak_rss_bytes > 0


def test_a_file_that_takes_other_inputs_is_an_error(files):
    (path, _), feed = files
    timer = Timer("onnxruntime", ".", 1, [1], {"input_0": feed["input_0"]})
    with pytest.raises(ValueError, match=r"inputs\(\) gives 1 tensors"):
        timer.time(path, None, 0)


def test_the_process_of_a_timer_loads_neither_torch_nor_the_store(files):
    (path, baseline), feed = files
    arguments = {
        "runtime": "onnxruntime",
        "folder": ".",
        "threads": 1,
        "batch_sizes": [1, 2],
        "feed": feed,
    }
    program = """
import importlib, pickle, sys
from pathlib import Path
module, _, name = "search.timing:Timer".partition(":")
arguments, *paths = pickle.load(sys.stdin.buffer)
timer = getattr(importlib.import_module(module), name)(**arguments)
found = timer.time(*paths, 7)
heavy = {"torch", "onnx", "sqlalchemy", "storage", "alembic", "optuna", "pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert "onnxruntime" in sys.modules
sys.stdout.buffer.write(pickle.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=pickle.dumps((arguments, path, baseline)),
        capture_output=True,
        check=True,
    )
    timings = pickle.loads(done.stdout)
    assert [found.batch_size for found in timings] == [1, 2]
    for found in timings:
        assert 0 < found.low <= found.ratio <= found.high
