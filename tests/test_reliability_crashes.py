"""A crash at any point of a study's life changes nothing that it comes to."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from crash_study import STATEMENT, Lives, Place
from databases import needs_postgres, own_postgres
from doubles import memory_folder

# Whatever a controller writes, and `put`: the files of an artifact.
EVENTS = (
    "create_study",
    "claim",
    "add_session",
    "propose",
    "put",
    "finish",
    "audit",
    "restart",
    "release",
    "enqueue",
    "set_budget",
    "extend",
    "handle_request",
    "add_request",
)
CHAINS = 8  # of crashes of a study that is resumed and crashes again
EVERY = 24  # of the statements of a life: each such one is the last of another life


class Attacked:
    """Lives of one study, which must all come to the same.

    Attributes:
        reached: How often each point is reached in a life without a crash.
        wanted: What such a life comes to.
    """

    def __init__(self, lives: Lives, folder: Path, url: str = "") -> None:
        self._lives = lives
        self._folder = folder
        self._url = url
        self._count = 0
        quiet = self._life(("nowhere", 0))
        assert (quiet["codes"], quiet["code"]) == ([0], 0)
        self.reached: dict[str, int] = quiet["reached"]
        self.wanted: dict[str, Any] = quiet["found"]

    def points(self, event: str) -> list[str]:
        return [point for point in self.reached if point.startswith(f"{event}/")]

    def crash(self, *fuses: tuple[str, int], surely: bool = True) -> None:
        """Crash at these points one after the other, then compare.

        Args:
            surely: Whether each of them must be reached.
        """
        end = self._life(*fuses)
        assert end["code"] == 0, fuses
        assert set(end["codes"]) <= ({-9} if surely else {-9, 0}), fuses
        assert end["found"] == self.wanted, fuses

    def _life(self, *fuses: tuple[str, int]) -> dict[str, Any]:
        self._count += 1
        name = f"s{self._count}"
        return self._lives.die(Place(str(self._folder / name), self._url, name), *fuses)


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    with memory_folder() as folder, Lives() as lives:
        yield Attacked(lives, folder)


@pytest.fixture(scope="module")
def on_server() -> Iterator[Attacked]:
    with ExitStack() as stack:
        folder, url = stack.enter_context(memory_folder()), stack.enter_context(own_postgres())
        yield Attacked(stack.enter_context(Lives()), folder, url)


def test_the_study_that_is_attacked_has_all_there_is(attacked):
    assert {point.partition("/")[0] for point in attacked.reached} == {*EVENTS, STATEMENT}
    trials = attacked.wanted["trials"]
    assert [trial["number"] for trial in trials] == list(range(10))
    assert {trial["state"] for trial in trials} == {"complete", "refused", "failed"}
    assert {trial["origin"] for trial in trials} == {"baseline", "enqueued", "strategy"}
    assert sum(trial["reused_from"] is not None for trial in trials) == 2  # same bytes, same knobs
    assert attacked.wanted["study"][:2] == ["finished", "all 9 trials are done"]
    assert attacked.wanted["open requests"] == 0
    assert attacked.wanted["replay"] == []
    assert attacked.wanted["intact"] == [[["ok"]], []]


@pytest.mark.parametrize("event", EVENTS)
def test_a_crash_at_any_point_of_an_event(attacked, event):
    points = attacked.points(event)
    assert len(points) >= 3
    for point in points:
        attacked.crash((point, 1))


@pytest.mark.slow
@pytest.mark.parametrize("event", EVENTS)
def test_a_crash_at_any_point_when_it_comes_last(attacked, event):
    again = [point for point in attacked.points(event) if attacked.reached[point] > 1]
    for point in again:
        attacked.crash((point, attacked.reached[point]))


@pytest.mark.slow
def test_a_crash_before_any_statement(attacked):
    """Also those that read, and those that make the tables."""
    for nth in range(1, attacked.reached[STATEMENT] + 1, EVERY):
        attacked.crash((STATEMENT, nth))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(CHAINS))
def test_crash_after_crash(attacked, seed):
    attacked.crash(*_chain(attacked, seed), surely=False)


@needs_postgres
def test_on_a_server_it_comes_to_the_same(attacked, on_server):
    assert {**on_server.wanted, "intact": None} == {**attacked.wanted, "intact": None}


@needs_postgres
@pytest.mark.slow
@pytest.mark.parametrize("event", EVENTS)
def test_a_crash_at_any_point_of_an_event_on_a_server(on_server, event):
    for point in on_server.points(event):
        on_server.crash((point, 1))


def _chain(attacked: Attacked, seed: int) -> Iterable[tuple[str, int]]:
    """Two to four points, where the later ones come soon."""
    rng = random.Random(seed)
    points = sorted(attacked.reached)
    first = rng.choice(points)
    yield first, rng.randint(1, attacked.reached[first])
    for _ in range(rng.randint(1, 3)):
        point = rng.choice(points)
        yield point, rng.randint(1, 2 if point != STATEMENT else 60)
