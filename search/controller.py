"""The loop: propose, store, evaluate, store. The only writer of its study."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from storage import Measurement, Outcome, Store, StoreError, Study, Trial
from strategies.base import Exhausted, Proposal, Strategy
from strategies.space import Space, candidate_key

from .errors import BaselineFailed
from .evaluation import Baseline, Workbench, evaluate, one_line
from .goals import Goals
from .interrupts import Interrupts
from .observer import Observer
from .proposals import Proposals

HEARTBEAT_S = 15.0

log = logging.getLogger("naslite.search")


class Controller:
    """Runs one claimed study to its end.

    Args:
        owner: The token under which the study was created or claimed.
        interrupts: Tells whether Ctrl-C or SIGTERM came; the caller catches the signals.
        baseline: The outcome of trial 0, if it is known already.
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
        bench: Workbench,
        observer: Observer,
        interrupts: Interrupts,
        baseline: Outcome | None = None,
    ) -> None:
        self.store = store
        self.study = study
        self.owner = owner
        self.bench = bench
        self.observer = observer
        self.memo = dict(study.memo)
        self.seconds = study.seconds
        self.trials = store.trials(study)
        self._first = baseline
        self._proposals = Proposals(study, space=space, strategy=strategy, goals=goals)
        self._interrupts = interrupts
        self._by_candidate: dict[str, Trial] = {}
        self._by_artifact: dict[str, Trial] = {}
        for trial in self.trials:
            self._index(trial)

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
            with self._heartbeat():
                self.observer.started(self.study, self.trials)
                state, cause = self._loop()
        except KeyboardInterrupt:
            state, cause = "interrupted", "interrupted; the running trial will be redone"
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

    def _loop(self) -> tuple[str, str]:
        for trial in [t for t in self.trials if t.state in ("queued", "running")]:
            self.store.restart(self.study, self.owner, trial.number)
            self.trials[trial.number] = replace(trial, attempt=trial.attempt + 1)
            self._evaluate(self.trials[trial.number])
        while True:
            self._interrupts.check()
            if self.trials and self.trials[0].state != "complete":
                raise BaselineFailed(
                    f"the uncompressed model cannot be measured: {self.trials[0].cause}"
                )
            ending = self._ending()
            if ending is not None:
                return ending
            number = len(self.trials)
            try:
                proposal = self._proposals.proposal(number, self.trials, self.memo)
            except Exhausted as error:
                return "finished", str(error) or "nothing is left to propose"
            self._evaluate(self._stored(number, proposal))

    def _ending(self) -> tuple[str, str] | None:
        for request in self.store.requests(self.study):
            self.store.handle_request(self.study, self.owner, request)
            if request.kind == "stop":
                return "stopped", "stopped on request"
        if len(self.trials) - 1 >= self.study.trials:
            return "finished", f"all {self.study.trials} trials are done"
        minutes = self.study.minutes
        if minutes is not None and self.seconds >= 60 * minutes:
            return "finished", f"the {minutes:g} minutes are used up"
        return None

    def _stored(self, number: int, proposal: Proposal) -> Trial:
        """Commit candidate, trial memo and study memo before anything is evaluated."""
        candidate = dict(proposal.candidate)
        self.store.propose(
            self.study,
            self.owner,
            number,
            candidate,
            candidate_key(candidate),
            memo=proposal.memo,
            study_memo={**self.memo, **proposal.study_memo} if proposal.study_memo else None,
        )
        self.memo.update(proposal.study_memo)
        trial = Trial(number, "running", candidate, dict(proposal.memo), created_at=time.time())
        self.trials.append(trial)
        return trial

    def _evaluate(self, trial: Trial) -> None:
        self.observer.proposed(trial.number, dict(trial.candidate))
        outcome = self._first if trial.number == 0 else self._known_outcome(trial)
        if outcome is None:
            outcome = evaluate(
                self.bench, trial.candidate, self._baseline(trial), self._measured_before
            )
        self._interrupts.check()
        self.store.finish(self.study, self.owner, trial.number, outcome)
        self.seconds += outcome.seconds
        ended = replace(
            trial,
            state=outcome.state,
            cause=outcome.cause,
            stages=outcome.stages,
            artifact=outcome.artifact,
            measurements=outcome.measurements,
            seconds=outcome.seconds,
            reused_from=outcome.reused_from,
            finished_at=time.time(),
        )
        self.trials[trial.number] = ended
        self._index(ended)
        self.observer.ended(ended)

    def _known_outcome(self, trial: Trial) -> Outcome | None:
        """The outcome of an earlier trial with the same candidate: nothing is evaluated twice."""
        other = self._by_candidate.get(candidate_key(trial.candidate))
        if other is None:
            return None
        return Outcome(
            other.state,
            other.cause,
            tuple(replace(s, cached=True, seconds=0.0) for s in other.stages),
            other.artifact,
            other.measurements,
            reused_from=other.number,
        )

    def _measured_before(self, artifact: str) -> tuple[int, tuple[Measurement, ...]] | None:
        """The trial that gave the same bytes, and what was measured on them."""
        trial = self._by_artifact.get(artifact)
        return None if trial is None else (trial.number, trial.measurements)

    def _index(self, trial: Trial) -> None:
        """Remember an ended trial for those that mean or give the same."""
        if trial.state in ("complete", "refused"):
            self._by_candidate.setdefault(candidate_key(trial.candidate), trial)
        if trial.state == "complete" and trial.artifact:
            self._by_artifact.setdefault(trial.artifact.sha256, trial)

    def _baseline(self, trial: Trial) -> Baseline | None:
        if trial.number == 0:
            return None
        zero = self.trials[0]
        assert zero.artifact is not None
        return Baseline(zero.artifact, zero.metrics[self.study.facts["score_name"]])

    @contextmanager
    def _heartbeat(self) -> Iterator[None]:
        """Keep the lease while a trial runs longer than it lasts."""
        if not self.store.is_shared:  # in memory: nobody else, and one connection only
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_S):
                try:
                    self.store.renew(self.study, self.owner)
                except StoreError as error:
                    log.warning("%s", error)
                    return
                except Exception as error:  # a locked database: the next beat or write tells
                    log.warning("cannot renew the lease: %s", one_line(error))

        thread = threading.Thread(target=beat, name="naslite-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _give_up(self, state: str, cause: str) -> None:
        with self._interrupts.shielded():
            try:
                self.store.release(self.study, self.owner, state, cause)
            except StoreError as error:
                log.warning("%s", error)
            with contextlib.suppress(BrokenPipeError):
                self.observer.stopped(state, cause)
