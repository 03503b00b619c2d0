"""What a move towards more compression saves, what it costs, and which of some is the best."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Observation, View


def best_trade(
    view: View, start: Observation, trials: Sequence[Observation]
) -> Observation | None:
    """The trial to go on from; None if none is left, or all break constraints that `start` met.

    Feasible ones first. Then what saves without a loss (the best quality first), then the
    greatest saving per loss, then the least loss. On the way to feasibility the fall of the
    violation is what is saved.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if start.is_feasible:
        complete = [trial for trial in complete if trial.is_feasible]

    def rank(trial: Observation) -> tuple[float, ...]:
        gain, loss = gain_and_loss(view, start, trial)
        if not trial.is_feasible and start.state == "complete":
            gain = sum(start.violations) - sum(trial.violations)
        return (not trial.is_feasible, *_trade(gain, loss), trial.number)

    return min(complete, key=rank, default=None)


def gain_and_loss(view: View, start: Observation, trial: Observation) -> tuple[float, float]:
    """What the cost objectives fell by, as a share of their values, and the quality that was lost.

    Both are told from nothing if `start` has no outcome.
    """
    loss = quality_loss(view, trial)
    if start.state != "complete":
        return -sum(trial.values[i] for i in view.costs), loss
    gain = sum(
        (start.values[i] - trial.values[i]) / (abs(start.values[i]) or 1.0) for i in view.costs
    )
    return gain, loss - quality_loss(view, start)


def quality_loss(view: View, trial: Observation) -> float:
    """The drop of quality of a complete trial; lower is better."""
    return trial.metrics.get(view.drop, trial.values[0])


def _trade(gain: float, loss: float) -> tuple[float, float, float]:
    if gain >= 0 and loss <= 0 and (gain > 0 or loss < 0):
        return 0.0, loss, -gain
    if gain > 0:
        return 1.0, -gain / loss, loss
    return 2.0, loss, -gain
