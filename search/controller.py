"""The loop: propose, store, evaluate, store. The only writer of its study."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace

from storage import CorruptFiles, Outcome, Store, StoreError, Study, Trial
from strategies.base import Exhausted, Proposal, Strategy
from strategies.space import Space

from .answers import Answers
from .audit import Audit
from .dispatch import MEASURE, Dispatcher
from .errors import BaselineFailed, one_line
from .goals import Goals
from .heartbeat import heartbeat
from .interrupts import Interrupts
from .observer import Observer
from .proposals import ASYNC, Proposals
from .requests import Asked, Requests
from .retiming import Retiming
from .sessions import StoredSession
from .spending import Spending
from .stopping import trainings
from .trial_run import Baseline, TrialEnd, with_outcome
from .twins import Twins

GRACE_S = 10.0  # for running trials after Ctrl-C; batch systems kill about 30 s after SIGTERM
TICK_S = 0.2

log = logging.getLogger("naslite.search")


class Controller:
    """Runs one claimed study to its end.

    Args:
        owner: The token under which the study was created or claimed.
        dispatcher: Builds and measures; the caller closes it.
        interrupts: Tells whether Ctrl-C or SIGTERM came; the caller catches the signals.
        baseline: The outcome of trial 0, if it is known already.
        max_attempts: How often a trial is begun whose worker dies.
        poll_s: How often requests of others are looked for.
    """

    def __init__(
        self,
        store: Store,
        study: Study,
        owner: str,
        *,
        space: Space,
        strategy: Strategy,
        goals: Goals,
        dispatcher: Dispatcher,
        observer: Observer,
        interrupts: Interrupts,
        baseline: Outcome | None = None,
        max_attempts: int = 2,
        grace_s: float = GRACE_S,
        poll_s: float = 0.5,
    ) -> None:
        self.store = store
        self.study = study
        self.owner = owner
        self.observer = observer
        self.memo = dict(study.memo)
        self.trials = store.trials(study)
        self._first = baseline
        self._proposals = Proposals(
            study,
            space=space,
            strategy=strategy,
            goals=goals,
            extensions=store.extensions(study),
        )
        self._after = [p(store, study, owner, goals, dispatcher) for p in (Audit, Retiming)]
        self._is_hurried = self._has_more = False  # what was asked for after the search
        self._requests = Requests(store, study, owner, space, poll_s)
        self._dispatcher = dispatcher
        self._interrupts = interrupts
        self._max_attempts = max_attempts
        self._grace_s = grace_s
        self._spending = Spending(study)
        self._answers = Answers(self.trials, store.known(study))
        self._unfinished = {t.number for t in self.trials if t.finished_at is None}
        self._to_start = sorted(self._unfinished)
        self._left = set(self._unfinished)  # rows of an earlier controller
        self._twins = Twins()
        self._made_again: set[int] = set()
        self._reference: Baseline | None = None
        self._at_barrier = -1  # the trial before which the strategy wants all others to end
        self._exhausted: tuple[int, tuple[str, str]] | None = None  # and before which it ended
        self._gives_up = study.config.get("stop", {}).get("rule", "none") != "none"
        dispatcher.measured_before = self._answers.of_artifact
        dispatcher.epoch_ended = observer.epoch_ended

    def run(self) -> str:
        """Go on until the budget is spent, the space is used up or somebody asks to stop.

        Returns:
            The state in which the study was left: finished or stopped.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; the study is left as interrupted.
            BaselineFailed: The uncompressed model cannot be built or measured.
            StudyBusy: Another controller took the study over.
        """
        state, cause = "failed", ""
        try:
            hurried = self._interrupts.deferred(self.store.hurry)
            with hurried, heartbeat(self.store, self.study, self.owner):
                self.observer.started(self.study, self.trials)
                state, cause = self._searched()
            if state == "interrupted":
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            state, cause = "interrupted", "Ctrl-C or SIGTERM"
            raise
        except BrokenPipeError:  # `| head`: whoever watched is gone
            state, cause = "interrupted", "its output was closed"
            raise
        except BaseException as error:
            cause = one_line(error)
            raise
        finally:
            self._give_up(state, cause)
        return state

    def _searched(self) -> tuple[str, str]:
        """Search, then measure the front again, until nobody asks for more; returns as `_loop`."""
        session = StoredSession(self.store, self.study, self.owner, len(self.trials))
        while True:
            state, cause = self._loop(session)
            if state == "interrupted" or self._is_hurried:
                return state, cause
            with self._spending.standing():
                done = [p.run(self.trials, self.observer, self._ends_after) for p in self._after]
            self._answers.renew(self.trials)
            session.note(self._dispatcher)
            if not any(done):
                return state, cause
            if self._interrupts.pending:
                return "interrupted", ""
            if state == "stopped" or not self._ends_after(at_once=True) or self._is_hurried:
                return state, cause
            self._has_more = False

    def _ends_after(self, *, at_once: bool = False) -> bool:
        asked = self._asked(at_once=at_once)
        self._is_hurried |= asked.stop == "now"
        self._has_more |= bool(asked.extensions or asked.enqueued)
        return self._interrupts.pending or self._is_hurried or self._has_more

    def _loop(self, session: StoredSession) -> tuple[str, str]:
        """Returns the state in which the study ends, and why."""
        stopping: tuple[str, str] | None = None
        deadline = float("inf")
        while True:
            if self._interrupts.pending and deadline == float("inf"):
                stopping, deadline = ("interrupted", ""), time.monotonic() + self._grace_s
                self.observer.stopping(len(self._dispatcher.running), self._grace_s)
            asked = self._asked()
            if asked.stop and stopping is None:
                stopping = "stopped", "stopped on request"
                self.observer.stopping(len(self._dispatcher.running), None)
            if asked.stop == "now":
                deadline, self._is_hurried = 0.0, True
            if stopping is None:
                ending = self._advance()
                if ending is not None and not self._unfinished:
                    asked = self._asked(at_once=True)  # or it would wait for a `resume`
                    if not (asked.extensions or asked.enqueued):
                        return ending
                    if asked.stop:
                        return "stopped", "stopped on request"
            elif not self._dispatcher.running or time.monotonic() >= deadline:
                self._dispatcher.abandon()
                return stopping
            for end in self._dispatcher.wait(TICK_S):
                self._take(end)
            session.note(self._dispatcher)

    def _advance(self) -> tuple[str, str] | None:
        """Start what is stored, and propose more, while there is room.

        Returns:
            State and cause if nothing more will be proposed.
        """
        while self._dispatcher.has_room and not self._interrupts.pending:
            if self._to_start:
                if self._gives_up and not self._sees_all(self._to_start[0]):
                    return None
                self._start(self.trials[self._to_start.pop(0)])
                continue
            number = len(self.trials)
            if number and self.trials[0].state != "complete":
                if 0 in self._unfinished:
                    return None
                raise BaselineFailed(
                    f"the uncompressed model cannot be measured: {self.trials[0].cause}"
                )
            ending = self._spending.used_up(number)
            if ending is not None:
                return ending
            if not self._sees_all(number):
                return None
            if self._unfinished and self._at_barrier == number:
                return None
            if self._exhausted is not None and self._exhausted[0] == number:
                return self._exhausted[1]
            try:
                proposal = self._proposals.proposal(number, self.trials, self.memo)
            except Exhausted as error:
                ending = "finished", str(error) or "nothing is left to propose"
                if self._proposals.lag != ASYNC:  # there an outcome may bring more
                    self._exhausted = number, ending
                return ending
            if proposal is None:
                self._at_barrier = number
                return None
            self._start(self._stored(number, proposal))
            if number not in self._unfinished:  # it was known; others may have asked meanwhile
                return None
        return None

    def _asked(self, *, at_once: bool = False) -> Asked:
        """What others have asked since; what is to change in this study has changed then."""
        asked = self._requests.handle(
            len(self.trials), *self._spending.budget, first=self._proposals.first, at_once=at_once
        )
        for extension in asked.extensions:
            self._spending.budget = extension.trials, extension.minutes
            self._exhausted = None
            self._proposals.extensions.append(extension)
            self.observer.extended(extension.trials, extension.minutes)
        for trial in asked.enqueued:
            self.trials.append(trial)
            self._to_start.append(trial.number)
            self._left.add(trial.number)
            self._unfinished.add(trial.number)
        return asked

    def _stored(self, number: int, proposal: Proposal) -> Trial:
        """Commit candidate, trial memo and study memo before anything is evaluated."""
        candidate = dict(proposal.candidate)
        memo, now, origin = dict(proposal.memo), time.time(), self._proposals.origin(number)
        trial = Trial(number, "running", candidate, memo, origin, created_at=now)
        self.store.propose(
            *(self.study, self.owner, number, candidate, self._twins.key(trial)),
            memo=proposal.memo,
            study_memo={**self.memo, **proposal.study_memo} if proposal.study_memo else None,
            origin=origin,
        )
        self.memo.update(proposal.study_memo)
        self.trials.append(trial)
        self._unfinished.add(number)
        return trial

    def _start(self, trial: Trial) -> None:
        """Answer a trial from what is known, or have it built and measured."""
        if trial.number in self._left:
            self._left.remove(trial.number)
            trial = self._restarted(trial, died=False)
        self.observer.proposed(trial.number, dict(trial.candidate))
        known = self._answers.of_candidate(self._twins.key(trial))
        if trial.number == 0 and self._first is not None:
            known = self._first
        if known is not None:
            self._finish(trial, known)
            return
        if self._twins.begin(trial):
            self._dispatch(trial)

    def _dispatch(self, trial: Trial) -> None:
        peers = None
        if self._gives_up and trial.number:
            peers = trainings(self._proposals.seen(trial.number, self.trials))
        self._dispatcher.start(trial.number, trial.candidate, self._baseline(trial), peers)

    def _sees_all(self, number: int) -> bool:
        """Whether all have ended whose outcomes a trial sees."""
        return not self._unfinished or min(self._unfinished) >= self._proposals.visible(number)

    def _restarted(self, trial: Trial, *, died: bool) -> Trial:
        self.store.restart(self.study, self.owner, trial.number, died=died)
        again = replace(
            trial, state="running", attempt=trial.attempt + 1, deaths=trial.deaths + died
        )
        self.trials[trial.number] = again
        return again

    def _take(self, end: TrialEnd) -> None:
        trial = self.trials[end.number]
        if end.died and trial.deaths + 1 < self._max_attempts:
            trial = self._restarted(trial, died=True)
            self.observer.retried(trial, end.outcome.cause)
            self._dispatch(trial)
            return
        self._finish(trial, end.outcome, died=end.died)

    def _finish(self, trial: Trial, outcome: Outcome, *, died: bool = False) -> None:
        spent = self._spending.uncommitted()
        try:
            self.store.finish(
                self.study, self.owner, trial.number, outcome, spent=spent, died=died
            )
        except (CorruptFiles, OSError) as error:  # its files are gone, or cannot be looked at
            self._answers.forget(outcome)
            if trial.number in self._made_again:
                cause = f"{MEASURE}: {one_line(error)}"
                self._finish(
                    trial, Outcome("failed", cause, outcome.stages, seconds=outcome.seconds)
                )
                return
            log.warning("trial %d: %s; its files are made again", trial.number, error)
            self._made_again.add(trial.number)
            self._first = None
            if self._twins.begin(trial):
                self._dispatch(trial)
            return
        self._spending.commit(spent)
        ended = with_outcome(trial, outcome, died=died)
        self.trials[trial.number] = ended
        self._unfinished.discard(trial.number)
        self._answers.add(ended, self._twins.key(trial))
        self.observer.ended(ended)
        for other in self._twins.end(trial):
            self._start(other)

    def _baseline(self, trial: Trial) -> Baseline | None:
        if trial.number == 0:
            return None
        if self._reference is None:
            name, records = self.study.facts["score_name"], self.store.records(self.study, 0)
            self._reference = Baseline.of(self.trials[0], name, records)
        return self._reference

    def _give_up(self, state: str, cause: str) -> None:
        with self._interrupts.shielded():
            try:
                spent = self._spending.uncommitted()
                self.store.release(self.study, self.owner, state, cause, spent=spent)
            except StoreError as error:
                log.warning("%s", error)
            with contextlib.suppress(BrokenPipeError):
                self.observer.stopped(state, cause)
