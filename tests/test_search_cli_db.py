"""`naslite db`: status, upgrade and gc of a store."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ASSETS, one_line
from databases import copy_old, needs_postgres, own_postgres, rows
from sqlalchemy import make_url

from search.cli.live import Progress
from search.report import console
from storage import Store
from storage.lease import new_owner
from storage.schema import SCHEMA_VERSION
from storage.testing import new_study, propose
from storage.testing_samples import COMPLETE, stored_artifact


@pytest.fixture
def old(tmp_path: Path) -> str:
    return copy_old(ASSETS / "schema_1.db", tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_status_of_an_older_store_says_what_to_do(naslite, old, tmp_path):
    before = contents(tmp_path)
    code, out, err = naslite("db", "status", "--store", old)

    assert (code, err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["store"] == old
    assert lines["schema"] == (
        f"1, written by an older naslite: `naslite db upgrade --store {old}` upgrades it"
    )
    assert lines["rows"].endswith("7 stages, 1 studies, 7 trials")
    assert lines["artifacts"] == f"0, 0 B, in {tmp_path}/naslite.db.files/artifacts"
    assert contents(tmp_path) == before


def test_status_counts_rows_and_files(naslite, tmp_path):
    url = f"sqlite:///{tmp_path / 'naslite.db'}"
    check_status(naslite, url, tmp_path / "naslite.db.files", tmp_path)


@needs_postgres
def test_status_of_a_server(naslite, tmp_path, monkeypatch):
    monkeypatch.setenv("NASLITE_FILES", str(tmp_path / "files"))
    with own_postgres() as url:
        check_status(naslite, url, tmp_path / "files", tmp_path)


def check_status(naslite, url: str, files: Path, folder: Path) -> None:
    with closing(Store(url)) as store:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 0)
        artifact = stored_artifact(store, folder)
        store.finish(study, owner, 0, COMPLETE)
        code, out, _ = naslite("db", "status", "--store", url, "--format", "json")
    found = json.loads(out)

    assert code == 0
    assert (found["schema"], found["needs_upgrade"]) == (SCHEMA_VERSION, False)
    assert found["studies"] == 1
    assert found["rows"] == {
        "artifacts": 0,
        "known": 0,
        "measurements": 3,
        "records": 0,
        "requests": 0,
        "sessions": 0,
        "stages": 2,
        "studies": 1,
        "trials": 1,
    }
    assert found["size_bytes"] > 10_000
    assert found["artifacts"]["path"] == str(files / "artifacts")
    assert found["artifacts"]["count"] == 1
    assert found["artifacts"]["size_bytes"] >= artifact.size_bytes
    assert found["stages"] == {"path": str(files / "stages"), "count": 0, "size_bytes": 0}


def test_upgrade_says_what_it_did(naslite, old, tmp_path):
    code, out, err = naslite("db", "upgrade", "--store", old)

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"upgraded {old} from schema 1 to {SCHEMA_VERSION}",
        f"the file as it was is {tmp_path / 'naslite.db.schema-1.bak'}",
    ]
    assert naslite("db", "upgrade", "--store", old)[1] == (
        f"{old} is up to date (schema {SCHEMA_VERSION})\n"
    )
    assert naslite("ls", "--store", old)[0] == 0


def test_a_verb_on_an_older_store_names_the_way_out(naslite, old):
    for verb in (("ls",), ("best", "s"), ("db", "gc"), ("rm", "s")):
        line = one_line(naslite(*verb, "--store", old))
        assert f"`naslite db upgrade --store {old}` upgrades it" in line


def test_upgrade_names_the_study_that_runs(naslite, old, tmp_path):
    with closing(sqlite3.connect(tmp_path / "naslite.db")) as connection, connection:
        connection.execute("UPDATE studies SET owner = ?, lease_until = 9e9", (new_owner(),))
    before = rows(old)
    line = one_line(naslite("db", "upgrade", "--store", old))
    assert "study 's' is being run by process" in line
    assert "`naslite stop s` ends it" in line
    assert rows(old) == before


@pytest.mark.parametrize("verb", ["status", "upgrade", "gc"])
def test_where_nothing_is_nothing_is_made(naslite, verb, tmp_path):
    line = one_line(naslite("db", verb, "--store", f"sqlite:///{tmp_path}/gone.db"))
    assert "no study is stored at" in line
    assert list(tmp_path.iterdir()) == []


def test_gc_removes_what_no_study_needs(naslite, tmp_path):
    url = f"sqlite:///{tmp_path / 'naslite.db'}"
    with closing(Store(url)) as store:
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        propose(store, study, owner, 0)
        kept = stored_artifact(store, tmp_path, b"kept")
        store.finish(study, owner, 0, replace(COMPLETE, artifact=kept))
        store.release(study, owner, "finished")
        unused = stored_artifact(store, tmp_path, b"unused")
        yesterday = time.time() - 86400
        for path in store.artifacts.root.rglob("*"):
            os.utime(path, (yesterday, yesterday))

        code, out, _ = naslite("db", "gc", "--dry-run", "--store", url)
        assert code == 0
        assert out.startswith("would remove: 1 artifacts (")
        assert store.artifacts.exists(unused.sha256)
        code, out, _ = naslite("db", "gc", "--store", url, "--format", "json")
        assert code == 0
        found = json.loads(out)
        assert (found["artifacts"]["count"], found["kept"]["count"]) == (1, 1)
        assert found["artifacts"]["size_bytes"] >= unused.size_bytes
        assert store.artifacts.exists(kept.sha256)
        assert not store.artifacts.exists(unused.sha256)


# Logs


def write_logs(store: Store, *names: str, age_s: float = 0.0) -> dict[str, Path]:
    folder = store.artifacts.root.parent / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.log" for name in names}
    for path in paths.values():
        path.write_text("said")
        os.utime(path, 2 * (time.time() - age_s,))
    return paths


def ended_study(store: Store, name: str) -> None:
    owner = new_owner()
    store.release(store.create_study(new_study(name), owner), owner, "finished")


def test_the_logs_of_a_study_go_with_it(naslite, tmp_path):
    url = f"sqlite:///{tmp_path / 'naslite.db'}"
    with closing(Store(url)) as store:
        for name in ("a", "b", "b.workers"):
            ended_study(store, name)
        logs = write_logs(store, "a", "a.workers", "b", "b.workers", "b.workers.workers")
        for name in ("a", "b"):
            assert naslite("rm", name, "--store", url)[0] == 0
        assert [name for name in logs if logs[name].exists()] == ["b.workers", "b.workers.workers"]
        assert naslite("rm", "b.workers", "--store", url)[0] == 0
        assert not any(path.exists() for path in logs.values())


def test_gc_removes_logs_without_a_study(naslite, tmp_path):
    url = f"sqlite:///{tmp_path / 'naslite.db'}"
    with closing(Store(url)) as store:
        ended_study(store, "s")
        kept = write_logs(store, "s", "s.workers", age_s=1e5) | write_logs(store, "begins")
        gone = write_logs(store, "t", "t.workers", age_s=1e5)
        out = naslite("db", "gc", "--dry-run", "--store", url)[1]
        assert ", 2 logs (8 B), 0 rows" in out
        assert all(path.exists() for path in gone.values())
        found = json.loads(naslite("db", "gc", "--store", url, "--format", "json")[1])
        assert found["logs"] == {"count": 2, "size_bytes": 8}
        assert not any(path.exists() for path in gone.values())
        assert all(path.exists() for path in kept.values())


# Passwords


@pytest.fixture(params=["://postgres:s3cret@{}", "://postgres@{}?password=s3cret"])
def secret(request, tmp_path, monkeypatch) -> Iterator[str]:
    """The URL of an empty database, with a password."""
    monkeypatch.setenv("NASLITE_FILES", str(tmp_path / "files"))
    with own_postgres() as url:
        parsed = make_url(url)
        place = f"{parsed.host or 'localhost'}:{parsed.port or 5432}/{parsed.database}"
        yield "postgresql" + request.param.format(place)


@needs_postgres
def test_no_command_shows_a_password(naslite, secret, monkeypatch):
    with closing(Store(secret)) as store:
        said = [naslite("ls", "--store", secret)]
        owner = new_owner()
        study = store.create_study(new_study("s"), owner)
        said.append(naslite("stop", "s", "--store", secret))
        store.release(study, owner, "stopped")
        verbs = [("stop", "s"), ("stop", "t"), ("ls",), ("db", "upgrade"), ("db", "gc")]
        said += [naslite(*verb, "--store", secret) for verb in verbs]
        with store._transactions.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE naslite_schema SET version = 1")
    for verb in (("db", "status"), ("db", "status", "--format", "json"), ("ls",)):
        said.append(naslite(*verb, "--store", secret))
    out = "".join(out + err for _, out, err in said)
    assert "s3cret" not in out
    assert out.count("***") >= 6
    for command in ("resume s", "db upgrade"):
        assert f'`naslite {command} --store "$NASLITE_STORE"`' in out
    monkeypatch.setenv("NASLITE_STORE", secret)
    assert "`naslite db upgrade` upgrades it" in naslite("db", "status")[1]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@host:port/name",
        "postgresql:// u:s3cret@@@host",
        "mysql://u:s3cret@host/name",
        "mysql://u@host/name?password=s3cret&a=b",
        "sqlite://u:s3cret@host/name",
    ],
)
def test_no_error_about_a_url_shows_a_password(naslite, url):
    line = one_line(naslite("ls", "--store", url))
    assert "s3cret" not in line
    assert "***" in line


def test_hints_of_a_search_show_no_password():
    url = "postgresql://u:s3cret@host/name"
    progress = Progress(console(), url)
    progress.name = "toy"
    assert progress.ending("interrupted", "Ctrl-C or SIGTERM").endswith(
        '; continue with `naslite resume toy --store "$NASLITE_STORE"`'
    )
