"""The part of the store contract that is about budgets, requests of others and known facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from .lease import new_owner
from .records import Extension, Known, Outcome, Request, Study
from .store import Store
from .testing_samples import (
    CANDIDATE,
    COMPLETE,
    dead_owner,
    new_study,
    propose,
    stored_artifact,
)


class RequestContract:
    """What is asked of a study, and what it began with, is kept with its answer."""

    # Requests

    def test_requests_come_in_order_until_they_are_handled(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        other = store.create_study(new_study("other"), owner)
        store.add_request(study, "extend", {"trials": 5})
        store.add_request(other, "stop")
        store.add_request(study, "stop")
        store.add_request(study, "enqueue", {"candidate": CANDIDATE})
        asked = store.requests(study)

        assert [(r.kind, r.payload) for r in asked] == [
            ("extend", {"trials": 5}),
            ("stop", {}),
            ("enqueue", {"candidate": CANDIDATE}),
        ]
        store.handle_request(study, owner, asked[1])
        assert store.requests(study) == [asked[0], asked[2]]
        assert [r.kind for r in store.requests(other)] == ["stop"]

    def test_a_request_is_handled_without_being_an_extension(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        for number in (None, 4):
            store.handle_request(study, owner, _asked(store, study, "extend"), number=None)
            store.handle_request(study, owner, _asked(store, study, "stop"), number)

        assert store.extensions(study) == []

    # Budgets

    def test_the_budget_can_be_changed(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        store.set_budget(study, owner, 99, None)
        assert (store.study("s").trials, store.study("s").minutes) == (99, None)
        store.set_budget(study, owner, 5, 0.5)
        assert (store.study("s").trials, store.study("s").minutes) == (5, 0.5)
        assert store.extensions(study) == []

    def test_changes_of_the_budget_come_by_number(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        other = store.create_study(new_study("other"), owner)
        request = _asked(store, study, "extend", {"trials": 20})
        store.set_budget(study, owner, 99, None, 7)
        store.extend(study, owner, request, 20, 1.5, 3)
        store.set_budget(study, owner, 98, 2.0, 7)
        store.set_budget(other, owner, 1, None, 1)

        assert store.extensions(study) == [
            Extension(3, 20, 1.5),
            Extension(7, 99, None),
            Extension(7, 98, 2.0),
        ]
        assert (store.study("s").trials, store.study("s").minutes) == (98, 2.0)
        assert store.extensions(other) == [Extension(1, 1, None)]
        assert store.requests(study) == []

    # Enqueued candidates

    def test_enqueued_candidates_wait_as_trials(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 0)
        request = _asked(store, study, "enqueue")
        store.enqueue(
            study, owner, request, [(1, CANDIDATE, "a", "enqueued"), (2, {}, "b", "continued")]
        )
        _, first, second = store.trials(study)

        assert [(t.number, t.candidate) for t in (first, second)] == [(1, CANDIDATE), (2, {})]
        assert [t.origin for t in (first, second)] == ["enqueued", "continued"]
        assert [t.is_continued for t in (first, second)] == [False, True]
        for trial in (first, second):
            assert (trial.state, trial.memo) == ("queued", {})
            assert (trial.attempt, trial.deaths, trial.finished_at) == (0, 0, None)
        assert store.requests(study) == []

    def test_nothing_may_be_enqueued(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        store.enqueue(study, owner, _asked(store, study, "enqueue"), [])

        assert store.requests(study) == []
        assert store.trials(study) == []

    def test_a_trial_that_waits_again_counts_its_attempts(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        request = _asked(store, study, "enqueue")
        store.enqueue(study, owner, request, [(n, {}, f"key {n}", "enqueued") for n in (1, 2, 3)])
        store.restart(study, owner, 1)
        store.restart(study, owner, 2)
        store.release(study, owner, "interrupted")
        store.claim(study, owner)
        assert [(t.state, t.attempt) for t in store.trials(study)] == [
            ("queued", 1),
            ("queued", 1),
            ("queued", 0),
        ]
        store.restart(study, owner, 2)
        store.restart(study, owner, 3)
        assert [(t.state, t.attempt) for t in store.trials(study)] == [
            ("queued", 1),
            ("running", 2),
            ("running", 1),
        ]

    # Known facts

    def test_known_facts_are_read_back_in_every_field(self, store: Store, tmp_path: Path) -> None:
        complete = replace(
            COMPLETE,
            artifact=stored_artifact(store, tmp_path),
            reused_from=3,
            reused_study="before",
        )
        facts = {
            "a": complete,
            "b": Outcome("refused", "cannot 'a\0b\udcff'", reused_from=0, reused_study="before"),
            "c": replace(complete, seconds=0.0, reused_from=4),
        }
        known = [Known(key, outcome) for key, outcome in facts.items()]
        study = store.create_study(new_study("s"), new_owner(), known)
        other = store.create_study(new_study("other"), new_owner())
        facts["b"] = replace(facts["b"], cause=r"cannot 'a\0b\udcff'")

        assert store.known(study) == facts
        assert store.known(other) == {}

    def test_of_two_facts_about_a_candidate_the_first_counts(
        self, store: Store, tmp_path: Path
    ) -> None:
        first = replace(COMPLETE, artifact=stored_artifact(store, tmp_path, b"first"))
        other = replace(COMPLETE, artifact=stored_artifact(store, tmp_path, b"other"))
        refused = Outcome("refused", "why")
        known = [Known("a", first), Known("b", refused), Known("a", other), Known("a", first)]
        study = store.create_study(new_study("s"), new_owner(), known)

        assert store.known(study) == {"a": first, "b": refused}
        assert first.artifact is not None
        assert store.used_artifacts() == {first.artifact.sha256}

    def test_a_study_with_wrong_facts_is_not_made(self, store: Store) -> None:
        with pytest.raises(ValueError, match="finite"):
            store.create_study(
                new_study("s"), new_owner(), [Known("a", _not_finite()), Known("b", COMPLETE)]
            )
        assert store.studies() == []

    def test_what_is_known_keeps_its_artifact(self, store: Store, tmp_path: Path) -> None:
        owner = dead_owner()
        artifact = stored_artifact(store, tmp_path)
        complete = replace(COMPLETE, artifact=artifact)
        study = store.create_study(new_study("before"), owner)
        propose(store, study, owner, 0)
        store.finish(study, owner, 0, complete)
        fact = Known("k", replace(complete, reused_from=0, reused_study="before"))
        store.create_study(new_study("after"), owner, [fact])
        assert store.remove("before") == []

        assert store.used_artifacts() == {artifact.sha256}
        assert store.artifacts.get(artifact.sha256) is not None
        assert store.known(store.study("after"))["k"].artifact == artifact
        assert store.remove("after") == [artifact.sha256]
        assert store.used_artifacts() == frozenset()
        assert store.artifacts.get(artifact.sha256) is None


def _asked(store: Store, study: Study, kind: str, payload: dict[str, int] = {}) -> Request:
    store.add_request(study, kind, payload)
    return store.requests(study)[-1]


def _not_finite() -> Outcome:
    first, *_ = COMPLETE.measurements
    return replace(COMPLETE, measurements=(replace(first, value=float("nan")),))
