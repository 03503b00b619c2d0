"""What a study's timings were made on: the machine, and the control of each timing process."""

from __future__ import annotations

from dataclasses import asdict

from storage import Store, Study

from .dispatch import Dispatcher
from .environment import cpu_facts, library_versions


def store_session(
    store: Store, study: Study, owner: str, dispatcher: Dispatcher, number: int
) -> None:
    """Store the controls that the dispatcher has seen since, if there are any: a timing process
    runs one at its beginning.

    Args:
        number: The next trial's.
    """
    controls, dispatcher.controls = dispatcher.controls, []
    if controls:
        facts = {**cpu_facts(), "versions": library_versions()}
        store.add_session(
            study, owner, number, {**facts, "controls": [asdict(c) for c in controls]}
        )
