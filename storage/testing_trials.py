"""The part of the store contract that is about trials and their outcomes."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from .errors import CorruptFiles
from .lease import new_owner
from .records import ORIGINS, Measurement, Outcome, Trial
from .store import Store
from .testing_samples import (
    CANDIDATE,
    COMPLETE,
    dead_owner,
    everything,
    new_study,
    outcome_of,
    propose,
    stored_artifact,
)

# What JSON and both databases can hold: no NUL and no lone surrogate in a text.
_texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
_numbers = st.floats(allow_nan=False, allow_infinity=False)
_values = st.booleans() | st.integers(-(2**63), 2**63) | _numbers | _texts
_candidates = st.dictionaries(_texts, _values, max_size=6)
_measured = st.builds(
    Measurement,
    metric=_texts,
    value=_numbers,
    unit=_texts,
    low=st.none() | _numbers,
    high=st.none() | _numbers,
    n=st.none() | st.integers(0, 2**31 - 1),
    noisy=st.booleans(),
)


class TrialContract:
    """Proposals and outcomes are read back as they were stored, whole or not at all."""

    def test_a_proposal_is_stored_before_it_is_evaluated(self, store: Store) -> None:
        owner, before = new_owner(), time.time()
        study = store.create_study(new_study("s"), owner)
        store.propose(study, owner, 3, CANDIDATE, "key", memo={"parents": [0, 2], "note": None})
        (trial,) = store.trials(study)

        assert trial == Trial(
            3,
            "running",
            CANDIDATE,
            {"parents": [0, 2], "note": None},
            created_at=trial.created_at,
        )
        assert before <= trial.created_at <= time.time()

    @pytest.mark.parametrize("origin", ORIGINS)
    def test_a_trial_tells_who_chose_it(self, store: Store, origin: str) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        store.propose(study, owner, 0, CANDIDATE, "key", origin=origin)

        assert store.trials(study)[0].origin == origin

    def test_an_outcome_is_read_back_in_every_field(self, store: Store, tmp_path: Path) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        outcome = replace(COMPLETE, artifact=stored_artifact(store, tmp_path), reused_from=0)
        outcome = replace(outcome, reused_study="before")
        propose(store, study, owner, 1)
        store.finish(study, owner, 1, outcome)
        (trial,) = store.trials(study)

        assert outcome_of(trial) == outcome
        assert trial.candidate == CANDIDATE
        assert trial.attempt == 1
        assert trial.finished_at is not None
        assert trial.created_at <= trial.finished_at <= time.time()

    @pytest.mark.parametrize("state", ["refused", "stopped", "failed"])
    def test_a_trial_without_result_keeps_its_cause(self, store: Store, state: str) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        outcome = Outcome(state, "RuntimeError: 'x' is \u2265 2", COMPLETE.stages[:1], seconds=0.5)
        store.finish(study, owner, 1, outcome)

        assert outcome_of(store.trials(study)[0]) == outcome

    def test_a_cause_may_quote_any_bytes(self, store: Store) -> None:
        owner, cause = new_owner(), "cannot load 'a\0b\udcff'"
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        stages = (replace(COMPLETE.stages[0], note=cause),)
        store.finish(study, owner, 1, Outcome("failed", cause, stages))
        store.release(study, owner, "failed", cause)
        (trial,) = store.trials(study)

        for text in (trial.cause, trial.stages[0].note, store.study("s").cause):
            assert text == r"cannot load 'a\0b\udcff'"

    def test_any_candidate_and_measurement_is_read_back(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        numbers = itertools.count()

        @settings(deadline=None, max_examples=30)
        @given(_candidates, _candidates, st.lists(_measured, unique_by=lambda m: m.metric))
        def round_trip(
            candidate: dict[str, Any], memo: dict[str, Any], measured: list[Measurement]
        ) -> None:
            number = next(numbers)
            store.propose(study, owner, number, candidate, "key", memo=memo)
            store.finish(study, owner, number, Outcome("complete", measurements=tuple(measured)))
            (trial,) = store.trials(study, since=number)
            assert trial.measurements == tuple(measured)
            assert _typed(trial.candidate) == _typed(candidate)
            assert _typed(trial.memo) == _typed(memo)

        round_trip()

    def test_a_number_is_proposed_once(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        kept = everything(store)
        with pytest.raises(IntegrityError):
            store.propose(study, owner, 1, {}, "key", study_memo={"lost": True})

        assert everything(store) == kept

    def test_the_strategys_memo_is_stored_with_a_proposal(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        store.propose(study, owner, 1, CANDIDATE, "key", study_memo={"phase": 1, "best": [0.5]})
        assert store.study("s").memo == {"phase": 1, "best": [0.5]}
        store.propose(study, owner, 2, CANDIDATE, "key")
        assert store.study("s").memo == {"phase": 1, "best": [0.5]}
        store.propose(study, owner, 3, CANDIDATE, "key", study_memo={"phase": 2})
        assert store.study("s").memo == {"phase": 2}
        store.propose(study, owner, 4, CANDIDATE, "key", study_memo={})
        assert store.study("s").memo == {}

    def test_a_restart_counts_an_attempt(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        propose(store, study, owner, 2)
        (before, other) = store.trials(study)
        store.restart(study, owner, 1)
        store.restart(study, owner, 1)

        assert store.trials(study) == [replace(before, attempt=3), other]

    def test_a_restart_counts_the_death_of_a_worker(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        (before,) = store.trials(study)
        store.restart(study, owner, 1, died=True)
        store.restart(study, owner, 1)
        store.restart(study, owner, 1, died=True)

        assert store.trials(study) == [replace(before, attempt=4, deaths=2)]

    def test_what_ran_waits_once_the_study_is_given_up(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        other = store.create_study(new_study("other"), owner)
        for number in range(3):
            propose(store, study, owner, number)
            propose(store, other, owner, number)
        store.finish(study, owner, 1, COMPLETE)
        store.release(study, owner, "interrupted")

        assert [t.state for t in store.trials(study)] == ["queued", "complete", "queued"]
        assert [t.state for t in store.trials(other)] == 3 * ["running"]

    @pytest.mark.parametrize("number", [1, 7])
    def test_only_a_running_trial_is_restarted(self, store: Store, number: int) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        store.finish(study, owner, 1, COMPLETE)
        kept = everything(store)
        with pytest.raises(ValueError, match=f"trial {number} of 's' is not running"):
            store.restart(study, owner, number)

        assert everything(store) == kept

    def test_seconds_add_up(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        for number, seconds in enumerate((0.5, 2.25, 0.0, 1e-3)):
            propose(store, study, owner, number)
            store.finish(study, owner, number, Outcome("failed", "why", seconds=seconds))

        assert store.study("s").seconds == pytest.approx(2.751)
        assert [t.seconds for t in store.trials(study)] == [0.5, 2.25, 0.0, 1e-3]

    def test_the_time_spent_may_differ_from_that_of_the_trials(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        for number, spent in enumerate((0.0, 1.25, 0.5)):
            propose(store, study, owner, number)
            store.finish(study, owner, number, COMPLETE, spent=spent)

        assert store.study("s").seconds == 1.75
        assert [t.seconds for t in store.trials(study)] == 3 * [COMPLETE.seconds]

    def test_an_artifact_must_be_there(self, store: Store, tmp_path: Path) -> None:
        if not store.is_shared:
            pytest.skip("files of a store in memory are not removed by others")
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        kept = everything(store)
        artifact = stored_artifact(store, tmp_path)
        outcome = replace(COMPLETE, artifact=artifact)
        assert store.remove_artifacts([artifact.sha256]) == [artifact.sha256]
        with pytest.raises(CorruptFiles, match=r"the files of artifact .* are not in .*artifacts"):
            store.finish(study, owner, 1, outcome)
        assert everything(store) == kept

        stored_artifact(store, tmp_path)
        store.finish(study, owner, 1, outcome)
        assert outcome_of(store.trials(study)[0]) == outcome
        assert store.remove_artifacts([artifact.sha256]) == []
        assert store.artifacts.exists(artifact.sha256)

    def test_a_measurement_must_be_finite(self, store: Store, tmp_path: Path) -> None:
        first, *others = COMPLETE.measurements
        bad = (math.nan, math.inf, -math.inf)
        wrong = [replace(first, value=x) for x in bad]
        wrong += [replace(first, low=x) for x in bad] + [replace(first, high=x) for x in bad]
        outcomes = [replace(COMPLETE, measurements=(*others, m)) for m in wrong]
        _fails_without_trace(store, tmp_path, 2, outcomes, ValueError, "must be finite")

    def test_the_last_death_is_counted_too(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        for number, died in ((1, True), (2, False)):
            propose(store, study, owner, number)
            store.restart(study, owner, number, died=True)
            store.finish(study, owner, number, Outcome("failed", "why"), died=died)

        assert [(t.attempt, t.deaths) for t in store.trials(study)] == [(2, 2), (2, 1)]

    def test_an_outcome_is_stored_whole_or_not_at_all(self, store: Store, tmp_path: Path) -> None:
        twice = (*COMPLETE.measurements, COMPLETE.measurements[0])
        outcome = replace(COMPLETE, measurements=twice)
        _fails_without_trace(store, tmp_path, 2, [outcome], IntegrityError, "(?i)unique")

    @pytest.mark.parametrize("number", [1, 7])
    def test_only_a_running_trial_is_finished(
        self, store: Store, tmp_path: Path, number: int
    ) -> None:
        message = f"trial {number} of 's' is not running"
        _fails_without_trace(store, tmp_path, number, [COMPLETE], ValueError, message)

    def test_what_is_measured_after_a_search_takes_the_place_of_what_was(
        self, store: Store
    ) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        for number in (1, 2):
            propose(store, study, owner, number)
            store.finish(study, owner, number, COMPLETE)
        time_ms, score, size = COMPLETE.measurements
        score, added = replace(score, low=0.1), Measurement("audit_accuracy", 0.2)
        store.audit(study, owner, 1, [added, score], b"records")
        store.audit(study, owner, 1, [replace(added, value=0.25)])

        first, second = store.trials(study)
        assert first.measurements == (time_ms, score, size, replace(added, value=0.25))
        assert outcome_of(second) == COMPLETE
        assert store.records(study, 1, "audit") == b"records"

    def test_only_a_complete_trial_is_measured_after_a_search(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        with pytest.raises(ValueError, match="trial 1 of 's' is not complete"):
            store.audit(study, owner, 1, [Measurement("audit_accuracy", 0.2)])
        store.finish(study, owner, 1, COMPLETE)
        with pytest.raises(ValueError, match="nan"):
            store.audit(study, owner, 1, [Measurement("audit_accuracy", math.nan)])
        assert outcome_of(store.trials(study)[0]) == COMPLETE


def _fails_without_trace(
    store: Store,
    folder: Path,
    number: int,
    outcomes: Iterable[Outcome],
    error: type[Exception],
    message: str,
) -> None:
    """Where trial 1 has ended and trial 2 runs, no outcome of trial `number` is stored."""
    owner = new_owner()
    study = store.create_study(new_study("s"), owner)
    propose(store, study, owner, 1)
    store.finish(study, owner, 1, Outcome("failed", "why", seconds=1.0))
    propose(store, study, owner, 2)
    kept = everything(store)
    artifact = stored_artifact(store, folder)
    for outcome in outcomes:
        with pytest.raises(error, match=message):
            store.finish(study, owner, number, replace(outcome, artifact=artifact))
        assert everything(store) == kept
    store.create_study(new_study("other"), dead_owner())
    assert store.remove("other") == [], "a row of the artifact was left"
    complete = replace(COMPLETE, artifact=artifact)
    store.finish(study, owner, 2, complete)
    assert outcome_of(store.trials(study)[1]) == complete
    assert store.study("s").seconds == 1.0 + COMPLETE.seconds


def _typed(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values such that 1, 1.0 and True differ, in the order given."""
    return [(name, repr(value)) for name, value in values.items()]
