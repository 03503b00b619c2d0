"""Greedy compression: one knob at a time, by what each step saves and what it costs."""

from __future__ import annotations

from itertools import chain

import numpy as np
from moocore import pareto_rank

from .base import Exhausted, Observation, Proposal, View
from .options import OptionChecks, flag, one_of, whole_number
from .paths import BestPath, Explored, OncePath, Path, Stop
from .random_search import unseen_candidate

STEPS = ("best", "once")


class GreedySearch:
    """From the uncompressed model towards more compression, the best trade first.

    `step: best` measures every one-knob move by one level from where it stands, takes the best
    trade, and repeats. `step: once` measures each level of each knob once, one knob at a time,
    then walks through the moves in the order of their losses without measuring them again. A
    trade is what the cost objectives fall by, relative to where the path stands, per loss of
    quality; what meets the constraints comes first. A path ends where nothing is left to compress,
    or at the wall of the constraints: it met them, and every further move (best), or the last
    state of the walk (once), breaks one.

    Sources: Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile
    Applications", ECCV 2018 (best); the greedy selection of compression ratios in Qualcomm's
    AIMET (once); restarts as in Pareto local search, Paquete et al. 2004.

    Args:
        step: once (few measurements) or best (many, each step of the path measured).
        restarts: At the end of its path, start again from a random point of the front, until the
            space is used up; false: the study ends.
        levels: The most steps into which the range of a numeric knob is divided, >= 1.

    Raises:
        ValueError: An option is out of its range.
    """

    def __init__(self, step: str = "once", restarts: bool = True, levels: int = 10) -> None:
        checked = OptionChecks()
        self.step = checked(one_of, "step", step, STEPS)
        self.restarts = checked(flag, "restarts", restarts)
        self.levels = checked(whole_number, "levels", levels, 1)
        checked.report()
        self._explored: Explored | None = None

    def propose(self, view: View, number: int, rng: np.random.Generator) -> Proposal | None:
        if self._explored is None or not self._explored.fits(view):
            self._explored = Explored(view, self.levels)
        kind = BestPath if self.step == "best" else OncePath
        path: Path = kind(view, self._explored)
        memo = path.last()
        if "start" in memo:
            start = path.trial(memo["start"])
        else:
            origin = view.space.origin()
            visible = path.seen(origin)
            if visible is None:
                return Proposal(origin)
            start = visible
        proposal = path.follow(start, memo)
        if proposal is Stop.WAIT:
            return None
        if isinstance(proposal, Proposal):
            return proposal
        if not self.restarts:
            raise Exhausted("the greedy path has ended; `restarts: true` would begin another one")
        return _restarted(path, rng)


def _restarted(path: Path, rng: np.random.Generator) -> Proposal:
    """The first trial of a path from a random point of the front, or else one near good points."""
    layers = _layers(path, rng)
    for point in layers[0] if layers else []:
        proposal = path.follow(point, {})
        if isinstance(proposal, Proposal):
            return proposal
    for point in chain.from_iterable(layers):
        beside = path.beside(point)
        if beside is not None:
            return beside
    return Proposal(unseen_candidate(path.view, rng))


def _layers(path: Path, rng: np.random.Generator) -> list[list[Observation]]:
    """The complete trials of the space by non-domination, the front first; shuffled in each.

    Feasible before infeasible, then by less violation. The baseline need not lie in the space.
    """
    complete = [
        trial
        for trial in path.view.done
        if trial.state == "complete" and (trial.number or path.explored.holds_baseline)
    ]
    ranks: dict[int, int] = {}
    feasible = [trial for trial in complete if trial.is_feasible]
    if feasible:
        ranked = pareto_rank(np.array([trial.values for trial in feasible]))
        ranks = {trial.number: int(r) for trial, r in zip(feasible, ranked, strict=True)}
    layers: dict[tuple[float, int], list[Observation]] = {}
    for i in rng.permutation(len(complete)):
        place = sum(complete[i].violations), ranks.get(complete[i].number, 0)
        layers.setdefault(place, []).append(complete[i])
    return [layers[place] for place in sorted(layers)]
