"""Keeping the lease of a study while nothing else is written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from storage import Store, Study, StudyBusy

from .errors import one_line

EVERY_S = 15.0

log = logging.getLogger("naslite.search")


@contextmanager
def heartbeat(store: Store, study: Study, owner: str) -> Iterator[None]:
    """Renew the lease in the background while the block runs."""
    if not store.is_shared:  # in memory: nobody else, and one connection only
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(EVERY_S):
            try:
                store.renew(study, owner)
            except StudyBusy:
                return  # the controller's next write tells
            except Exception as error:
                log.warning("cannot renew the lease of %s: %s", study.name, one_line(error))

    thread = threading.Thread(target=beat, name="naslite-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
