"""Random search without repeats: the reference strategy and the smallest plug-in."""

from __future__ import annotations

import numpy as np

from .base import Capabilities, Exhausted, Proposal, View
from .space import Candidate, candidate_key, random_below

TRIES = 64


class RandomSearch:
    """Draws uniformly over the canonical candidates that are not visible yet.

    Source: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012.
    """

    capabilities = Capabilities(adaptive=False)

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal:
        return Proposal(unseen_candidate(view, rng))


def unseen_candidate(view: View, rng: np.random.Generator) -> Candidate:
    """One of the candidates that are not visible yet, drawn uniformly.

    Raises:
        Exhausted: All of them are visible.
    """
    seen = view.seen_keys()
    for _ in range(TRIES):
        candidate = view.space.sample(rng)
        if candidate_key(candidate) not in seen:
            return candidate
    return _unseen_by_rank(view, rng)


def _unseen_by_rank(view: View, rng: np.random.Generator) -> Candidate:
    """One of the few candidates left: no draw is wasted, but every visible trial is looked at."""
    space = view.space
    tried = [t.candidate for t in (*view.done, *view.pending) if space.contains(t.candidate)]
    # A continuum is never used up, so only candidates without one take their skeleton away.
    taken = sorted({space.index(c) for c in tried if all(space[k].size for k in c)})
    if len(taken) >= space.skeletons:
        raise Exhausted(f"all {space.skeletons} candidates of the space were tried")
    rank = random_below(space.skeletons - len(taken), rng)
    for index in taken:
        if index > rank:
            break
        rank += 1
    return space.fill(rank, rng)
