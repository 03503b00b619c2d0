from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from databases import needs_postgres, own_postgres
from sqlalchemy import create_engine

from storage import NoStore, Store, StudyBusy, UnknownStudy
from storage.database import files_folder, parse_url
from storage.lease import new_owner
from storage.schema import metadata
from storage.testing import StoreContract, dead_owner, new_study, propose


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with own_postgres() as url:
        yield url


@pytest.fixture
def postgres(database: str) -> str:
    """A database without tables."""
    engine = create_engine(parse_url(database))
    metadata.drop_all(engine)
    engine.dispose()
    return database


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store("sqlite://", files=tmp_path / "files")
        yield store
        store.close()


class TestSqliteFile(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = Store(f"sqlite:///{tmp_path / 'naslite.db'}")
        yield store
        store.close()


@needs_postgres
class TestPostgres(StoreContract):
    @pytest.fixture
    def store(self, postgres: str, tmp_path: Path) -> Iterator[Store]:
        store = Store(postgres, files=tmp_path / "files")
        yield store
        store.close()


# Several stores on one database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Opens stores on one address, and closes them after the test."""
    sqlite = f"sqlite:///{tmp_path / 'naslite.db'}"
    url = request.getfixturevalue("postgres") if request.param == "postgres" else sqlite
    stores: list[Store] = []

    def open_one(*, create: bool = True) -> Store:
        stores.append(Store(url, create=create, files=tmp_path / "files"))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def together(count: int, action: Callable[[int], object]) -> list[Exception | None]:
    """What `count` threads, started at once, raise in `action(position)`."""
    barrier = threading.Barrier(count)
    raised: list[Exception | None] = [None] * count

    def run(position: int) -> None:
        barrier.wait()
        try:
            action(position)
        except Exception as error:
            raised[position] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_two_stores_see_each_others_writes(opened):
    writer, reader = opened(), opened(create=False)
    owner = new_owner()
    study = writer.create_study(new_study("s"), owner)

    assert reader.study("s") == study
    propose(writer, study, owner, 0)
    assert reader.trials(study) == writer.trials(study) != []
    reader.add_request(study, "stop")
    assert [r.kind for r in writer.requests(study)] == ["stop"]
    with pytest.raises(StudyBusy):
        reader.claim(study, new_owner())


def test_studies_outlive_the_store_object(opened):
    first = opened()
    study = first.create_study(new_study("s"), new_owner())
    first.close()

    assert opened().study("s") == study


def test_a_reader_does_not_make_the_tables(opened):
    for _ in range(2):
        with pytest.raises(NoStore, match="no study is stored at"):
            opened(create=False)


def test_a_new_database_is_opened_by_many_at_once(opened):
    stores: list[Store] = []

    assert together(8, lambda _: stores.append(opened())) == [None] * 8
    stores[0].create_study(new_study("s"), new_owner())
    assert all(store.has_study("s") for store in stores)


def test_of_many_who_claim_a_study_at_once_one_wins(opened):
    stores = [opened() for _ in range(4)]
    owners, dead = [new_owner() for _ in stores], dead_owner()
    for name in "abcdefgh":
        study = stores[0].create_study(new_study(name), dead)
        raised = together(4, lambda i, study=study: stores[i].claim(study, owners[i]))

        assert [type(error) for error in raised if error] == [StudyBusy] * 3
        assert stores[0].study(name).owner == owners[raised.index(None)]


def test_studies_are_written_at_the_same_time(opened):
    stores = [opened() for _ in range(3)]

    def work(position: int) -> None:
        store, owner = stores[position], new_owner()
        study = store.create_study(new_study(f"s{position}"), owner)
        for number in range(5):
            propose(store, study, owner, number)

    assert together(3, work) == [None] * 3
    assert [s.counts for s in stores[0].studies()] == [{"running": 5}] * 3


# Where the files are


def test_files_stand_beside_an_sqlite_file(tmp_path, monkeypatch):
    monkeypatch.setenv("NASLITE_FILES", "/elsewhere")
    store = Store(f"sqlite:///{tmp_path / 'my.studies.db'}")

    assert store.artifacts.root == tmp_path / "my.studies.db.files" / "artifacts"
    assert store.stages.root == tmp_path / "my.studies.db.files" / "stages"
    store.close()


def test_a_relative_path_is_taken_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert files_folder("sqlite:///naslite.db") == tmp_path / "naslite.db.files"


@pytest.mark.parametrize("url", ["sqlite://", "postgresql://host/db"])
def test_files_of_other_stores_are_where_the_environment_says(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NASLITE_FILES", raising=False)
    assert files_folder(url) == tmp_path / "naslite.files"
    monkeypatch.setenv("NASLITE_FILES", str(tmp_path / "shared"))
    assert files_folder(url) == tmp_path / "shared"


def test_the_folder_of_files_can_be_chosen(tmp_path):
    store = Store("sqlite://", files=tmp_path / "chosen")

    assert store.artifacts.root == tmp_path / "chosen" / "artifacts"
    assert not (tmp_path / "chosen").exists()
    store.close()


# Secrets


@needs_postgres
def test_a_password_is_not_shown_in_errors(postgres, tmp_path):
    url = parse_url(postgres).set(drivername="postgresql", password="s3cret")
    store = Store(url.render_as_string(hide_password=False), files=tmp_path / "files")
    with pytest.raises(UnknownStudy) as caught:
        store.study("s")

    assert "s3cret" not in str(caught.value)
    store.close()
