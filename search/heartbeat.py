"""Keeping the lease of a study while nothing else is written."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from storage import Store, Study, StudyBusy
from storage.lease import renewal_s
from storage.retrying import HURRIED_S

from .errors import one_line

log = logging.getLogger("naslite.search")


@contextmanager
def heartbeat(store: Store, study: Study, owner: str) -> Iterator[None]:
    """Renew the lease in the background while the block runs."""
    if not store.is_shared:  # in memory: nobody else, and one connection only
        yield
        return
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(renewal_s()):
            try:
                store.renew(study, owner, is_hurried=ended.is_set)
            except StudyBusy:
                return  # the controller's next write tells
            except Exception as error:
                if not ended.is_set():
                    log.warning("cannot renew the lease of %s: %s", study.name, one_line(error))

    thread = threading.Thread(target=beat, name="naslite-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        # A renewal that still waits for the database is fenced off once the study is released.
        thread.join(HURRIED_S)
