"""docs/store.md: all tables and columns are there, and every SQL example runs on a real store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from databases import needs_postgres, own_postgres
from sqlalchemy import text

from storage import Measurement, NewStudy, Outcome, StageRun, Store
from storage.lease import LEASE_S, new_owner
from storage.retrying import RETRY_S
from storage.schema import SCHEMA_VERSION, metadata
from storage.testing import new_study
from storage.testing_samples import stored_artifact

PAGE = (REPOSITORY / "docs" / "store.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def store(request, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        with closing(Store(f"sqlite:///{tmp_path / 'naslite.db'}")) as store:
            fill(store, tmp_path)
            yield store
        return
    with own_postgres() as url, closing(Store(url, files=tmp_path / "files")) as store:
        fill(store, tmp_path)
        yield store


def fill(store: Store, folder: Path) -> None:
    """A study `digits` with trials of every kind, beside another one."""
    owner = new_owner()
    store.create_study(new_study("other"), owner)
    study = store.create_study(NewStudy("digits", {}, [], "f" * 64, 0, 9, None), owner)
    artifact = stored_artifact(store, folder)
    for number, scheme, accuracy, size, ratio in (
        (0, "none", 0.99, 1000.0, 1.0),
        (1, "static", 0.97, 260.0, 0.4),
        (2, "dynamic", 0.98, 300.0, 1.2),
        (3, "static", 0.96, 250.0, 0.5),
    ):
        candidate = {"onnx_quantization.scheme": scheme}
        store.propose(study, owner, number, candidate, str(number))
        stages = (
            StageRun("export", "a" * 64, {}, 0.0 if number else 1.5, bool(number)),
            StageRun("onnx_quantization", str(number) * 64, candidate, 2.0, False),
        )
        measured = (
            Measurement("accuracy", accuracy, n=100),
            Measurement("size_bytes", size, "B"),
            Measurement("latency_ratio", ratio, "", ratio - 0.1, ratio + 0.1, 15, number == 3),
        )
        outcome = Outcome("complete", "", stages, artifact, measured, 4.0)
        store.finish(study, owner, number, outcome)
    store.propose(study, owner, 4, {}, "4")
    store.restart(study, owner, 4, died=True)
    store.finish(study, owner, 4, Outcome("failed", "worker died (signal 11)"))
    store.propose(study, owner, 5, {}, "5")
    store.finish(study, owner, 5, replace(outcome, state="refused", cause="cannot", artifact=None))
    store.propose(study, owner, 6, {}, "6")
    store.set_budget(study, owner, 12, None, 6)


def runs_here(example: str, store: Store) -> bool:
    named = re.match(r"-- (\w+)", example)
    return named is None or named[1].lower() in store.url.lower()


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    with store._transactions.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql.replace(":", r"\:")))]


def test_the_examples_run_and_find_something(store):
    kept = [example for example in EXAMPLES if runs_here(example, store)]
    assert len(kept) == len(EXAMPLES) - 1 >= 8
    for example in kept:
        assert ask(store, example), example


def test_the_examples_say_what_they_promise(store):
    answers = [ask(store, example) for example in EXAMPLES if runs_here(example, store)]
    metrics, failed, times, faster, schemes, studies, shared, budgets = answers

    assert metrics == [
        (3, "complete", 0.96, 250.0, 0.5),
        (1, "complete", 0.97, 260.0, 0.4),
        (2, "complete", 0.98, 300.0, 1.2),
        (0, "complete", 0.99, 1000.0, 1.0),
    ]
    assert failed == [
        (4, "failed", 2, 1, "worker died (signal 11)"),
        (5, "refused", 1, 0, "cannot"),
    ]
    assert times == [("onnx_quantization", 5, 0, 10.0), ("export", 5, 4, 1.5)]
    assert faster == [(1, 0.4, pytest.approx(0.3), 0.5)]
    assert [row[:2] for row in schemes if row[0]] == [("none", 1), ("dynamic", 1), ("static", 2)]
    assert studies == [
        ("other", "running", 60, 0.0, 0),
        ("digits", "running", 12, 20.0, 5),
    ]
    assert [row[1:] for row in shared] == [
        (store.trials(store.study("digits"))[0].artifact.size_bytes, 4)
    ]
    assert [row[0] for row in budgets] == [6]


def test_every_table_and_column_is_explained():
    for name, table in metadata.tables.items():
        assert f"`{name}`" in PAGE
        if name in ("naslite_schema", "alembic_version"):
            section = PAGE
        else:
            section = PAGE.split(f"### `{name}`: ")[1].split("\n#")[0]
        assert [c.name for c in table.columns if f"`{c.name}`" not in section] == [], name


def test_the_figures_are_those_of_the_code():
    assert f"this page describes schema {SCHEMA_VERSION}" in PAGE
    assert f"a lease that ran out ({LEASE_S:g} s; `NASLITE_LEASE_S`)" in PAGE
    assert f"up to {RETRY_S:g} s: locked" in PAGE
