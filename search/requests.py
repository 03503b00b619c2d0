"""What is asked of a controller through the store: stop, extend, enqueue, continue."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from storage import Request, Store, Study, Trial
from storage.records import Extension
from strategies.space import Space, candidate_key

from .enqueue import resolve
from .errors import Problem

log = logging.getLogger("naslite.search")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, already stored as handled.

    Args:
        stop: "" (go on), "soon" (after the running trials) or "now".
        extensions: New budgets, the last one counts.
        enqueued: New trials, queued, numbered on from the last one.
    """

    stop: str = ""
    extensions: tuple[Extension, ...] = ()
    enqueued: tuple[Trial, ...] = ()


class Requests:
    """Reads and handles the requests to one study.

    Args:
        every_s: How often the store is asked; 0 = each time.
    """

    def __init__(
        self, store: Store, study: Study, owner: str, space: Space, every_s: float
    ) -> None:
        self._store = store
        self._study = study
        self._owner = owner
        self._space = space
        self._every_s = every_s
        self._next = 0.0

    def handle(
        self,
        number: int,
        trials: int,
        minutes: float | None,
        *,
        first: int = 1,
        at_once: bool = False,
    ) -> Asked:
        """Handle what was asked since, if it is time to look, or at once.

        Args:
            number: Of the next trial.
            trials: The budget as it is now; likewise `minutes`.
            first: The number of the strategy's first trial: what is enqueued comes after the
                baseline and the candidates of the config, and waits for them.
        """
        now = time.monotonic()
        if now < self._next and not at_once:
            return Asked()
        self._next = now + self._every_s
        asked = Asked()
        for request in self._store.requests(self._study):
            if request.kind == "stop":
                self._store.handle_request(self._study, self._owner, request, number)
                soon = "now" if request.payload.get("now") or asked.stop == "now" else "soon"
                asked = replace(asked, stop=soon)
            elif request.kind == "extend":
                trials = request.payload.get("trials") or trials
                minutes = request.payload.get("minutes") or minutes
                self._store.extend(self._study, self._owner, request, trials, minutes, number)
                extension = Extension(number, trials, minutes)
                asked = replace(asked, extensions=(*asked.extensions, extension))
            elif number >= first:
                added = self._enqueue(request, number)
                number += len(added)
                asked = replace(asked, enqueued=(*asked.enqueued, *added))
        # What was enqueued may not fit into the budget: raise it, now or after a crash in between.
        if number - 1 > trials:
            self._store.set_budget(self._study, self._owner, number - 1, minutes, number)
            extension = Extension(number, number - 1, minutes)
            asked = replace(asked, extensions=(*asked.extensions, extension))
        return asked

    def _enqueue(self, request: Request, number: int) -> list[Trial]:
        given = request.payload.get("candidates")
        if request.kind == "continue":  # made by us; their epochs may lie outside the space
            candidates = given if isinstance(given, list) else []
        else:
            candidates = self._checked(given)
        # A longer training that is a candidate of the space is one like any other.
        origins = ["enqueued" if self._space.contains(c) else "continued" for c in candidates]
        rows = [
            (number + i, candidate, candidate_key(candidate), origin)
            for i, (candidate, origin) in enumerate(zip(candidates, origins, strict=True))
        ]
        self._store.enqueue(self._study, self._owner, request, rows)
        return [
            Trial(n, "queued", candidate, origin=origin, attempt=0, created_at=time.time())
            for n, candidate, _, origin in rows
        ]

    def _checked(self, given: object) -> list[dict[str, Any]]:
        """The candidates of the space among those that somebody gave."""
        problems: list[Problem] = []
        if not isinstance(given, list):
            problems.append(Problem("candidates", f"must be a list, got {given!r}"))
            given = []
        candidates = resolve(given, self._space, problems)
        for problem in problems:
            log.warning("a candidate that was enqueued is left out: %s", problem)
        return list(candidates)
