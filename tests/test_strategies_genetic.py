from __future__ import annotations
from strategies.base import Strategy
from strategies.genetic import GeneticSearch
from strategies.testing import StrategyContract


class TestGenetic(StrategyContract):
    def make(self) -> Strategy:
        return GeneticSearch()


class TestSmallGenetic(StrategyContract):
    def make(self) -> Strategy:
        return GeneticSearch(population=4, initial=3)
