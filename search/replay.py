"""Asking a strategy again for every stored proposal: are they functions of the stored rows?"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage import Store
from strategies.base import Exhausted
from strategies.space import Space

from .config import store_url
from .errors import ConfigError, NasliteError, Problem
from .goals import Goals
from .proposals import ASYNC, Proposals
from .strategy import make_strategy


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the strategy proposes otherwise than it is stored.

    Args:
        trial: Its number; None for the study memo after the last trial.
        what: candidate, memo or study memo.
        proposed: JSON, or the one line of an error that came instead.
    """

    trial: int | None
    what: str
    proposed: Any
    stored: Any

    def __str__(self) -> str:
        where = self.what if self.trial is None else f"trial {self.trial}: {self.what}"
        return f"{where} proposed {_text(self.proposed)}, stored {_text(self.stored)}"


@dataclass(frozen=True, slots=True)
class Replay:
    """What replaying a study showed.

    Args:
        proposals: How many trials the strategy was asked for: all but the baseline and those
            that were enqueued or continued.
        budget_changed: The study got another budget before such changes were recorded, so a
            strategy that looks at its budget may propose otherwise.
    """

    name: str
    proposals: int
    differences: tuple[Difference, ...]
    budget_changed: bool = False


def replay(name: str, *, store: str | None = None) -> Replay:
    """Ask the strategy of a stored study again for each of its proposals, and compare.

    Every proposal is made from the stored rows before it, as the controller made it, and from
    the study memo of the proposals replayed so far. Neither the task nor its data are needed.

    Raises:
        NoStore, UnknownStudy, ForeignDatabase
        ConfigError: The strategy cannot be made any more, such as one whose file is gone.
    """
    with closing(Store(store_url(store), create=False)) as opened:
        return _replayed(opened, name)


def _replayed(opened: Store, name: str) -> Replay:
    study = opened.study(name)
    trials = opened.trials(study)
    config = dict(study.config)
    options = dict(config["strategy"])
    problems: list[Problem] = []
    strategy = make_strategy(options.pop("name"), options, Path(config["folder"]), problems)
    if strategy is None:
        raise ConfigError(f"study {name}", problems)
    proposals = Proposals(
        study,
        space=Space.from_json(study.space),
        strategy=strategy,
        goals=Goals.of_config(config),
        extensions=opened.extensions(study),
    )
    if proposals.lag == ASYNC:
        raise NasliteError(
            f"study {name!r} ran with `lag: async`: what it proposed depended on which trials had"
            " ended, so it cannot be replayed; a whole number as `lag` makes a study repeatable"
        )
    memo: dict[str, Any] = {}
    found: list[Difference] = []
    replayed = [trial for trial in trials[proposals.first :] if trial.origin == "strategy"]
    for trial in replayed:
        candidate, trial_memo = dict(trial.candidate), dict(trial.memo)
        try:
            proposal = proposals.proposal(trial.number, trials[: trial.number], memo)
        except Exhausted as error:
            found.append(Difference(trial.number, "candidate", f"nothing ({error})", candidate))
            continue
        except Exception as error:  # a strategy that fails now did not fail then
            text = f"{type(error).__name__}: {error}"
            found.append(Difference(trial.number, "candidate", text, candidate))
            continue
        if proposal is None:
            found.append(Difference(trial.number, "candidate", "to wait", candidate))
            continue
        memo.update(proposal.study_memo)
        for what, proposed, stored in (
            ("candidate", proposal.candidate, candidate),
            ("memo", proposal.memo, trial_memo),
        ):
            if _text(proposed) != _text(stored):
                found.append(Difference(trial.number, what, proposed, stored))
    # A controller at work may have stored a proposal since the trials were read.
    if _text(memo) != _text(study.memo) and not opened.is_live(study):
        found.append(Difference(None, "study memo", memo, dict(study.memo)))
    budget = proposals.budget(len(trials))
    changed = (budget.trials, budget.minutes) != (study.trials, study.minutes)
    return Replay(name, len(replayed), tuple(found), changed)


def _text(value: Any) -> str:
    """Equal exactly for equal JSON: 1, 1.0 and true differ."""
    return value if isinstance(value, str) else json.dumps(dict(value), sort_keys=True)
