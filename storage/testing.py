"""The store contract as tests to inherit, one subclass per kind of database.

It needs pytest and Hypothesis: pip install 'naslite[dev]'.

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        ...  # yield an empty, open store, then close it
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from .errors import NameTaken, StudyBusy, UnknownStudy
from .lease import new_owner
from .records import Outcome
from .store import Store
from .testing_events import EventContract
from .testing_owners import OwnerContract
from .testing_reading import ReadingContract
from .testing_requests import RequestContract
from .testing_samples import (
    COMPLETE,
    dead_owner,
    everything,
    new_study,
    propose,
    stored_artifact,
)
from .testing_trials import TrialContract

__all__ = ["StoreContract", "dead_owner", "new_study", "propose"]


class StoreContract(TrialContract, ReadingContract, RequestContract, OwnerContract, EventContract):
    """What a store promises on any database; inherit it and supply a `store` fixture."""

    # Studies

    def test_a_new_study_is_read_back_in_every_field(self, store: Store) -> None:
        new, owner, before = new_study("digits"), new_owner(), time.time()
        made = store.create_study(new, owner)
        study = store.study("digits")

        assert study == made
        assert {name: getattr(study, name) for name in asdict(new)} == asdict(new)
        assert (study.state, study.cause, study.memo, study.seconds) == ("running", "", {}, 0.0)
        assert study.owner == owner
        assert before <= study.created_at == study.updated_at <= time.time() < study.lease_until
        assert study.claimed_at == study.created_at

    def test_numbers_keep_their_types_in_a_study(self, store: Store) -> None:
        facts = {"i": 1, "f": 1.0, "b": True, "n": None, "big": 2**70, "small": 5e-324}
        store.create_study(replace(new_study("s"), minutes=None, facts=facts), new_owner())
        study = store.study("s")

        assert study.minutes is None
        assert repr(sorted(study.facts.items())) == repr(sorted(facts.items()))

    def test_a_name_is_given_once(self, store: Store) -> None:
        first = store.create_study(new_study("digits"), new_owner())
        with pytest.raises(NameTaken, match="a study named 'digits' exists") as caught:
            store.create_study(replace(new_study("digits"), seed=1), new_owner())

        assert "naslite resume digits" in str(caught.value)
        assert store.study("digits") == first

    def test_an_impossible_study_is_not_called_taken(self, store: Store) -> None:
        impossible = replace(new_study("digits"), task_fingerprint=None)  # type: ignore[arg-type]
        with pytest.raises(IntegrityError, match="task_fingerprint"):
            store.create_study(impossible, new_owner())
        assert store.studies() == []

    def test_an_unknown_study_is_answered_with_the_known_ones(self, store: Store) -> None:
        with pytest.raises(UnknownStudy, match=r"unknown study 'digit'; .*: none yet"):
            store.study("digit")
        store.create_study(new_study("digits"), new_owner())
        store.create_study(new_study("letters"), new_owner())
        with pytest.raises(UnknownStudy, match=r"unknown study 'digit'; .*: digits, letters"):
            store.study("digit")

    def test_studies_are_listed_with_their_trials_by_state(self, store: Store) -> None:
        owner = new_owner()
        for name in ("b", "a", "empty"):
            study = store.create_study(new_study(name), owner)
            for number, state in enumerate(("complete", "failed", "failed", "")):
                if name == "empty":
                    continue
                propose(store, study, owner, number)
                if state:
                    store.finish(study, owner, number, Outcome(state))
        counts = {"complete": 1, "failed": 2, "running": 1}

        assert [(s.study.name, s.counts) for s in store.studies()] == [
            ("b", counts),
            ("a", counts),
            ("empty", {}),
        ]
        assert [s.study for s in store.studies()] == [store.study(n) for n in ("b", "a", "empty")]

    def test_has_study(self, store: Store) -> None:
        store.create_study(new_study("digits"), new_owner())

        assert store.has_study("digits")
        assert not store.has_study("Digits")

    # Removing

    def test_removing_a_study_keeps_what_others_use(self, store: Store, tmp_path: Path) -> None:
        owner = dead_owner()
        shared = stored_artifact(store, tmp_path, b"shared")
        own = stored_artifact(store, tmp_path, b"own")
        for name, artifacts in (("keep", [shared]), ("drop", [shared, own, own])):
            study = store.create_study(new_study(name), owner)
            store.add_request(study, "stop")
            for number, artifact in enumerate(artifacts):
                propose(store, study, owner, number)
                store.finish(study, owner, number, replace(COMPLETE, artifact=artifact))
        kept, dropped = store.study("keep"), store.study("drop")
        trials = store.trials(kept)

        assert store.remove("drop") == [own.sha256]
        assert not store.has_study("drop")
        assert store.trials(dropped) == []
        assert store.requests(dropped) == []
        assert store.artifacts.get(own.sha256) is None
        assert store.study("keep") == kept
        assert store.trials(kept) == trials
        assert len(store.requests(kept)) == 1
        assert store.artifacts.get(shared.sha256) is not None
        assert store.remove("keep") == [shared.sha256]
        assert store.artifacts.get(shared.sha256) is None
        assert store.studies() == []

    def test_a_removed_name_is_free_again(self, store: Store) -> None:
        study = store.create_study(new_study("s"), dead_owner())
        propose(store, study, study.owner, 1)
        store.remove("s")
        again = store.create_study(new_study("s"), new_owner())

        assert store.trials(again) == []

    def test_a_live_study_is_not_removed(self, store: Store, tmp_path: Path) -> None:
        owner = new_owner()
        artifact = stored_artifact(store, tmp_path)
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        store.finish(study, owner, 1, replace(COMPLETE, artifact=artifact))
        kept = everything(store)
        with pytest.raises(StudyBusy, match="'s' is being run by process"):
            store.remove("s")

        assert everything(store) == kept
        assert store.artifacts.get(artifact.sha256) is not None

    def test_an_unknown_study_is_not_removed(self, store: Store) -> None:
        store.create_study(new_study("digits"), dead_owner())
        with pytest.raises(UnknownStudy, match="digits"):
            store.remove("letters")

        assert store.has_study("digits")
