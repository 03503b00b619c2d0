"""The part of the store contract that is about reading trials: all, some, or for ranking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .lease import new_owner
from .records import Facts
from .store import Store
from .testing_samples import COMPLETE, new_study, outcome_of, propose, stored_artifact


class ReadingContract:
    """Trials are read by number, whole or in part."""

    def test_trials_come_by_number_from_a_number_on(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        for number in (2, 0, 10, 1):
            propose(store, study, owner, number)
            store.finish(study, owner, number, replace(COMPLETE, seconds=float(number)))

        assert [t.number for t in store.trials(study)] == [0, 1, 2, 10]
        late = store.trials(study, since=2)
        assert [t.number for t in late] == [2, 10]
        assert [outcome_of(t) for t in late] == [
            replace(COMPLETE, seconds=2.0),
            replace(COMPLETE, seconds=10.0),
        ]

    def test_studies_do_not_see_each_others_trials(self, store: Store) -> None:
        owner = new_owner()
        one, two = (store.create_study(new_study(name), owner) for name in ("one", "two"))
        propose(store, one, owner, 1)
        propose(store, two, owner, 1)
        store.finish(one, owner, 1, COMPLETE)

        assert store.trials(one)[0].state == "complete"
        assert store.trials(two)[0].state == "running"
        assert store.trials(two)[0].measurements == ()

    def test_trials_are_read_without_their_stages(self, store: Store, tmp_path: Path) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        outcome = replace(COMPLETE, artifact=stored_artifact(store, tmp_path))
        for number in range(3):
            propose(store, study, owner, number)
            store.finish(study, owner, number, outcome)

        whole = store.trials(study, since=1)
        assert store.trials(study, since=1, stages=False) == [
            replace(trial, stages=()) for trial in whole
        ]

    @pytest.mark.parametrize("many", [0, 500])
    def test_some_trials_are_read_by_their_numbers(
        self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
    ) -> None:
        monkeypatch.setattr("storage.queries.MANY", many)
        owner, artifact = new_owner(), stored_artifact(store, tmp_path)
        study = store.create_study(new_study("s"), owner)
        for number in range(5):
            propose(store, study, owner, number)
            used = artifact if number % 2 else None
            outcome = replace(COMPLETE, artifact=used, seconds=float(number))
            store.finish(study, owner, number, outcome)
        whole = store.trials(study)

        assert store.trials(study, numbers=[3, 1, 7]) == [whole[1], whole[3]]
        assert store.trials(study, numbers={0}) == whole[:1]
        assert store.trials(study, numbers=[]) == []
        assert store.trials(study, numbers=range(1, 100), stages=False) == [
            replace(trial, stages=()) for trial in whole[1:]
        ]

    def test_more_trials_than_a_statement_has_parameters(self, store: Store) -> None:
        study = store.create_study(new_study("s"), new_owner())

        assert store.trials(study, numbers=range(100_000)) == []

    def test_facts_are_what_a_query_needs_of_complete_trials(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        other = store.create_study(new_study("other"), owner)
        for number, state in enumerate(("complete", "stopped", "complete", "")):
            for one in (study, other):
                candidate = {"a.x": number, "b": "text", "c@d.0": True}
                store.propose(one, owner, number, candidate, f"key{number}")
                if state:
                    store.finish(one, owner, number, replace(COMPLETE, state=state, seconds=1.5))

        seconds = {"seconds": {0: 1.5, 2: 1.5}}
        found = store.facts(study, ["accuracy", "unknown"], ["a.x", "c@d.0", "e"])
        assert found.numbers == (0, 2)
        assert found.columns == {
            **seconds,
            "accuracy": {0: 0.1 + 0.2, 2: 0.1 + 0.2},
            "unknown": {},
            "a.x": {0: 0, 2: 2},
            "c@d.0": {0: True, 2: True},
            "e": {},
        }
        propose(store, study, owner, 7)
        store.finish(study, owner, 7, replace(COMPLETE, measurements=COMPLETE.measurements[:1]))
        stored = store.facts(study, ["accuracy"]).columns["accuracy"]
        assert set(stored) == {0, 2}  # 1 was stopped, and 7 has none
        seconds["seconds"][7] = 2.5
        known = {"number": 2, "state": "complete", "seconds": 1.5, "accuracy": 0.1 + 0.2}
        assert found.row(2) == {**known, "a.x": 2, "c@d.0": True}
        assert store.facts(study, []) == Facts((0, 2, 7), seconds)
