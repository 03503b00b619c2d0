"""The two ways in which a greedy path goes on, read off the visible trials and their memos."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from functools import cached_property
from typing import Any

import numpy as np

from .base import Observation, Proposal, View
from .rungs import Ladder, Move
from .space import Candidate, Value, candidate_key
from .trades import best_trade, gain_and_loss


class Stop(Enum):
    """Why a path gives no proposal."""

    WAIT = auto()  # the outcomes that decide are pending
    END = auto()  # nothing is left to compress


class Explored:
    """What is known of one study: its ladder, and from which trials nothing new comes any more.

    A cache: the latter holds in every view that shows the trials that proved it.
    """

    def __init__(self, view: View, levels: int) -> None:
        self.ladder = Ladder(view.space, levels)
        self.holds_baseline = view.space.contains(view.space.baseline())
        self._study = _study(view)
        self._rows: list[Observation] = []
        # By trial: the last of the trials that show it; and how many of its neighbours, in their
        # order, are visible, of how many, and the last of them.
        self._spent: dict[int, int] = {}
        self._beside: dict[int, tuple[int, int, int]] = {}

    def fits(self, view: View) -> bool:
        return all(a is b or a == b for a, b in zip(self._study, _study(view), strict=True))

    def look(self, view: View) -> None:
        """Forget what another history proved."""
        same = 0
        for known, row in zip(self._rows, view.done, strict=False):
            if known is not row:
                break
            same += 1
        if same < len(self._rows):
            self._spent = {n: last for n, last in self._spent.items() if last < same}
            self._beside = {n: seen for n, seen in self._beside.items() if seen[2] < same}
        self._rows[same:] = view.done[same:]

    def is_spent(self, start: Observation) -> bool:
        """Whether no path from here leads to a new trial."""
        return start.number in self._spent

    def spend(self, start: Observation, met: Sequence[Observation]) -> None:
        """No path from here leads to a new trial, as the trials `met` show."""
        if all(self._has_ended(trial) for trial in (start, *met)):
            self._spent[start.number] = max(trial.number for trial in (start, *met))

    def visible_beside(self, point: Observation) -> tuple[int, int]:
        """How many of its neighbours, from the first on, are visible, and of how many (or -1)."""
        count, total, _ = self._beside.get(point.number, (0, -1, 0))
        return count, total

    def see_beside(self, point: Observation, neighbour: Observation, total: int) -> bool:
        """Note that the next neighbour is visible; false if it may yet change."""
        if not (self._has_ended(point) and self._has_ended(neighbour)):
            return False
        count, _, last = self._beside.get(point.number, (0, total, point.number))
        self._beside[point.number] = count + 1, total, max(last, neighbour.number)
        return True

    def _has_ended(self, trial: Observation) -> bool:
        rows = self._rows  # where numbers are missing, less is remembered
        return trial.number < len(rows) and rows[trial.number] is trial


def _study(view: View) -> tuple[Any, ...]:
    return view.space, view.costs, view.drop, view.seed


class Path(ABC):
    """A path through the space. Where it stands is in the memo of its last trial.

    A memo is {"start": number of the trial it goes on from, and the position of the move}.
    """

    def __init__(self, view: View, explored: Explored) -> None:
        self.view = view
        self.space = view.space
        self.explored = explored
        self.explored.look(view)
        self.ladder = explored.ladder
        self._met: list[Observation] = []

    def follow(self, start: Observation, memo: Mapping[str, Any]) -> Proposal | Stop:
        """The next trial of the path from `start`; `memo` is that of its last trial, or empty."""
        if self.explored.is_spent(start):
            return Stop.END
        self._met.clear()
        found = self._follow(start, memo)
        if found is Stop.END and not memo:
            self.explored.spend(start, self._met)
        return found

    def beside(self, point: Observation) -> Proposal | None:
        """A neighbour of a trial, in any direction, that is not visible yet.

        Which comes first is drawn once for each point, so that what was looked at stays so.
        """
        known, total = self.explored.visible_beside(point)
        if known == total:
            return None
        here = self.space.complete(point.candidate)
        moves = self.space.moves(here)
        order = np.random.default_rng((self.view.seed, point.number)).permutation(len(moves))
        in_order = True
        for position in order[known:]:
            name, value = moves[position]
            candidate = self.space.complete({**here, name: value})
            trial = self.seen(candidate)
            if trial is None:
                return Proposal(candidate)
            in_order = in_order and self.explored.see_beside(point, trial, len(moves))
        return None

    @abstractmethod
    def _follow(self, start: Observation, memo: Mapping[str, Any]) -> Proposal | Stop: ...

    def last(self) -> Mapping[str, Any]:
        """The memo of the last trial that belongs to a path."""
        for trials in (self.view.pending, self.view.done):
            for trial in reversed(trials):
                if "start" in trial.memo:
                    return trial.memo
        return {}

    def seen(self, candidate: Candidate) -> Observation | None:
        """The visible trial of a candidate."""
        trial = self._by_key.get(candidate_key(candidate))
        if trial is not None:
            self._met.append(trial)
        return trial

    def trial(self, number: int) -> Observation:
        done = self.view.done
        if number < len(done) and done[number].number == number:
            return done[number]
        return next(t for t in (*done, *self.view.pending) if t.number == number)

    @cached_property
    def _by_key(self) -> dict[str, Observation]:
        """The first visible trial of each candidate."""
        visible = (*self.view.done, *self.view.pending)
        return {trial.key: trial for trial in reversed(visible)}

    @cached_property
    def _pending(self) -> set[int]:
        return {trial.number for trial in self.view.pending}

    def _outcomes(
        self, start: Observation, name: str, moves: Sequence[list[Move]]
    ) -> list[Observation] | None:
        """How the candidates after these moves ended; None while some are pending."""
        known = {
            trial.memo[name]: trial
            for trial in (*self.view.done, *self.view.pending)
            if trial.memo.get("start") == start.number and name in trial.memo
        }
        found = []
        for i, steps in enumerate(moves):
            trial = known.get(i) or self.seen(self._moved(start, steps))
            if trial is None or trial.number in self._pending:
                return None
            self._met.append(trial)
            found.append(trial)
        return found

    def _moved(self, start: Observation, steps: Sequence[Move]) -> dict[str, Value]:
        return self.space.complete({**start.candidate, **dict(steps)})

    def _next_unseen(
        self, start: Observation, name: str, moves: Sequence[list[Move]], first: int
    ) -> Proposal | None:
        for i in range(first, len(moves)):
            candidate = self._moved(start, moves[i])
            if self.seen(candidate) is None:
                return Proposal(candidate, {"start": start.number, name: i})
        return None


class BestPath(Path):
    """NetAdapt: measure every next move, take the best trade, repeat."""

    def _follow(self, start: Observation, memo: Mapping[str, Any]) -> Proposal | Stop:
        first, visited = memo.get("move", -1) + 1, set()
        while start.number not in visited:
            visited.add(start.number)
            moves = [[move] for move in self.ladder.next_moves(start.candidate)]
            proposal = self._next_unseen(start, "move", moves, first)
            if proposal is not None:
                return proposal
            ended = self._outcomes(start, "move", moves)
            if ended is None or start.number in self._pending:
                return Stop.WAIT
            better = best_trade(self.view, start, ended)
            if better is None:
                return Stop.END
            start, first = better, 0
        return Stop.END


class OncePath(Path):
    """AIMET: measure every move once, alone; then walk through them by their losses."""

    def _follow(self, start: Observation, memo: Mapping[str, Any]) -> Proposal | Stop:
        if "walk" not in memo:
            singles = self._singles(start)
            proposal = self._next_unseen(start, "single", singles, memo.get("single", -1) + 1)
            if proposal is not None:
                return proposal
            ended = self._outcomes(start, "single", singles)
            if ended is None or start.number in self._pending:
                return Stop.WAIT
            order, first = self._order(start, singles, ended), 0
            study_memo = {"walk": order}
        else:
            order, first = self.view.memo["walk"], memo["walk"] + 1
            study_memo = {}
        if self._hit_wall(start):
            return Stop.END
        return self._walk(start, order, first, study_memo)

    def _walk(
        self, start: Observation, order: list[Any], first: int, study_memo: Mapping[str, Any]
    ) -> Proposal | Stop:
        steps = [(name, value) for name, value in order[:first]]
        for i, (name, value) in enumerate(order[first:], first):
            steps.append((name, value))
            candidate = self._moved(start, steps)
            if self.seen(candidate) is None:
                return Proposal(candidate, {"start": start.number, "walk": i}, study_memo)
        return Stop.END

    def _singles(self, start: Observation) -> list[list[Move]]:
        """Each move alone; one of an inactive knob together with what switches it on."""
        found = []
        for move in self.ladder.single_moves(start.candidate):
            before = self.ladder.activation(start.candidate, move[0])
            if before is not None:
                found.append([*before, move])
        return found

    def _order(
        self, start: Observation, singles: list[list[Move]], ended: list[Observation]
    ) -> list[Any]:
        """The moves to walk through: the least loss first, each saving more than its knob did."""
        alone = {repr(steps): trial for steps, trial in zip(singles, ended, strict=True)}
        rated = []
        for steps, trial in zip(singles, ended, strict=True):
            before = alone.get(repr(steps[:-1]), start)
            if trial.state == before.state == "complete":
                gain, loss = gain_and_loss(self.view, before, trial)
                rated.append((sum(trial.violations), loss, -gain, trial.number, steps[-1]))
        saved: dict[str, float] = {}
        order = []
        for _, loss, gain, _, (name, value) in sorted(rated, key=lambda row: row[:4]):
            free = name not in saved and gain == 0 and loss < 0
            if -gain > saved.get(name, 0.0) or free:
                saved[name] = -gain
                order.append([name, value])
        return order

    def _hit_wall(self, start: Observation) -> bool:
        """Whether the walk from here left what meets the constraints, having met them."""
        walked = [
            trial
            for trial in self.view.done
            if trial.memo.get("start") == start.number
            and "walk" in trial.memo
            and trial.state == "complete"
        ]
        self._met += walked
        met = start.is_feasible or any(trial.is_feasible for trial in walked)
        return bool(walked) and met and not walked[-1].is_feasible
