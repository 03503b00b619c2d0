"""Timing beside a neighbour who slows the processor for seconds, and two files unequally."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from search import timed_calls, timed_rounds, timing
from search.timed_rounds import REMEMBERED, Pace, Round, at_full_speed, round_of
from search.timing import SessionPair, Timer
from search.timing_statistics import FEWEST, MOMENT

FEED = {"x": np.zeros((1, 2))}
LARGE, SMALL = 1e-3, 2e-4  # seconds of a call at full speed
SLOWED = {LARGE: 1.15, SMALL: 1.4}
AT_FULL_SPEED = SMALL / LARGE


class Machine:
    """Has a clock of its own, which only calls of its sessions move.

    Args:
        is_slow: Whether it is, at so many seconds.
    """

    def __init__(self, monkeypatch, is_slow):
        self.seconds = 0.0
        self.is_slow = is_slow
        clock = SimpleNamespace(perf_counter=self.now, thread_time=self.now, process_time=self.now)
        for module in (timing, timed_calls):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(timed_calls, "interruptions", lambda: 0)

    def now(self):
        return self.seconds

    def session(self, seconds):
        def call(feed):
            self.seconds += seconds * (SLOWED[seconds] if self.is_slow(self.seconds) else 1)

        call.input_names = ["x"]
        return call

    def timed(self, own=SMALL, other=LARGE, **options):
        rng = np.random.default_rng(0)
        pair = SessionPair(lambda: self.session(own), lambda: self.session(other), rng)
        return timing.time_against(pair, FEED, 1, rng, **options)


def test_rounds_beside_a_neighbour_do_not_count(monkeypatch):
    machine = Machine(monkeypatch, lambda now: now % 0.5 > 0.1)  # four fifths of the time
    found = machine.timed()
    assert found.ratio == pytest.approx(AT_FULL_SPEED)
    assert found.milliseconds == pytest.approx(1e3 * SMALL)
    assert not found.noisy
    monkeypatch.setattr(timed_rounds, "SLACK", float("inf"))
    assert machine.timed().ratio > 1.1 * AT_FULL_SPEED, "what it would be if they counted"


def test_a_timing_waits_for_the_speed_that_the_baseline_is_known_to_have(monkeypatch):
    pace = Pace()
    machine = Machine(monkeypatch, lambda now: 1 < now < 4)
    machine.timed(LARGE, LARGE, pace=pace)
    machine.seconds = 1.01
    found = machine.timed(pace=pace)
    assert found.ratio == pytest.approx(AT_FULL_SPEED)
    assert not found.noisy
    assert machine.seconds > 4
    machine.seconds = 1.01
    assert machine.timed().ratio > 1.1 * AT_FULL_SPEED, "what it is if nothing is known"


def test_a_timing_that_waits_in_vain_is_noisy_and_not_for_ever(monkeypatch):
    pace = Pace()
    machine = Machine(monkeypatch, lambda now: now > 1)
    for _ in range(2):
        machine.timed(LARGE, LARGE, pace=pace)
    machine.seconds = 1.01
    said = [machine.timed(pace=pace).noisy for _ in range(REMEMBERED)]
    slow = REMEMBERED - 1  # then a single fast one is remembered, and the machine is a slower one
    assert said == [True] * slow + [False] * (REMEMBERED - slow)


def test_one_lucky_timing_is_not_waited_for_again(monkeypatch):
    pace = Pace()
    for speed in (1.0, 1.0, 0.8):
        pace.note(rounds(np.ones(9), np.full(9, speed)))
    assert pace.is_reached(rounds(np.ones(9), np.full(9, 1.04)))
    assert not pace.is_reached(rounds(np.ones(9), np.full(9, 1.06)))


def test_a_timing_lasts_as_long_as_it_is_told_to(monkeypatch):
    machine = Machine(monkeypatch, lambda now: False)
    machine.timed(seconds=2.0)
    short = machine.seconds
    assert short < 1
    machine.timed(seconds=2.0, least=2.0)
    assert 2 <= machine.seconds - short < 2.1


def test_rounds_that_count_too_few_leave_those_that_were_not_disturbed(monkeypatch):
    """And not all, of which disturbed ones would flatter the faster file."""
    machine = Machine(monkeypatch, lambda now: False)
    monkeypatch.setattr(timing, "at_full_speed", lambda rounds: rounds[: FEWEST - 1])
    monkeypatch.setattr(timing, "seconds_of", lambda calls: [9 * c.seconds for c in calls])
    found = machine.timed()
    assert found.noisy
    assert found.milliseconds == pytest.approx(1e3 * SMALL)


def test_a_timing_stops_at_the_greatest_number_of_rounds(monkeypatch):
    machine = Machine(monkeypatch, lambda now: False)
    monkeypatch.setattr(timing, "HALF_WIDTH", -1.0)
    monkeypatch.setattr(timing, "LOOKS", (7, 9))
    assert machine.timed(seconds=1e9).blocks == 9 * timing.BLOCKS


def test_a_timing_stops_when_it_is_sure_enough(monkeypatch):
    found = Machine(monkeypatch, lambda now: False).timed(seconds=1e9)
    assert found.blocks == timing.LOOKS[0] * timing.BLOCKS


def test_a_timing_stops_when_it_is_late(monkeypatch):
    found = Machine(monkeypatch, lambda now: False).timed(seconds=0.0)
    assert found.blocks == FEWEST * timing.BLOCKS


def test_no_interval_is_narrower_than_what_moments_differ_in(monkeypatch):
    found = Machine(monkeypatch, lambda now: False).timed()
    assert found.low == pytest.approx(AT_FULL_SPEED * np.exp(-MOMENT))
    assert found.high == pytest.approx(AT_FULL_SPEED * np.exp(MOMENT))


def rounds(own, other):
    return [Round(a / b, a, b, [a], 1) for a, b in zip(own, other, strict=True)]


def test_full_speed_is_asked_of_both_files_together():
    own, other = np.ones(9), np.ones(9)
    own[0], other[1], own[2], other[2] = 1.2, 1.2, 1.04, 1.04
    given = rounds(own, other)
    assert at_full_speed(given) == given[2:]
    assert at_full_speed(rounds(other, own)) == rounds(other, own)[2:]
    assert at_full_speed([]) == []


def test_rounds_in_which_one_file_alone_is_faster_do_not_decide(monkeypatch):
    """A lucky layout of its memory in every sixth round is no full speed of the machine."""
    own = [0.92 if i % 6 == 0 else 1.0 for i in range(30)]
    assert len(at_full_speed(rounds(own, np.ones(30)))) == 30


def test_two_lucky_rounds_do_not_say_what_full_speed_is():
    given = rounds([0.5, 0.6, *[1.0] * 9], np.ones(11))
    assert at_full_speed(given) == given
    given = rounds([0.5, 0.6, 0.6, *[1.0] * 8], np.ones(11))
    assert at_full_speed(given) == given[:3], "three are no luck"


def test_which_rounds_count_does_not_hang_on_how_many_there_are():
    """The third fastest of more rounds is faster."""
    spread = np.random.default_rng(0).normal(1, 0.012, 3_000)
    given = rounds(spread, np.ones(3_000))
    assert len(at_full_speed(given)) > 2_900


def test_of_either_file_as_many_calls_are_looked_at():
    found = round_of([([3.0, 2.0, 1.0], [4.0]), ([], [1.0]), ([2.0], [8.0, 1.0])])
    assert found == Round((0.75 + 0.25) / 2, 2.5, 6.0, [3.0, 2.0, 1.0, 2.0], 2)
    assert round_of([([], [1.0])]) is None


def test_too_few_rounds_say_nothing_of_the_pace():
    pace = Pace()
    pace.note(rounds(np.ones(FEWEST - 1), np.full(FEWEST - 1, 0.1)))
    assert pace.is_reached(rounds(np.ones(9), np.ones(9)))
    pace.note(rounds(np.ones(FEWEST), np.full(FEWEST, 0.1)))
    assert not pace.is_reached(rounds(np.ones(9), np.ones(9)))


def test_a_process_knows_the_pace_of_each_batch_size_and_its_control_looks_long(monkeypatch):
    asked = []

    def timed(pair, feed, batch_size, rng, **options):
        asked.append((batch_size, options["pace"], options.get("least")))
        return timing.Timing(batch_size, 1.0, 1.0, 0.99, 1.01, 9)

    monkeypatch.setattr(timing, "time_against", timed)
    monkeypatch.setattr(Timer, "loader", lambda self, path: object)
    timer = Timer("onnxruntime", ".", 1, [4, 2], FEED, footprints=False, seconds=0.7)
    for _ in range(2):
        timer.time("own", "baseline", 0)
    paces = {size: {pace for s, pace, _ in asked if s == size} for size in (4, 2)}
    assert [len(each) for each in paces.values()] == [1, 1]
    assert paces[4] != paces[2]
    assert [least for *_, least in asked] == [0.7, None, None, None, None]


def test_freed_memory_is_given_back_where_the_c_library_can(monkeypatch):
    asked = []

    def library(name):
        assert name is None
        return SimpleNamespace(malloc_trim=asked.append)

    def none(name):
        raise OSError("dlopen")

    monkeypatch.setattr(timing.ctypes, "CDLL", library)
    timing._give_back_memory()
    for other in (none, lambda name: SimpleNamespace()):
        monkeypatch.setattr(timing.ctypes, "CDLL", other)
        timing._give_back_memory()
    assert asked == [0]


def test_the_memory_of_old_sessions_is_given_back_before_new_ones_are_loaded(monkeypatch):
    living = weakref.WeakSet()
    at_load, at_return = [], []

    class Session:
        def __init__(self):
            at_load.append(len(living))
            living.add(self)

    monkeypatch.setattr(timing, "_give_back_memory", lambda: at_return.append(len(living)))
    pair = SessionPair(Session, Session, np.random.default_rng(0))
    pair.renew()
    assert at_return == [0, 0]
    assert at_load == [0, 1, 0, 1]
