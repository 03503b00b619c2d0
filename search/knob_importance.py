"""Which knobs decide a metric: functional ANOVA over the complete trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from strategies.space import Space

from .results import Row

if TYPE_CHECKING:
    from strategies.optuna_space import FlatParameters

FEWEST = 8  # complete trials below which nothing is said
MOST = 200  # candidates that are looked at: the cost grows faster than their number
TREES = 24
SCREENED = 24  # knobs that the analysis is made for
SHOWN = 12


@dataclass(frozen=True, slots=True)
class Importance:
    """The share of a metric's variance that each knob explains alone, the greatest first.

    Args:
        shares: At most SHOWN knobs; empty if `note` says why.
    """

    metric: str
    shares: Mapping[str, float]
    note: str = ""


def importance(
    space: Sequence[Mapping[str, Any]], rows: Sequence[Row], metrics: Sequence[str], seed: int
) -> list[Importance]:
    """The importance of the searched knobs for each metric.

    Functional ANOVA (Hutter, Hoos and Leyton-Brown, An Efficient Approach for Assessing
    Hyperparameter Importance, ICML 2014) in Optuna's form. An inactive knob counts as its neutral
    value, so what a parent switches on is the parent's. Of more than MOST trials a random sample
    is taken, and of more than SCREENED knobs those that a random forest uses most; `seed` decides
    both, and the trees.
    """
    # Without the baseline and continued trainings, which may lie outside the space.
    own = [row for row in rows if row.number and not row.trial.is_continued]
    complete = [row for row in own if row.trial.state == "complete"]
    searched = [k for k in space if k["kind"] != "choice" or len(k["values"]) > 1]
    if not searched:
        return [Importance(metric, {}, "no knob is searched") for metric in metrics]
    if len(complete) < FEWEST:
        note = f"{len(complete)} complete candidates; at least {FEWEST} are needed"
        return [Importance(metric, {}, note) for metric in metrics]
    if len(complete) > MOST:
        chosen = np.random.default_rng(seed).choice(len(complete), MOST, replace=False)
        complete = [complete[i] for i in sorted(chosen)]
    from strategies.optuna_space import FlatParameters

    parameters = FlatParameters(Space.from_json(space))
    return [_importance(parameters, complete, metric, seed) for metric in metrics]


def _importance(
    parameters: FlatParameters, rows: Sequence[Row], metric: str, seed: int
) -> Importance:
    values = np.array([row.metrics.get(metric, np.nan) for row in rows])
    if not np.isfinite(values).all():
        return Importance(metric, {}, "some trials have not got it")
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return Importance(metric, {}, "the same in every trial")
    numbers = [parameters.numbers(row.trial.candidate, {}) for row in rows]
    varied = [n for n in parameters.searched if len({found[n] for found in numbers}) > 1]
    if not varied:
        return Importance(metric, {}, "no knob took two values")
    if len(varied) > SCREENED:
        table = np.array([[found[n] for n in varied] for found in numbers], dtype=float)
        varied = _screened(varied, table, values, seed)
    shares = _fanova({n: parameters.searched[n] for n in varied}, numbers, values, seed)
    greatest = sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    return Importance(metric, {name: float(share) for name, share in greatest})


def _screened(names: list[str], table: np.ndarray, values: np.ndarray, seed: int) -> list[str]:
    """The SCREENED knobs that a random forest splits on to the greatest effect."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(TREES, random_state=seed, max_features=1 / 3)
    weight = forest.fit(table, values).feature_importances_
    return sorted(names[i] for i in np.argsort(-weight, kind="stable")[:SCREENED])


def _fanova(
    distributions: dict[str, Any],
    numbers: Sequence[Mapping[str, Any]],
    values: np.ndarray,
    seed: int,
) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator
    from optuna.trial import create_trial

    from strategies.optuna_quiet import quiet

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with quiet():
            study = optuna.create_study()
            study.add_trials(
                create_trial(
                    params={name: found[name] for name in distributions},
                    distributions=distributions,
                    value=float(value),
                )
                for found, value in zip(numbers, values, strict=True)
            )
            evaluator = FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
            # Shares of the whole variance: what they lack to 1 is what knobs do together.
            return evaluator.evaluate(study, params=list(distributions))
    finally:
        optuna.logging.set_verbosity(verbosity)
