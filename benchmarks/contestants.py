"""What runs in a race: a strategy by its name in a config, a plug-in, or a peer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.errors import NasliteError
from search.errors import Problem as ConfigProblem
from search.registry import unknown_name
from search.strategy import make_strategy
from strategies.base import Strategy, capabilities

from .peers import PEERS
from .problem import Problem
from .problem_file import parse_yaml
from .race import OurPlayer, Player

PEER = "peer:"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A strategy with its options, as a config's `strategy:` says it.

    Args:
        label: Of its row in a report; unique in a run.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @classmethod
    def parse(cls, text: str) -> Contestant:
        """`genetic`, `file.py:Class`, `peer:optuna-tpe`, or `{name: greedy, step: once}`.

        A key `label` names the row in the report.

        Raises:
            NasliteError: It is no YAML mapping with a `name`.
        """
        if not text.lstrip().startswith("{"):
            return cls(text, {}, text)
        content = dict(parse_yaml(text, f"--strategy {text}"))
        name = content.pop("name", None)
        if not isinstance(name, str):
            raise NasliteError(f"--strategy {text}: must have a name, got {name!r}")
        given = content.pop("label", None)
        shown = ", ".join(f"{key}={value}" for key, value in content.items())
        return cls(name, content, str(given or (f"{name} ({shown})" if shown else name)))

    @property
    def is_peer(self) -> bool:
        return self.name.startswith(PEER)

    def problems(self, problem: Problem, lag: int = 1) -> list[str]:
        """Why it cannot search this problem; empty if it can.

        Raises:
            NasliteError: The name or an option is wrong, or a peer is asked to lag.
        """
        if self.is_peer:
            self.player(problem, budget=2, seed=0, lag=lag)
            return []
        limits = len(problem.goals.constraints)
        declared = capabilities(self.strategy())
        return declared.problems(problem.space, len(problem.objectives), limits)

    def player(self, problem: Problem, *, budget: int, seed: int, lag: int = 1) -> Player:
        """Raises:
        NasliteError: The name or an option is wrong, or a peer is asked to lag.
        """
        if not self.is_peer:
            strategy = self.strategy()
            return OurPlayer(problem, strategy, self.name, budget=budget, seed=seed, lag=lag)
        if lag > 1:
            raise NasliteError(f"{self.label}: peers are asked one at a time; leave --lag at 1")
        name = self.name.removeprefix(PEER)
        if name not in PEERS:
            raise NasliteError(unknown_name("peer", name, PEERS))
        known = [*inspect.signature(PEERS[name]).parameters][2:]
        for option in self.options:
            if option not in known:
                raise NasliteError(f"{self.label}: {unknown_name('option', option, known)}")
        try:
            return PEERS[name](problem, seed, **self.options)
        except (TypeError, ValueError) as error:
            raise NasliteError(f"{self.label}: {error}") from None
        except ModuleNotFoundError as error:
            raise NasliteError(
                f"{self.label} needs {error.name}: pip install 'naslite[bench]'"
            ) from None

    def strategy(self) -> Strategy:
        """A new object of ours or of a plug-in, made as a study makes it.

        Raises:
            NasliteError: The name or an option is wrong.
        """
        problems: list[ConfigProblem] = []
        strategy = make_strategy(self.name, self.options, Path.cwd(), problems)
        if strategy is None:
            raise NasliteError(f"{self.label}: {problems[0]}")
        return strategy
