"""What a study's timings were made on: the machine, and the control of each timing process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from storage import Store, Study

from .dispatch import Dispatcher
from .environment import cpu_facts, library_versions


class StoredSession:
    """A time in which a controller runs a study, stored when it begins.

    Args:
        number: Of the next trial to be proposed.
    """

    def __init__(self, store: Store, study: Study, owner: str, number: int) -> None:
        self._store, self._study, self._owner = store, study, owner
        self._facts = {**cpu_facts(), "versions": library_versions()}
        self._controls: list[dict[str, Any]] = []
        store.add_session(study, owner, number, self._facts)

    def note(self, dispatcher: Dispatcher) -> None:
        """Store the controls that the dispatcher has seen since, if there are any: a timing
        process runs one at its beginning."""
        if dispatcher.controls:
            self._controls += map(asdict, dispatcher.controls)
            dispatcher.controls = []
            facts = {**self._facts, "controls": self._controls}
            self._store.update_session(self._study, self._owner, facts)
