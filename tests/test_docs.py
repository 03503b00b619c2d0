"""Whatever is listed for users is in the docs, and the docs are true."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPOSITORY

import compressors
import strategies
from search import runtimes
from search.cli import VERBS
from search.config import StudyConfig
from search.metrics import METRICS

README = (REPOSITORY / "README.md").read_text()


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """docs/generate.py, which writes the config reference."""
    path = REPOSITORY / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("_docs_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generated(reference) -> str:
    return reference.config_reference()


def test_the_config_reference_is_not_stale(generated):
    assert (REPOSITORY / "docs" / "config.md").read_text() == generated, "run `make docs`"


def test_every_key_plugin_and_metric_is_in_the_reference(generated):
    names = [*StudyConfig.model_fields, *METRICS]
    names += [*strategies.BUILTIN, *compressors.BUILTIN, *runtimes.BUILTIN]
    assert [name for name in names if f"`{name}`" not in generated] == []


def test_every_option_of_a_compressor_is_explained():
    page = (REPOSITORY / "docs" / "compressors.md").read_text()
    for name in compressors.BUILTIN:
        module, _, kind = compressors.BUILTIN[name].partition(":")
        compressor = getattr(importlib.import_module(module), kind)()
        options = {knob.name.partition("@")[0] for knob in compressor.knobs(None, None)}
        missing = [option for option in options if f"`{option}" not in page]
        assert missing == [], name


def test_every_strategy_is_explained():
    page = (REPOSITORY / "docs" / "strategies.md").read_text()
    assert [name for name in strategies.BUILTIN if f"| `{name}`" not in page] == []
    from strategies.optuna_table import SAMPLERS

    assert [name for name in SAMPLERS if f"`{name}`" not in page] == []


def test_every_key_has_a_meaning():
    for name, field in StudyConfig.model_fields.items():
        assert field.description, name


def test_every_option_of_a_strategy_has_a_meaning(reference):
    options = reference.strategy_options()
    assert set(options) <= set(strategies.BUILTIN)
    for strategy, rows in options.items():
        assert [row.name for row in rows if not row.meaning] == [], strategy


def test_options_come_from_the_constructor_and_its_docstring(reference, monkeypatch):
    monkeypatch.setitem(strategies.BUILTIN, "documented", "test_docs:Documented")
    assert reference.strategy_options()["documented"] == [
        ("population", "`20`", "How many, of those that are left."),
        ("step", '`"best"`', "best or once."),
        ("first", "", "Where to begin."),
        ("seed", "required", "Of no use."),
        ("sigma", "", "Checked by the strategy itself."),
        ("other keys", "", "Passed on."),
    ]
    text = reference.config_reference()
    assert "### Options of `documented`" in text
    assert "| other keys |  | Passed on. |" in text
    assert "| `population` | `20` | How many, of those that are left. |" in text


class Documented:
    """One line.

    Args:
        population: How many,
            of those that are left.
        step: best or once.
        first: Where to begin.
        seed: Of no use.
        sigma: Checked by the strategy itself.
        rest: Passed on.

    Raises:
        ValueError: An option is wrong.
    """

    def __init__(
        self, population: int = 20, step="best", first: int | None = None, *, seed, **rest
    ) -> None:
        self.options = (population, step, first, seed, rest)


def test_every_verb_is_in_the_readme():
    assert [verb for verb in VERBS if f"| `naslite {verb}" not in README] == []


def test_every_module_is_in_the_tree_of_the_readme():
    tree = README.split("## The tree")[1]
    missing = [
        path.name
        for package in ("search", "strategies", "compressors", "storage")
        for path in (REPOSITORY / package).glob("*.py")
        if not path.name.startswith("__") and f" {path.name} " not in tree
    ]
    assert missing == []


def test_files_that_the_tree_names_exist():
    tree = README.split("## The tree")[1].split("```")[1]
    folder = REPOSITORY
    for line in tree.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = REPOSITORY / name
        assert (folder if not line.startswith(" ") else folder / name).exists(), line


def test_links_lead_somewhere():
    for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), (
                f"{page.name}: {target}"
            )


def test_decisions_are_numbered_without_gaps():
    pages = sorted((REPOSITORY / "docs" / "decisions").glob("0*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        assert page.read_text().startswith(f"# {page.name[:4]}: ")


def test_nothing_names_a_path_of_this_machine():
    home = str(REPOSITORY.parent) + "/"
    for path in REPOSITORY.rglob("*"):
        parts = path.relative_to(REPOSITORY).parts
        if path.suffix in (".py", ".md", ".yaml", ".toml") and not parts[0].startswith("."):
            assert home not in path.read_text(), path


def test_the_pipeline_of_the_readme_is_valid(workspace):
    from ruamel.yaml import YAML

    from search import check

    text = README.split("```yaml")[1].split("```")[0]
    content = YAML(typ="safe", pure=True).load(text)
    prepared = check(
        workspace.config(**{**content, "task": "toy_task.py:Toy", "study": Path("x").name})
    )
    assert prepared.space.size is not None


def test_every_test_named_on_the_reliability_page_exists():
    page = (REPOSITORY / "docs" / "reliability.md").read_text()
    named = re.findall(r"`((?:tests|storage|search|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 20
    for path, test in named:
        source = REPOSITORY / path
        assert source.exists(), path
        assert not test or f"def {test}(" in source.read_text(), f"{path}::{test}"
