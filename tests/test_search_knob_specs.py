"""What a config says of knobs: patterns for those of layers, and knobs that no candidate has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from search.config import parse_config
from search.errors import Problem
from search.knob_specs import resolved_space
from search.stages import Step
from strategies.space import Choice, Condition, Float, Int, Knob, Space

LAYERS = ("conv1", "block.0.conv", "block.1.conv", "linear")


class PerLayer:
    """A compressor whose knobs of layers mean something where the granularity is `layer`."""

    def knobs(self, model: Any, task: Any) -> list[Knob]:
        layer = Condition("granularity", "==", "layer")
        return [
            Choice(name="granularity", values=("model", "layer"), neutral="model"),
            Int(name="steps", low=0, high=5000, neutral=0, default=0),
            Float(
                name="rate",
                low=0.0,
                high=1.0,
                neutral=0.0,
                default=0.5,
                active_when=Condition("steps", ">", 4000),
            ),
            *(
                Choice(
                    name=f"precision@{name}",
                    values=("fp32", "int8"),
                    neutral="fp32",
                    active_when=layer,
                )
                for name in LAYERS
            ),
        ]


class Loaded:
    """Stands for a task: the compressor above looks at neither model nor task."""

    model = task = None


def resolved(specs: Mapping[str, Any], loaded: Any = Loaded) -> tuple[Space | None, list[Problem]]:
    raw = {"study": "s", "task": "t.py:T", "pipeline": [{"per_layer": dict(specs)}]}
    config, problems = parse_config(raw)
    assert config is not None, problems
    step: Any = Step("per_layer", PerLayer())
    return resolved_space(config, [step], loaded, problems), problems


def names(space: Space | None) -> set[str]:
    assert space is not None
    return {knob.name.removeprefix("per_layer.") for knob in space}


def test_knobs_that_no_candidate_has_are_left_out() -> None:
    space, problems = resolved({"granularity": "model"})
    assert problems == []
    assert names(space) == {"granularity", "steps"}


def test_knobs_of_layers_stay_where_one_value_of_their_parent_opens_them() -> None:
    space, _ = resolved({"granularity": ["model", "layer"]})
    assert names(space) >= {f"precision@{name}" for name in LAYERS}


@pytest.mark.parametrize(
    ("spec", "is_kept"),
    [
        ({"low": 0, "high": 5000}, True),
        ({"low": 0, "high": 4000}, False),
        (4001, True),
        ([0, 4000], False),
    ],
)
def test_a_wide_parent_is_judged_by_its_ends(spec: Any, is_kept: bool) -> None:
    space, _ = resolved({"granularity": "model", "steps": spec})
    assert ("rate" in names(space)) is is_kept


def test_a_pattern_is_about_all_layers_that_it_matches() -> None:
    specs = {"granularity": "layer", "precision@block.*": "int8", "precision@linear": "fp32"}
    space, problems = resolved(specs)
    assert problems == []
    assert space is not None
    assert space["per_layer.precision@block.0.conv"].size == 1
    assert space["per_layer.precision@block.1.conv"].at(0) == "int8"
    assert space["per_layer.precision@linear"].at(0) == "fp32"
    assert space["per_layer.precision@conv1"].size == 2


def test_the_last_pattern_wins_but_a_name_beats_patterns() -> None:
    specs = {
        "granularity": "layer",
        "precision@conv1": "fp32",
        "precision@*": "int8",
        "precision@block.*": "fp32",
    }
    space, problems = resolved(specs)
    assert problems == []
    assert space is not None
    found = {name: space[f"per_layer.precision@{name}"].at(0) for name in LAYERS}
    expected = {"conv1": "fp32", "block.0.conv": "fp32", "block.1.conv": "fp32"}
    assert found == {**expected, "linear": "int8"}


@pytest.mark.parametrize("name", ["precision@block9.*", "steps*", "precision*", "prcision@*"])
def test_a_pattern_without_a_layer_is_an_unknown_knob(name: str) -> None:
    space, problems = resolved({name: "int8"})
    assert space is None
    assert [problem.path for problem in problems] == [f"pipeline.0.per_layer.{name}"]


def test_a_wrong_value_of_a_pattern_is_said_once() -> None:
    space, problems = resolved({"granularity": "layer", "precision@*": "int4"})
    assert space is None
    assert [str(p.path) for p in problems] == ["pipeline.0.per_layer.precision@*"]
    assert "fp32" in problems[0].message
