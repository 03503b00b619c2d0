"""A strategy of somebody else: the example of docs/plugins.md, tested as the page says."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, one_line

from search import open_study
from search.errors import NasliteError
from search.registry import known_names, load
from strategies import BUILTIN
from strategies.base import Observation
from strategies.random_search import RandomSearch
from strategies.space import Int, Space
from strategies.testing_toys import Toy, play

PAGE = (REPOSITORY / "docs" / "plugins.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


EXAMPLE, CONTRACT = blocks("python")


@pytest.fixture
def site(tmp_path_factory, monkeypatch):
    """A folder on the path, for distributions; what is imported from it is forgotten."""
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(folder) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def install(site: Path, name: str, entry_points: dict[str, str], **modules: str) -> None:
    """What `pip install` leaves behind: the modules, and their metadata."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{key} = {value}" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[naslite.strategies]", *lines, ""]))
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)


def install_the_example(site: Path) -> None:
    """As the page's pyproject.toml says."""
    (text,) = blocks("toml")
    project = tomllib.loads(text)
    (module,) = project["tool"]["setuptools"]["py-modules"]
    points = project["project"]["entry-points"]["naslite.strategies"]
    install(site, project["project"]["name"], points, **{module: EXAMPLE})


# The example


def test_the_example_passes_the_contract_as_the_page_runs_it(tmp_path):
    (tmp_path / "annealing.py").write_text(EXAMPLE)
    (tmp_path / "test_annealing.py").write_text(CONTRACT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 40
    assert "skipped" not in done.stdout


@dataclass(frozen=True)
class Valley(Toy):
    """One objective: the mean squared distance to a point that the seed chooses."""

    def observed(self, number, candidate, memo):
        target = np.random.default_rng(self.seed).random(len(self.space))
        value = float(((self.space.encode(candidate) - target) ** 2).mean())
        return Observation(number, candidate, "complete", values=(value,), memo=memo)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_example_searches(site, seed):
    (site / "annealing.py").write_text(EXAMPLE)
    found = load("strategy", "strategies", "annealing.py:Annealing", BUILTIN, site)
    knobs = [Int(name=f"k{i}", low=0, high=9, neutral=0, direction=1) for i in range(6)]
    toy = Valley(Space(knobs), trials=150, objectives=1, constrained=False, seed=seed)
    best = {}
    for strategy in (found(), RandomSearch()):
        numbered = enumerate(play(strategy, toy), start=1)
        rows = [toy.observed(n, step.proposal.candidate, {}) for n, step in numbered]
        best[type(strategy).__name__] = min(row.values[0] for row in rows)
    assert best["Annealing"] < best["RandomSearch"] / 3


@pytest.mark.slow
def test_the_example_from_a_file_runs_resumes_and_replays(naslite, workspace):
    (workspace.folder / "annealing.py").write_text(EXAMPLE)
    (line,) = [text for text in blocks("yaml") if ".py:" in text]
    assert line == "strategy: {name: annealing.py:Annealing, temperature: 0.2}\n"
    strategy = {"name": "annealing.py:Annealing", "temperature": 0.2}
    path = workspace.config(strategy=strategy, enqueue=[{"onnx_quantization.scheme": "static"}])
    assert naslite("run", path, "--trials", 2)[0] == 0
    assert naslite("resume", "toy", "--trials", 3)[0] == 0
    rows = open_study("toy").rows()
    assert [set(row.trial.memo) for row in rows] == [set(), set(), {"luck"}, {"luck"}]
    assert naslite("replay", "toy")[:2] == (0, "replayed 2 proposals of toy: all equal\n")


def test_a_wrong_option_of_the_example_is_reported_at_its_key(naslite, workspace):
    (workspace.folder / "annealing.py").write_text(EXAMPLE)
    path = workspace.config(strategy={"name": "annealing.py:Annealing", "cooling": 2})
    line = one_line(naslite("check", path))
    assert line.endswith("toy.yaml: strategy.cooling: cooling must be a number in [0, 1], got 2\n")


# An installed one


def test_an_installed_strategy_is_known_by_its_name(naslite, workspace, site):
    install_the_example(site)
    assert known_names("strategies", BUILTIN) == sorted([*BUILTIN, "annealing"])
    found = load("strategy", "strategies", "annealing", BUILTIN, workspace.folder)
    assert Path(sys.modules[found.__module__].__file__) == site / "annealing.py"
    (line,) = [text for text in blocks("yaml") if ".py:" not in text]
    assert line == "strategy: {name: annealing, temperature: 0.2}\n"
    path = workspace.config(strategy={"name": "annealing", "temperature": 0.2})
    _, out, _ = naslite("check", path)
    assert "strategy: annealing (temperature=0.2); budget: 6 trials\nenqueued: none" in out
    line = one_line(naslite("check", workspace.config(strategy="anealing")))
    assert "did you mean 'annealing'?" in line


def test_after_it_is_uninstalled_its_name_is_unknown(naslite, workspace):
    assert "unknown strategy 'annealing'" in one_line(
        naslite("check", workspace.config(strategy="annealing"))
    )


def test_a_name_of_our_own_cannot_be_taken_over(site, tmp_path):
    install(site, "greedy-people", {"random": "mine:Mine"}, mine="class Mine: pass\n")
    assert load("strategy", "strategies", "random", BUILTIN, tmp_path) is RandomSearch


def test_a_name_that_two_distributions_install_is_refused(site, tmp_path):
    install(site, "first", {"walk": "one:Walk"}, one="class Walk: pass\n")
    install(site, "second", {"walk": "two:Walk"}, two="class Walk: pass\n")
    with pytest.raises(NasliteError, match="'walk' is installed by first, second; uninstall all"):
        load("strategy", "strategies", "walk", BUILTIN, tmp_path)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("gone:Walk", "ModuleNotFoundError: No module named 'gone'"),
        ("here:Walk", "AttributeError: module 'here' has no attribute 'Walk'"),
        ("broken:Walk", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_entry_point_that_cannot_be_loaded_is_one_line(naslite, workspace, site, value, part):
    install(site, "walks", {"walk": value}, here="", broken="1 / 0\n")
    line = one_line(naslite("check", workspace.config(strategy="walk")))
    assert f"strategy.name: the entry point walk = {value} of walks cannot be loaded: " in line
    assert part in line
