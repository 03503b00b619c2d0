from __future__ import annotations
from strategies.base import Strategy
from strategies.greedy import GreedySearch
from strategies.testing import StrategyContract


class TestGreedyBest(StrategyContract):
    def make(self) -> Strategy:
        return GreedySearch()


class TestGreedyOnce(StrategyContract):
    def make(self) -> Strategy:
        return GreedySearch(step="once")
