from __future__ import annotations

import pytest

from search.config import DEFAULT_STORE, StudyConfig, load_config, parse_config, store_url
from search.errors import ConfigError


def problems_of(**content: object) -> dict[str, str]:
    _, problems = parse_config({"task": "task.py:T", **content})
    return {problem.path: problem.message for problem in problems}


def test_only_the_task_is_required():
    config, problems = parse_config({"task": "task.py:T"})
    assert problems == []
    assert config is not None
    assert config.strategy.name == "greedy"
    assert config.runtime.batch_sizes == [1]
    assert [next(iter(entry)) for entry in config.pipeline] == [
        "structured_pruning",
        "distillation",
        "onnx_quantization",
    ]
    _, problems = parse_config({})
    assert [(p.path, p.message) for p in problems] == [("task", "this key is required")]


def test_all_problems_come_at_once_with_their_paths():
    found = problems_of(
        sed=1,
        seed="abc",
        objectives={"accuracy": "maximise"},
        constraints=["accuracy_drop <= 0.1", "size_bytes", "a < 1 and b < 2"],
        pipeline=[{"a": {}, "b": {}}, {"c": 3}],
        runtime={"threads": 0, "batchsize": 4},
        budget={"trials": 0, "minutes": -1},
        workers=0,
        lag=0,
        limits={"memory": "4 GBB", "timeout": 0},
    )
    assert set(found) == {
        "sed",
        "seed",
        "objectives.accuracy",
        "constraints.1",
        "constraints.2",
        "pipeline.0",
        "pipeline.1.c",
        "runtime.threads",
        "runtime.batchsize",
        "budget.trials",
        "budget.minutes",
        "workers",
        "lag",
        "limits.memory",
        "limits.timeout",
    }
    assert "did you mean 'seed'" in found["sed"]
    assert "did you mean 'batch_sizes'" in found["runtime.batchsize"]
    assert found["seed"].endswith("got 'abc'")
    assert "one compressor" in found["pipeline.0"]


def test_what_is_right_is_kept_beside_what_is_wrong():
    config, problems = parse_config(
        {"task": "t.py:T", "seed": "x", "runtime": {"name": "other", "threads": 0}}
    )
    assert len(problems) == 2
    assert config is not None
    assert config.runtime.name == "other"
    assert config.runtime.threads == 1


def test_types_are_not_guessed():
    assert "seed" in problems_of(seed="1")
    assert "seed" in problems_of(seed=1.5)
    assert "budget.trials" in problems_of(budget={"trials": True})
    assert problems_of(budget={"minutes": 30}) == {}


def test_a_strategy_is_a_name_or_a_name_with_options():
    short, _ = parse_config({"task": "t.py:T", "strategy": "random"})
    long, _ = parse_config({"task": "t.py:T", "strategy": {"name": "random", "population": 3}})
    assert short is not None
    assert short.strategy.name == "random"
    assert long is not None
    assert long.strategy.model_extra == {"population": 3}


def test_bare_compressor_names_mean_defaults():
    config, problems = parse_config({"task": "t.py:T", "pipeline": ["a", {"b": None}]})
    assert problems == []
    assert config is not None
    assert config.pipeline == [{"a": {}}, {"b": {}}]


def test_a_compressor_stands_in_the_pipeline_once():
    assert "once" in problems_of(pipeline=[{"a": {}}, {"a": {}}])["pipeline"]


def test_one_to_three_objectives():
    four = dict.fromkeys(["a", "b", "c", "d"], "minimize")
    assert "one to three" in problems_of(objectives=four)["objectives"]


@pytest.mark.parametrize("name", ["my study", "", "-x", "a/b", "ü", "x" * 101])
def test_a_study_name_can_be_typed_in_a_shell(name):
    found = problems_of(study=name)
    assert "study" in found


def test_a_file_without_a_study_is_named_after_itself(tmp_path):
    path = tmp_path / "my search.yaml"
    path.write_text("task: t.py:T\n")
    assert load_config(path)["study"] == "my-search"


def test_yaml_1_2_numbers_and_words(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("task: t.py:T\ntask_options: {lr: 1e-3, country: no}\n")
    assert load_config(path)["task_options"] == {"lr": 0.001, "country": "no"}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: [1, 2\n", "line 2"),
        ("task: a\ntask: b\n", "duplicate key"),
        ("- a\n- b\n", "must be keys and values, got list"),
        ("", "got nothing"),
    ],
)
def test_a_file_that_is_no_config_says_so(tmp_path, text, part):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=part):
        load_config(path)


def test_a_missing_file_and_a_binary_file_say_so(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "b.yaml")


def test_the_store_comes_from_the_option_then_the_config_then_the_environment(monkeypatch):
    config = StudyConfig(task="t.py:T", store="sqlite:///c.db")
    monkeypatch.setenv("NASLITE_STORE", "sqlite:///e.db")
    assert store_url("sqlite:///o.db", config) == "sqlite:///o.db"
    assert store_url(None, config) == "sqlite:///c.db"
    assert store_url(None) == "sqlite:///e.db"
    monkeypatch.delenv("NASLITE_STORE")
    assert store_url(None) == DEFAULT_STORE


@pytest.mark.parametrize("value", [None, 5, ["greedy"]])
def test_a_strategy_is_a_name_or_a_mapping(value):
    _, problems = parse_config({"task": "task.py:T", "strategy": value})
    assert [str(problem) for problem in problems] == [
        f"strategy: must be a name, or `name` and options, got {value!r}"
    ]
