"""Hypothesis strategies: any space, and any history that a search strategy may be shown."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np

from .base import Budget, Observation, View
from .space import Choice, Condition, Float, Int, Knob, Space, Value
from .testing_toys import METRICS

STATES = ("complete", "complete", "complete", "refused", "stopped", "failed")


@st.composite
def knobs(draw: st.DrawFn, name: str, parents: tuple[Knob, ...]) -> Knob:
    """One knob of any kind; where there are `parents`, it may depend on one of them."""
    shared: dict[str, Any] = {"name": name, "direction": draw(st.sampled_from((-1, 0, 1)))}
    depends = draw(st.booleans())
    if parents and depends:
        parent = draw(st.sampled_from(parents))
        shared["active_when"] = Condition(
            parent.name, "==", parent.from_unit(draw(st.floats(0, 1)))
        )
    kind = draw(st.sampled_from(("choice", "ordered", "int", "float", "continuous")))
    if kind in ("choice", "ordered"):
        values = ("a", "b", "c", "d")[: draw(st.integers(1, 4))]
        neutral = draw(st.sampled_from((*values, "none")))
        return Choice(values=values, neutral=neutral, ordered=kind == "ordered", **shared)
    if kind == "int":
        low, steps = draw(st.integers(-3, 3)), draw(st.integers(0, 30))
        outside = draw(st.sampled_from((low, low + steps, low - 1)))
        return Int(low=low, high=low + steps, neutral=outside, **shared)
    if kind == "float":
        return Float(
            low=0.0, high=0.5, step=0.1, neutral=draw(st.sampled_from((0.0, 0.5))), **shared
        )
    return Float(low=0.01, high=1.0, log=draw(st.booleans()), neutral=0.01, **shared)


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """One to five knobs, in a forest of conditions."""
    found: list[Knob] = []
    for i in range(draw(st.integers(1, 5))):
        parents = tuple(knob for knob in found if knob.size is not None)
        found.append(draw(knobs(f"knob{i}", parents)))
    return Space(found)


@st.composite
def views(draw: st.DrawFn) -> View:
    """A study at any moment: trials in any state, some pending, none proposed by the strategy.

    Some numbers are missing: of longer trainings, which a strategy is not shown.
    """
    space = draw(spaces())
    objectives = draw(st.integers(1, 3))
    constraints = draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.integers(0, 25))
    trials = [_observed(0, space.baseline(), "complete", objectives, constraints, rng)]
    hidden = draw(st.sets(st.integers(1, 25), max_size=3))
    for number in sorted({*range(1, count + 1)} - hidden):
        state = STATES[int(rng.integers(len(STATES)))]
        trials.append(_observed(number, space.sample(rng), state, objectives, constraints, rng))
    seen = len(trials) - draw(st.integers(0, min(4, len(trials) - 1)))
    return View(
        space=space,
        objectives=METRICS[:objectives],
        constraints=("size_bytes <= 1000", "latency_ratio <= 1")[:constraints],
        seed=draw(st.integers(0, 3)),
        budget=Budget(100),
        done=trials[:seen],
        pending=[Observation(t.number, t.candidate, "running") for t in trials[seen:]],
        drop=METRICS[0],
        costs=tuple(range(1, objectives)),
    )


def _observed(
    number: int,
    candidate: dict[str, Value],
    state: str,
    objectives: int,
    constraints: int,
    rng: np.random.Generator,
) -> Observation:
    """Rounded figures, so that some are equal; half of the constraints are broken."""
    if state != "complete":
        return Observation(number, candidate, state, seconds=1.0)
    values = tuple(float(v) for v in rng.random(3).round(1))
    return Observation(
        number,
        candidate,
        state,
        values=values[:objectives],
        violations=tuple(max(0.0, float(v)) for v in rng.normal(size=constraints).round(1)),
        metrics=dict(zip(METRICS, values, strict=True)),
        seconds=1.0,
    )
