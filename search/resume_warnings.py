"""Warnings of what is different when a study is resumed."""

from __future__ import annotations

import logging

from storage import Study

from .config import StudyConfig
from .environment import cpu_facts, library_versions

log = logging.getLogger("naslite.search")


def warn_of_changes(study: Study) -> None:
    """Say what differs from when the study was created: its figures will not compare."""
    now = {"versions": library_versions(), **cpu_facts()}
    for name in ("cpu", "isa", "versions"):
        if study.facts.get(name) != now[name]:
            log.warning(
                "study %r was created with %s %s, this is %s: timings and cached stages of the"
                " two do not compare",
                *(study.name, name, study.facts.get(name), now[name]),
            )


def warn_of_idle_workers(config: StudyConfig) -> None:
    """Say that more workers were asked for than the study's lag lets work."""
    if isinstance(config.lag, int) and config.lag < config.workers:
        log.warning(
            "study %r has lag: %d, so of %d workers at most %d will have work; start a new study"
            " with `workers: %d` to use them all",
            *(config.study, config.lag, config.workers, config.lag, config.workers),
        )
