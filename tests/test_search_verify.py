from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from conftest import Workspace, one_line
from doubles import FormulaBench, control, new_study
from sqlalchemy import create_engine, text

from search.environment import cpu_facts, library_versions
from search.errors import NasliteError
from search.executor import Serial
from search.jobs import Timing
from search.results import StudyResults
from search.timing_lock import TimingLock
from search.verify import TIMINGS, Bench
from storage import Store, Study
from storage.entries import entry_folder


class Repeated(FormulaBench):
    """Measures as before, but for what a test changes.

    Args:
        ratios: The latency ratios that it finds, one after the other; then 1.0 as before.
        noisy: Whether each of the first timings is; the rest is not.
        loss: Of the score of whatever is compressed.
    """

    def __init__(self, artifacts, ratios=(), noisy=(), loss=0.0) -> None:
        super().__init__(artifacts=artifacts)
        self.ratios = list(ratios)
        self.noisy = list(noisy)
        self.loss = loss
        self.timed = 0
        self.seeds = []

    def score(self, artifact, reference=None, *, progress):
        found = super().score(artifact, progress=progress)
        return replace(found, score=found.score - self.loss * (found.score < 1))

    def time(self, path, baseline, seed, *, progress):
        self.timed += 1
        self.seeds.append(seed)
        ratio = self.ratios.pop(0) if self.ratios else 1.0
        noisy = self.noisy.pop(0) if self.noisy else False
        return (Timing(1, 1.0, ratio, 0.9 * ratio, 1.1 * ratio, 15, noisy=noisy),)


class Here(StudyResults):
    """A study that was created on this machine."""

    @property
    def study(self) -> Study:
        return self._study

    @study.setter
    def study(self, study: Study) -> None:
        facts = {**study.facts, **cpu_facts(), "versions": library_versions()}
        self._study = replace(study, facts=facts)


@pytest.fixture
def results(tmp_path) -> Here:
    store = Store(f"sqlite:///{tmp_path / 'a.db'}")
    new_study(store, trials=8)
    control(store)
    return Here(store, "s")


def bench_of(results: StudyResults, bench: Repeated) -> Bench:
    baseline = results.baseline()
    assert baseline is not None
    return Bench(results, baseline, Serial(bench), Serial(bench), TimingLock(None))


def verified(results: StudyResults, rows=None, *, said=lambda line: None, **changes):
    bench = Repeated(results.store.artifacts, **changes)
    return bench_of(results, bench).verification(rows or results.front(), said), bench


def test_what_measures_as_before_agrees(results):
    found, bench = verified(results)
    assert found.agrees
    assert found.differs == ()
    assert [row.number for row in found.rows] == [row.number for row in results.front()]
    judged = {m.metric for row in found.rows for m in row.metrics if m.verdict == "agrees"}
    assert judged == {
        *("accuracy", "accuracy_drop", "size_bytes", "latency_ratio", "parameters", "macs")
    }
    assert bench.timed == len(found.rows)


def test_another_score_disagrees_and_so_does_its_drop(results):
    found, _ = verified(results, loss=1e-9)
    assert not found.agrees
    by_row = {row.number: {m.metric for m in row.metrics if m.verdict == "disagrees"}
              for row in found.rows}  # fmt: skip
    assert by_row.pop(0, set()) == set()
    assert set(map(frozenset, by_row.values())) == {frozenset({"accuracy", "accuracy_drop"})}


def test_a_ratio_that_disagrees_is_timed_anew_before_it_counts(results):
    row = next(row for row in results.front() if row.number)
    found, bench = verified(results, [row], ratios=[2.0] * (TIMINGS - 1))
    assert (found.agrees, bench.timed) == (True, TIMINGS)
    found, bench = verified(results, [row], ratios=[2.0] * TIMINGS)
    assert (found.agrees, bench.timed) == (False, TIMINGS)
    (ratio,) = [m for m in found.rows[0].metrics if m.verdict == "disagrees"]
    assert (ratio.metric, ratio.found.value) == ("latency_ratio", 2.0)


def test_a_ratio_found_beside_other_work_is_timed_anew_before_it_is_not_judged(results):
    row = next(row for row in results.front() if row.number)
    found, bench = verified(results, [row], noisy=[True])
    assert (found.agrees, found.unjudged, bench.timed) == (True, 0, 2)
    found, bench = verified(results, [row], ratios=[2.0] * TIMINGS, noisy=[True] * TIMINGS)
    assert (found.agrees, found.unjudged, bench.timed) == (True, 1, TIMINGS)
    assert found.to_json()["unjudged"] == found.to_json()["rows"][0]["unjudged"] == 1


def test_rows_that_disagree_are_timed_anew_when_all_others_have_been(results):
    first, second, *_ = [row for row in results.front() if row.number]
    said = []
    found, bench = verified(results, [first, second], ratios=[2.0, 1.0, 1.0], said=said.append)
    assert found.agrees
    assert bench.timed == 3
    numbers = [first.number, second.number, first.number]
    assert [int(text.split("trial ")[1].split()[0]) for text in said] == numbers
    assert len(set(bench.seeds)) == 3  # no try has the order of blocks of another


def test_a_changed_file_disagrees_and_the_others_are_measured(results):
    first, second, *_ = [row for row in results.front() if row.number]
    artifact = first.trial.artifact
    path = entry_folder(results.store.artifacts.root, artifact.sha256) / artifact.files[0].name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    found, _ = verified(results, [first, second])
    assert [row.agrees for row in found.rows] == [False, True]
    assert artifact.sha256 in found.rows[0].problem
    assert not found.agrees
    record = json.loads(json.dumps(found.to_json()))
    assert [row["agrees"] for row in record["rows"]] == [False, True]


def test_on_another_machine_it_is_said_and_a_score_needs_an_interval(results):
    study = results.study
    results._study = replace(study, facts={**study.facts, "cpu": "another"})
    found, _ = verified(results, loss=1e-9)
    assert found.agrees
    assert any("cpu another, this is " in text for text in found.differs)
    scores = {m.verdict for row in found.rows for m in row.metrics if m.metric == "accuracy"}
    assert scores == {"not judged"}


def test_a_trial_without_figures_cannot_be_verified(tmp_path):
    def fail(candidate):
        if candidate["prune.level"]:
            raise ValueError("no")

    from search.verify import verify

    store = Store(f"sqlite:///{tmp_path / 'a.db'}")
    new_study(store, trials=4)
    trials = control(store, bench=FormulaBench(fail))
    failed = next(trial for trial in trials if trial.state == "failed")
    with pytest.raises(
        NasliteError, match=rf"trial {failed.number} of 's' has no figures to verif"
    ):
        verify("s", failed.number, store=store.url)


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory) -> Workspace:
    """A workspace of its own, for tests that damage it."""
    folder = tmp_path_factory.mktemp("verified") / "copy"
    shutil.copytree(finished.folder, folder)
    workspace = Workspace(folder)
    engine = create_engine(workspace.store)
    with engine.begin() as connection:  # the study lies elsewhere now
        (config,) = connection.execute(text("SELECT config FROM studies")).one()
        content = {**json.loads(config), "folder": str(folder)}
        connection.execute(text("UPDATE studies SET config = :c"), {"c": json.dumps(content)})
    engine.dispose()
    return workspace


@pytest.mark.slow
def test_verify_measures_the_front_again_in_processes_of_its_own(naslite, copied):
    store = ("--store", copied.store)
    before = (copied.folder / "naslite.db").read_bytes()
    code, out, err = naslite("verify", "toy", "--format", "json", *store)
    record = json.loads(out)
    assert "measuring trial" in err
    judged = {
        (row["number"], name): m["verdict"]
        for row in record["rows"]
        for name, m in row["metrics"].items()
        if not name.startswith("latency_ratio")  # which other work on the machine may move
    }
    assert set(judged.values()) == {"agrees", "not judged"}
    assert {name for (_, name), verdict in judged.items() if verdict == "agrees"} >= {
        *("accuracy", "accuracy_drop", "size_bytes", "size_zstd_bytes", "parameters", "macs")
    }
    assert (code == 0) is record["agrees"]
    assert (copied.folder / "naslite.db").read_bytes() == before

    number = record["rows"][-1]["number"]
    engine = create_engine(copied.store)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE measurements SET value = value + 0.001 WHERE metric = 'accuracy'")
        )
    engine.dispose()
    code, out, _ = naslite("verify", "toy", number, *store)
    assert code == 1
    assert "disagrees" in out
    assert "verified 1 row of toy: 1 disagrees" in out


@pytest.mark.slow
def test_a_study_whose_task_changed_is_refused(naslite, copied):
    task = copied.folder / "toy_task.py"
    content = task.read_text()
    task.write_text(content + "\n# changed\n")
    try:
        code, out, err = naslite("verify", "toy", "--store", copied.store)
    finally:
        task.write_text(content)
    assert (code, out) == (2, "")
    assert "is not the one that study 'toy' was created with" in err.splitlines()[-1]


def test_a_number_and_the_front_exclude_each_other(naslite, finished):
    error = one_line(naslite("verify", "toy", 1, "--front", "--store", finished.store))
    assert "give a NUMBER or --front, not both" in error
