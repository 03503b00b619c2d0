"""Making the strategy of a config, and refusing what cannot be searched."""

from __future__ import annotations

import pytest

from search import check
from search.config import load_config, parse_config
from search.errors import ConfigError
from search.prepare import prepare
from search.strategy import make_strategy
from strategies.random_search import RandomSearch

MODULE = """
from strategies.base import Capabilities
from strategies.random_search import RandomSearch


class Named(RandomSearch):
    def __init__(self, population=20, *, rate: float = 0.5):
        if population < 2:
            raise ValueError(f"population must be >= 2, got {population!r}")
        if not 0 <= rate <= 1:
            raise ValueError(f"`rate` must be in [0, 1], got {rate!r}")
        if population > 99:
            raise ValueError("no computer holds so many")
        self.population, self.rate = population, rate


class Anything(RandomSearch):
    def __init__(self, sampler="tpe", **options):
        if sampler not in ("tpe", "gp"):
            raise ValueError(f"unknown sampler {sampler!r}; known: tpe, gp")
        for name in options:
            if name != "sigma":
                raise ValueError(f"unknown option {name!r}; known: sampler, sigma")
        if options.get("sigma", 1) <= 0:
            raise ValueError(f"sigma must be > 0, got {options['sigma']!r}")
        self.sampler, self.options = sampler, options


class Single(RandomSearch):
    capabilities = Capabilities(max_objectives=1, constraints=False, unordered=False)


class Absent(RandomSearch):
    def __init__(self):
        raise ImportError("needs cmaes: pip install cmaes")


class Broken(RandomSearch):
    def __init__(self):
        raise KeyError("x")


class Mute:
    pass


class Unclear(RandomSearch):
    capabilities = {"max_objectives": 1}


constant = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def problems(folder, name: str, **options: object) -> list[str]:
    found = []
    strategy = make_strategy(name, options, folder, found)
    assert (strategy is None) == bool(found)
    return [str(problem) for problem in found]


def test_a_strategy_is_made_with_its_options(folder):
    found = []
    named = make_strategy("mine.py:Named", {"population": 4, "rate": 0.1}, folder, found)
    assert (named.population, named.rate) == (4, 0.1)
    anything = make_strategy("mine.py:Anything", {"sampler": "gp", "sigma": 2}, folder, found)
    assert (anything.sampler, anything.options) == ("gp", {"sigma": 2})
    assert isinstance(make_strategy("random", {}, folder, found), RandomSearch)
    assert found == []


def test_every_unknown_option_is_named_with_the_nearest(folder):
    assert problems(folder, "mine.py:Named", populaton=3, rat=1) == [
        "strategy.populaton: unknown option 'populaton'; did you mean 'population'?"
        " known: population, rate",
        "strategy.rat: unknown option 'rat'; did you mean 'rate'? known: population, rate",
    ]
    assert problems(folder, "random", seed=3) == [
        "strategy.seed: unknown option 'seed'; known: none"
    ]


def test_a_strategy_that_takes_any_option_checks_them_itself(folder):
    assert problems(folder, "mine.py:Anything", sigmo=3) == [
        "strategy.sigmo: unknown option 'sigmo'; known: sampler, sigma"
    ]
    assert problems(folder, "mine.py:Anything", sigma=0) == [
        "strategy.sigma: sigma must be > 0, got 0"
    ]
    assert problems(folder, "mine.py:Anything", sampler="tpf") == [
        "strategy.sampler: unknown sampler 'tpf'; known: tpe, gp"
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"population": 1}, "strategy.population: population must be >= 2, got 1"),
        ({"rate": 2}, "strategy.rate: `rate` must be in [0, 1], got 2"),
        ({"population": 100}, "strategy: no computer holds so many"),
        ({"population": "x"}, "strategy: '<' not supported between instances of 'str' and 'int'"),
    ],
)
def test_a_wrong_value_is_a_problem_at_the_option_it_begins_with(folder, options, problem):
    assert problems(folder, "mine.py:Named", **options) == [problem]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Absent", "strategy: needs cmaes: pip install cmaes"),
        (
            "Unclear",
            "strategy.name: mine.py:Unclear: `capabilities` must be a Capabilities,"
            " got {'max_objectives': 1}",
        ),
        ("Broken", "strategy: making 'mine.py:Broken' failed: KeyError: 'x'"),
        ("Mute", "strategy.name: mine.py:Mute must define propose()"),
        ("constant", "strategy.name: mine.py:constant must be a class, got 3"),
    ],
)
def test_what_is_no_strategy_is_a_problem(folder, name, problem):
    assert problems(folder, f"mine.py:{name}") == [problem]


def test_what_a_strategy_cannot_take_is_reported_with_all_other_problems(workspace):
    (workspace.folder / "mine.py").write_text(MODULE)
    with pytest.raises(ConfigError) as caught:
        check(
            workspace.config(
                strategy="mine.py:Single",
                constraints=["accuracy_drop <= 0.5", "size_bites <= 1"],
                enqueue=[{"distillation.epochs": 7}],
            )
        )
    assert [str(problem) for problem in caught.value.problems] == [
        "constraints.1: unknown metric 'size_bites'; did you mean 'size_bytes'? known: accuracy,"
        " accuracy_drop, latency_ms, latency_p90_ms, latency_ratio, load_ms, macs, parameters,"
        " peak_rss_bytes, size_bytes, size_zstd_bytes, throughput_per_s",
        "enqueue.0.distillation.epochs: the value must be one of 0, 1, got 7",
        "strategy: mine.py:Single takes at most 1 objective(s), got 2",
        "strategy: mine.py:Single takes no constraints, got 2",
        "strategy: mine.py:Single needs ordered knobs, got 'onnx_quantization.scheme';"
        " fix it to one value",
    ]


def test_what_a_strategy_can_take_is_no_problem(workspace):
    (workspace.folder / "mine.py").write_text(MODULE)
    path = workspace.config(
        strategy="mine.py:Single",
        objectives={"size_bytes": "minimize"},
        constraints=[],
        pipeline=[{"structured_pruning": {"ratio": [0.0, 0.5]}}],
    )
    config, found = parse_config(load_config(path))
    prepared = prepare(config, workspace.folder, found, str(path))
    assert type(prepared.strategy).__name__ == "Single"
