"""The part of the store contract that is about who may write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from .errors import StudyBusy, UnknownStudy
from .lease import new_owner
from .records import STUDY_STATES
from .store import Store
from .testing_samples import COMPLETE, dead_owner, everything, new_study, propose


class OwnerContract:
    """A study has one writer: its owner, until it gives the study up, dies or loses its lease."""

    def test_a_live_study_is_not_claimed_by_another(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        host, pid, _ = owner.split("/")
        since = f"{datetime.fromtimestamp(study.claimed_at, UTC):%Y-%m-%d %H:%M:%S}"
        message = f"'s' is being run by process {pid} on {host} since {since} UTC;"
        with pytest.raises(StudyBusy, match=re.escape(message)):
            store.claim(study, new_owner())

        assert store.study("s") == study
        store.renew(study, owner)

    def test_a_released_study_is_claimed_at_once(self, store: Store) -> None:
        first, second = new_owner(), new_owner()
        study = store.create_study(new_study("s"), first)
        store.release(study, first, "interrupted", "Ctrl-C")
        store.claim(study, second)
        claimed = store.study("s")

        assert (claimed.owner, claimed.state, claimed.cause) == (second, "running", "")
        assert study.claimed_at < claimed.claimed_at <= time.time() < claimed.lease_until
        with pytest.raises(StudyBusy):
            store.claim(study, first)

    def test_the_time_until_a_study_is_released_counts(self, store: Store) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        store.release(study, owner, "interrupted", spent=1.5)
        assert store.study("s").seconds == 1.5

    @pytest.mark.parametrize("state", [s for s in STUDY_STATES if s != "running"])
    def test_a_study_is_released_in_a_state_with_its_cause(self, store: Store, state: str) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        store.release(study, owner, state, "why")
        released = store.study("s")

        assert (released.state, released.cause, released.owner) == (state, "why", "")
        assert not store.is_live(released)

    def test_the_study_of_a_dead_process_is_claimed_at_once(self, store: Store) -> None:
        study = store.create_study(new_study("s"), dead_owner())
        assert study.lease_until > time.time()
        assert not store.is_live(study)
        owner = new_owner()
        store.claim(study, owner)

        assert store.study("s").owner == owner

    def test_a_lease_on_another_host_is_respected_until_it_expires(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, pid, token = dead_owner().split("/")  # gone here, but nobody knows about there
        elsewhere = f"another-host.example/{pid}/{token}"
        study = store.create_study(new_study("s"), elsewhere)
        assert store.is_live(study)
        with pytest.raises(StudyBusy, match=rf"process {pid} on another-host\.example"):
            store.claim(study, new_owner())
        with monkeypatch.context() as patch:
            patch.setattr("storage.lease.LEASE_S", -1.0)
            store.renew(study, elsewhere)
        assert not store.is_live(store.study("s"))
        owner = new_owner()
        store.claim(study, owner)

        assert store.study("s").owner == owner
        assert store.is_live(store.study("s"))

    @pytest.mark.parametrize("place", ["another-place.", ""])
    def test_hosts_of_one_name_are_told_apart(self, store: Store, place: str) -> None:
        """Two containers may have one name, and their processes the same numbers; a token of an
        earlier schema does not tell."""
        host, pid, token = dead_owner().split("/")
        elsewhere = f"{host}/{pid}/{place}{token.split('.')[1]}"
        study = store.create_study(new_study("s"), elsewhere)

        assert store.is_live(study)
        with pytest.raises(StudyBusy, match=f"process {pid} on {re.escape(host)} since"):
            store.claim(study, new_owner())
        store.renew(study, elsewhere)

    def test_a_zombie_does_not_hold_a_study(self, store: Store) -> None:
        """It has ended, but its parent has not asked how."""
        host, _, token = new_owner().split("/")
        zombie = subprocess.Popen([sys.executable, "-S", "-c", ""])
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        study = store.create_study(new_study("s"), f"{host}/{zombie.pid}/{token}")

        assert not store.is_live(study)
        store.claim(study, new_owner())
        zombie.wait()

    @pytest.mark.parametrize("again", [False, True])
    def test_a_study_that_was_removed_is_not_claimed(self, store: Store, again: bool) -> None:
        study = store.create_study(new_study("s"), dead_owner())
        store.remove("s")
        if again:  # its row's number may be given to another study
            store.create_study(new_study("other"), dead_owner())
        kept = everything(store)
        with pytest.raises(UnknownStudy, match="study 's' was removed"):
            store.claim(study, new_owner())
        assert everything(store) == kept

    @pytest.mark.parametrize("again", [False, True])
    def test_nothing_is_asked_of_a_study_that_was_removed(self, store: Store, again: bool) -> None:
        study = store.create_study(new_study("s"), dead_owner())
        store.remove("s")
        if again:
            store.create_study(new_study("other"), dead_owner())
        kept = everything(store)
        with pytest.raises(UnknownStudy, match="study 's' was removed"):
            store.add_request(study, "stop")
        assert everything(store) == kept

    def test_renewing_prolongs_the_lease(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        monkeypatch.setattr("storage.lease.LEASE_S", 1000.0)
        store.renew(study, owner)

        assert 900 < store.study("s").lease_until - study.lease_until < 1000
        assert store.study("s").owner == owner

    def test_every_write_prolongs_the_lease(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        monkeypatch.setattr("storage.lease.LEASE_S", 1000.0)
        propose(store, study, owner, 1)

        assert store.study("s").lease_until > study.lease_until + 900

    @pytest.mark.parametrize("lost", ["taken over", "released", "removed"])
    def test_who_lost_a_study_writes_nothing(self, store: Store, lost: str) -> None:
        owner = dead_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 1)
        store.add_request(study, "stop")
        (request,) = store.requests(study)
        if lost == "taken over":
            store.claim(study, new_owner())
        elif lost == "released":
            store.release(study, owner, "interrupted")
        else:
            store.remove("s")
        kept = everything(store)
        writes: list[Callable[[], None]] = [
            lambda: store.propose(study, owner, 2, {}, "key", study_memo={"a": 1}),
            lambda: store.restart(study, owner, 1),
            lambda: store.finish(study, owner, 1, COMPLETE),
            lambda: store.set_budget(study, owner, 99, None),
            lambda: store.release(study, owner, "finished"),
            lambda: store.renew(study, owner),
            lambda: store.add_session(study, owner, 2, {}),
            lambda: store.update_session(study, owner, {}),
            lambda: store.handle_request(study, owner, request),
            lambda: store.extend(study, owner, request, 99, None, 2),
            lambda: store.enqueue(study, owner, request, [(2, {}, "key", "enqueued")]),
        ]
        for write in writes:
            with pytest.raises(StudyBusy, match="study 's' was taken over or removed"):
                write()
            assert everything(store) == kept

    def test_a_resumed_study_goes_on_where_it_was(self, store: Store) -> None:
        first, second = dead_owner(), new_owner()
        study = store.create_study(new_study("s"), first)
        for number in (0, 1):
            propose(store, study, first, number)
        store.finish(study, first, 0, COMPLETE)
        store.claim(study, second)
        store.restart(study, second, 1)
        store.finish(study, second, 1, COMPLETE)
        propose(store, study, second, 2)

        assert [(t.state, t.attempt) for t in store.trials(study)] == [
            ("complete", 1),
            ("complete", 2),
            ("running", 1),
        ]
        assert store.study("s").seconds == 2 * COMPLETE.seconds
