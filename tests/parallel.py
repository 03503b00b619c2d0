"""Studies with workers in one process: jobs end in any order, strategies and users do as told."""

from __future__ import annotations

import random

from search.dispatch import Dispatcher
from search.executor import Serial
from search.observer import Observer
from strategies.base import Exhausted, Proposal


class Shuffled(Serial):
    """Several jobs at a time, of which any may end first."""

    def __init__(self, bench, slots, seed):
        super().__init__(bench)
        self.slots = slots
        self.most = 0
        self._random = random.Random(seed)

    def submit(self, job):
        super().submit(job)
        self.most = max(self.most, len(self._jobs))
        assert self.most <= self.slots

    def wait(self, timeout_s):
        self._jobs.rotate(self._random.randrange(len(self._jobs) + 1))
        return super().wait(timeout_s)


def shuffled(store, bench, *, slots=3, seed=0, **options):
    """A dispatcher of so many workers, which end in an order drawn by the seed."""
    bench.artifacts = store.artifacts
    names = {"score_name": "accuracy", "higher_is_better": True}
    executor = Shuffled(bench, slots, seed)
    return Dispatcher(executor, Serial(bench), store.artifacts, **names, **options)


class Listed:
    """Proposes what it is told to; waits for all others before the trials named."""

    def __init__(self, *levels, barriers=()):
        self.levels = levels
        self.barriers = barriers
        self.pending_at = {}

    def propose(self, view, number, rng):
        if number in self.barriers and view.pending:
            return None
        self.pending_at.setdefault(number, [t.number for t in view.pending])
        if number > len(self.levels):
            raise Exhausted
        return Proposal({"prune.level": self.levels[number - 1], "quantize.scheme": "none"})


class Asks(Observer):
    """Asks something of the controller when a trial ends."""

    def __init__(self, store, number, kind, *, study="s", **payload):
        self.store = store
        self.study = study
        self.number = number
        self.request = kind, payload

    def ended(self, trial):
        if trial.number == self.number:
            kind, payload = self.request
            self.store.add_request(self.store.study(self.study), kind, payload)
