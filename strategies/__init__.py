"""Which candidate next? Search strategies and the space they search."""

from __future__ import annotations

# Name in a config -> "module:Class", imported only when a study uses it.
BUILTIN = {
    "random": "strategies.random_search:RandomSearch",
    "greedy": "strategies.greedy:GreedySearch",
    "genetic": "strategies.genetic:GeneticSearch",
    "optuna": "strategies.optuna_samplers:OptunaSearch",
    "tpe": "strategies.optuna_samplers:TpeSearch",
    "gp": "strategies.optuna_samplers:GpSearch",
}
