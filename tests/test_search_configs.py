"""The examples in configs/: one for each strategy, all of the same search."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY

import strategies
from search.config import load_config, parse_config
from search.prepare import prepare

EXAMPLES = sorted((REPOSITORY / "configs").glob("digits_*.yaml"))
DEMO = load_config(REPOSITORY / "configs" / "digits.yaml")
OWN = {"study", "strategy", "budget", "enqueue"}


def test_every_strategy_has_an_example_under_its_name():
    assert [path.stem for path in EXAMPLES] == sorted(f"digits_{s}" for s in strategies.BUILTIN)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_the_demo_with_another_strategy(path):
    config, problems = parse_config(load_config(path))
    assert problems == []
    assert config.study == path.stem
    assert config.strategy.name == path.stem.removeprefix("digits_")
    content = load_config(path)
    assert {k: v for k, v in content.items() if k not in OWN} == {
        k: v for k, v in DEMO.items() if k not in OWN
    }
    first = path.read_text().splitlines()[0]
    assert first.startswith("# "), "says when to choose the strategy"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_searched(path, workspace):
    """With the toy task, which needs no training; everything else is the example's."""
    config, problems = parse_config({**load_config(path), "task": "toy_task.py:Toy", "threads": 1})
    prepared = prepare(config, workspace.folder, problems, str(path))
    assert prepared.space.size == 108
    assert len(prepared.config.enqueue) == len(config.enqueue)
