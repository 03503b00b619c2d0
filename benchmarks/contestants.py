"""What runs in a race: a strategy by its name in a config, a plug-in, or a peer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import strategies
from search.errors import NasliteError
from search.registry import load, unknown_name
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

    def problems(self, problem: Problem) -> list[str]:
        """Why it cannot search this problem; empty if it can.

        Raises:
            NasliteError: The name or an option is wrong.
        """
        if self.is_peer:
            self.player(problem, budget=2, seed=0)
            return []
        limits = len(problem.goals.constraints)
        declared = capabilities(self._strategy())
        return declared.problems(problem.space, len(problem.objectives), limits)

    def player(self, problem: Problem, *, budget: int, seed: int, lag: int = 1) -> Player:
        """Raises:
        NasliteError: The name or an option is wrong, or a peer is asked to lag.
        """
        if not self.is_peer:
            strategy = self._strategy()
            return OurPlayer(problem, strategy, self.name, budget=budget, seed=seed, lag=lag)
        if lag > 1:
            raise NasliteError(f"{self.label}: peers are asked one at a time; leave --lag at 1")
        name = self.name.removeprefix(PEER)
        if name not in PEERS:
            raise NasliteError(unknown_name("peer", name, PEERS))
        player: Player = _made(PEERS[name], self.label, self.options, problem, seed)
        return player

    def _strategy(self) -> Strategy:
        found = load("strategy", "strategies", self.name, strategies.BUILTIN, Path.cwd())
        strategy: Strategy = _made(found, self.label, self.options)
        return strategy


def _made(factory: Any, label: str, options: Mapping[str, Any], *arguments: Any) -> Any:
    known = [*inspect.signature(factory).parameters][len(arguments) :]
    for name in options:
        if name not in known:
            raise NasliteError(f"{label}: {unknown_name('option', name, known)}")
    try:
        return factory(*arguments, **options)
    except (TypeError, ValueError) as error:
        raise NasliteError(f"{label}: {error}") from None
