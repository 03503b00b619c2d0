"""Are the proposals of a stored study functions of its rows?"""

from __future__ import annotations

import json
import os
import signal
import sqlite3

import pytest
from conftest import one_line
from doubles import SPACE, FormulaBench, control, new_study
from sqlalchemy import create_engine, text

import strategies
from search.errors import ConfigError
from search.replay import Replay, replay
from storage import Store
from storage.lease import new_owner
from strategies.space import candidate_key

# Walks the space from a stored position, in strides that it chooses once for the whole study.
WALKER = '''
from strategies.base import Exhausted, Proposal


class Walker:
    """Every candidate once.

    Args:
        stride: How far to go; a divisor of no space.
        last: The last trial.
    """

    def __init__(self, stride=7, last=100):
        self.stride, self.last = stride, last

    def propose(self, view, number, rng):
        if number > self.last:
            raise Exhausted("the walk is over")
        place = view.done[-1].memo.get("place", 0) + self.stride
        turns = view.memo.get("turns", 0) + place // view.space.size
        place %= view.space.size
        return Proposal(view.space.at(place), {"place": place}, {"turns": turns})
'''
STRATEGY = {"name": "walker.py:Walker", "stride": 7}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "walker.py").write_text(WALKER)
    return tmp_path


@pytest.fixture
def store(folder):
    return Store(f"sqlite:///{folder / 'a.db'}")


def walked(store, folder, **changes: object):
    """A finished study of the walker: 3 enqueued trials, then 9 of its own."""
    enqueue = [SPACE.at(index) for index in (13, 4, 9)]
    config = {"strategy": STRATEGY, "folder": str(folder), "enqueue": enqueue, **changes}
    new_study(store, trials=12, **config)
    return control(store)


def sql(store, statement: str, **values: object) -> None:
    engine = create_engine(store.url)
    with engine.begin() as connection:
        assert connection.execute(text(statement), values).rowcount == 1
    engine.dispose()


def change_candidate(store, number: int, index: int) -> None:
    candidate = SPACE.at(index)
    sql(
        store,
        "update trials set candidate = :candidate, candidate_key = :key where number = :number",
        candidate=json.dumps(candidate),
        key=candidate_key(candidate),
        number=number,
    )


SEARCHES = [
    *({"name": name} for name in strategies.BUILTIN),
    {"name": "greedy", "step": "best"},
    {"name": "genetic", "population": 4, "initial": 3},
    *(
        {"name": "optuna", "sampler": sampler}
        for sampler in ("nsgaii", "nsgaiii", "qmc", "grid", "bruteforce", "random")
    ),
]


@pytest.mark.parametrize(
    "strategy", SEARCHES, ids=lambda options: "-".join(map(str, options.values()))
)
@pytest.mark.parametrize("enqueue", [[], [SPACE.at(13), SPACE.at(4)]])
def test_every_strategy_replays_an_interrupted_study(store, strategy, enqueue):
    """Cut off in trial 6, so that its row is stored before its outcome is known."""

    def disturb(candidate):
        if len(bench.built) in (3, 5):
            raise ValueError("no such layer")
        if len(bench.built) == 7:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    bench = FormulaBench(disturb)
    new_study(store, trials=12, strategy=strategy, enqueue=enqueue)
    with pytest.raises(KeyboardInterrupt):
        control(store, bench=bench)
    assert store.trials(store.study("s"))[-1].state == "queued"
    assert replay("s", store=store.url) == Replay("s", 6 - len(enqueue), ())
    control(store)
    assert replay("s", store=store.url) == Replay("s", 12 - len(enqueue), ())


def test_baseline_and_enqueued_trials_are_not_the_strategys(store, folder):
    walked(store, folder)
    assert replay("s", store=store.url) == Replay("s", 9, ())


def test_a_study_of_which_nothing_was_proposed_yet(store, folder):
    new_study(store, strategy=STRATEGY, folder=str(folder))
    assert replay("s", store=store.url) == Replay("s", 0, ())


def test_a_changed_candidate_differs(store, folder):
    walked(store, folder)
    stored = store.trials(store.study("s"))[7]
    change_candidate(store, 7, 5)
    (difference,) = replay("s", store=store.url).differences
    assert (difference.trial, difference.what) == (7, "candidate")
    assert (difference.proposed, difference.stored) == (stored.candidate, SPACE.at(5))
    assert str(difference) == (
        f"trial 7: candidate proposed {json.dumps(stored.candidate, sort_keys=True)},"
        f" stored {json.dumps(SPACE.at(5), sort_keys=True)}"
    )


def test_the_order_of_keys_is_no_difference(store, folder):
    walked(store, folder)
    stored = store.trials(store.study("s"))[7].candidate
    backwards = json.dumps({name: stored[name] for name in reversed(stored)})
    sql(store, "update trials set candidate = :candidate where number = 7", candidate=backwards)
    assert list(store.trials(store.study("s"))[7].candidate) != list(stored)
    assert replay("s", store=store.url).differences == ()


def test_a_changed_memo_differs_and_so_does_the_next_trial_that_reads_it(store, folder):
    walked(store, folder)
    sql(store, "update trials set memo = :memo where number = 6", memo='{"place": 2}')
    found = replay("s", store=store.url).differences
    assert [(d.trial, d.what) for d in found] == [
        (6, "memo"),
        (7, "candidate"),
        (7, "memo"),
    ]
    assert (found[0].proposed, found[0].stored) == ({"place": 1}, {"place": 2})


def test_one_is_not_true(store, folder):
    walked(store, folder)
    sql(store, "update trials set memo = :memo where number = 6", memo='{"place": true}')
    assert replay("s", store=store.url).differences[0].stored == {"place": True}


def test_a_changed_study_memo_differs_after_the_last_trial(store, folder):
    walked(store, folder)
    assert store.study("s").memo == {"turns": 3}
    sql(store, "update studies set memo = :memo", memo='{"turns": 4}')
    (difference,) = replay("s", store=store.url).differences
    assert str(difference) == 'study memo proposed {"turns": 3}, stored {"turns": 4}'


def test_the_study_memo_is_not_compared_while_a_controller_is_at_work(store, folder):
    walked(store, folder)
    sql(store, "update studies set memo = :memo", memo='{"turns": 4}')
    study, owner = store.study("s"), new_owner()
    store.claim(study, owner)
    assert replay("s", store=store.url).differences == ()
    store.release(study, owner, "finished")


def test_a_strategy_that_ends_before_a_stored_trial_differs(store, folder):
    walked(store, folder)
    source = folder / "walker.py"
    source.write_text(WALKER.replace("last=100", "last=10"))
    found = replay("s", store=store.url).differences
    assert [d.trial for d in found] == [11, 12, None]
    assert found[0].proposed == "nothing (the walk is over)"


def test_a_strategy_that_fails_now_differs(store, folder):
    walked(store, folder)
    source = folder / "walker.py"
    source.write_text(WALKER.replace("if number > self.last", "if number > self.lost"))
    found = replay("s", store=store.url).differences
    assert len(found) == 10
    assert "no attribute 'lost'" in str(found[0])


def test_options_are_those_of_the_study(store, folder):
    walked(store, folder, strategy={**STRATEGY, "stride": 3})
    assert replay("s", store=store.url).differences == ()


def test_a_strategy_whose_file_is_gone_is_one_line(naslite, store, folder):
    walked(store, folder)
    (folder / "walker.py").unlink()
    with pytest.raises(ConfigError, match=r"study s: strategy\.name: the file .* does not exist"):
        replay("s", store=store.url)
    one_line(naslite("replay", "s", "--store", store.url))


# The verb


def test_equal_proposals_exit_with_zero(naslite, finished):
    code, out, err = naslite("replay", "toy", "--store", finished.store)
    assert (code, out, err) == (0, "replayed 6 proposals of toy: all equal\n", "")


def test_differences_are_listed_up_to_ten_and_exit_with_one(naslite, store, folder):
    walked(store, folder)
    change_candidate(store, 5, 3)
    code, out, err = naslite("replay", "s", "--store", store.url)
    assert (code, err) == (1, "")
    assert out.startswith("trial 5: candidate proposed {")
    assert out.splitlines()[1:] == ["replayed 9 proposals of s: 1 difference"]

    source = folder / "walker.py"
    source.write_text(WALKER.replace("+ self.stride", "+ self.stride + 1"))
    code, out, _ = naslite("replay", "s", "--store", store.url)
    lines = out.splitlines()
    assert code == 1
    assert len(lines) == 12
    count = int(lines[10].removeprefix("and ").removesuffix(" more differences"))
    assert lines[11] == f"replayed 9 proposals of s: {10 + count} differences"


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_strategy_that_looks_at_its_budget(naslite, store, folder, is_kept):
    """It replays, but where the change was made before such changes were kept."""
    (folder / "eager.py").write_text(
        "from strategies.base import Proposal\n"
        "class Eager:\n"
        "    def propose(self, view, number, rng):\n"
        "        return Proposal(view.space.at(min(number + view.budget.trials, 19)))\n"
    )
    strategy = {"name": "eager.py:Eager"}
    budget = {"trials": 3, "minutes": None}
    new_study(store, trials=3, strategy=strategy, folder=str(folder), budget=budget)
    control(store)
    assert naslite("replay", "s", "--store", store.url)[0] == 0
    study, owner = store.study("s"), new_owner()
    store.claim(study, owner)
    store.set_budget(study, owner, 6, None, 4 if is_kept else None)
    store.release(study, owner, "finished")
    control(store)
    code, out, _ = naslite("replay", "s", "--store", store.url)
    if is_kept:
        assert (code, len(store.trials(study))) == (0, 7)
        return
    assert code == 0  # the controller does not know of the change either
    with sqlite3.connect(folder / "a.db") as connection:
        connection.execute(
            "UPDATE trials SET candidate = ? WHERE number = 6", (json.dumps(SPACE.at(12)),)
        )
    code, out, _ = naslite("replay", "s", "--store", store.url)
    assert code == 1
    assert "was changed since it was created" in out.splitlines()[-1]


def test_an_unknown_study_is_one_line(naslite, finished):
    assert "unknown study 'tyo'" in one_line(naslite("replay", "tyo", "--store", finished.store))


def test_replaying_changes_nothing(naslite, store, folder):
    walked(store, folder)
    with sqlite3.connect(folder / "a.db") as connection:
        before = list(connection.iterdump())
    naslite("replay", "s", "--store", store.url)
    with sqlite3.connect(folder / "a.db") as connection:
        assert list(connection.iterdump()) == before
    connection.close()
