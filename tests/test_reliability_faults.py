"""No trial can take the study down: real faults at every stage, in studies run by the command."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from functools import cache

import pytest
from conftest import REPOSITORY
from doubles import FormulaBench, control, new_study
from fault_matrix import (
    BUILDING,
    CACHE_DAMAGES,
    DAMAGES,
    DEATHS,
    DISKS,
    FILLINGS,
    HEALTHY,
    STAGE_OF,
    STRIKES,
    candidate,
    cell,
    cells_of,
    cells_of_damaged_cache,
    cells_on_disk,
    document,
    expected,
    filled_and_damaged,
    on_disk,
    reference,
    struck,
    with_damaged_cache,
)
from faulty_study import can_mount, search, table

from storage import Store
from storage.artifacts import ContentStore

# One fault at each place; the rest of the matrix takes minutes.
QUICK = [
    ("prune", "raise"),
    ("distil", "nan"),
    ("export", "sigkill"),
    ("quantize", "exit"),
    ("score", "nan records"),
    ("time", "raise"),
]
SURVIVORS = [trial for trial in DAMAGES if expected(*trial).state == "complete"]
NEEDS_MOUNTS = pytest.mark.skipif(
    not can_mount(), reason="needs the right to mount a tmpfs in a namespace (unshare)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def unharmed(folder):
    """By candidate, what healthy trials come to in a study without faults."""
    study = search(folder / "healthy", HEALTHY, armed=False)
    finished_cleanly(study)
    assert "warning" not in study.err
    return table(study.rows())


def finished_cleanly(study):
    assert study.code == 0, study.out + study.err
    assert study.left == ()
    assert study.state() == "finished"
    assert "Traceback" not in study.out + study.err


def warns(study):
    """Checks the line that sums the failures up; nothing else may be said so loudly."""
    rows = [row.trial for row in study.rows()[1:]]
    lost = [trial for trial in rows if trial.state != "complete"]
    (line,) = [line for line in study.err.splitlines() if line.startswith("warning: ")]
    counts = Counter(trial.state for trial in lost)
    shown = ", ".join(f"{number} {state}" for state, number in counts.items())
    assert line.startswith(f"warning: {shown} of {len(rows)} trials; most often (")
    # Double quotes where a path in the cause is cut after its first quote.
    said = re.search(r"most often \((\d+)x\) (['\"])(.*)\2: `naslite trials toy`", line)
    times, _, cause = said.groups()
    causes = Counter(trial.cause for trial in lost)
    assert causes[cause] == int(times) == max(causes.values())


def others_are_unharmed(study, unharmed):
    found = table(study.rows())
    assert {key: found[key] for key in unharmed} == unharmed


def test_a_fault_at_each_place_costs_its_trial_and_no_other(folder, unharmed):
    study = struck(folder / "quick", QUICK)
    finished_cleanly(study)
    assert cells_of(study, QUICK) == {trial: expected(*trial) for trial in QUICK}
    others_are_unharmed(study, unharmed)
    warns(study)
    killed = study.row(candidate("export", "sigkill")).trial
    assert (killed.attempt, killed.deaths) == (2, 2)
    done = [stage.name for stage in killed.stages]
    assert done == ["structured_pruning", "distillation", "marked_model"]
    said = "begins again, attempt 2: worker died (signal 9) in stage export"
    assert f"trial {killed.number} {said}" in study.out


def test_files_that_vanish_whenever_they_are_made_cost_their_trials(tmp_path):
    """Between their timing and the commit, by whatever deletes files here."""

    class Vanishing(FormulaBench):
        def time(self, path, baseline, seed, *, progress):
            timings = super().time(path, baseline, seed, progress=progress)
            if path.read_text().startswith("[3,"):
                shutil.rmtree(path.parent)
            return timings

    store = Store(f"sqlite:///{tmp_path / 'a.db'}")
    new_study(store, trials=12)
    trials = control(store, bench=Vanishing())
    lost = {t.number for t in trials if t.candidate["prune.level"] == 3}
    assert {t.number for t in trials if t.state != "complete"} == lost
    for number in lost:
        assert trials[number].state == "failed"
        assert trials[number].cause.startswith("measure: CorruptFiles: the files of artifact ")
        assert trials[number].artifact is None
    assert lost
    assert store.study("s").state == "finished"


# Every fault at every place


@pytest.fixture(scope="module")
def all_struck(folder):
    return struck(folder / "struck")


@pytest.fixture(scope="module")
def all_filled(folder):
    return filled_and_damaged(folder / "filled")


@pytest.fixture(scope="module")
def on_disks(folder):
    """Studies by what is wrong with their disk, each run once."""
    return cache(lambda fault: on_disk(folder / fault.replace(" ", "-"), fault))


@pytest.fixture(scope="module")
def intact_cache(folder):
    return with_damaged_cache(folder / "intact", "not at all", armed=False)


@pytest.fixture(scope="module")
def damaged_caches(folder):
    """Studies by how their cache was damaged, each run once."""
    return cache(lambda how: with_damaged_cache(folder / how, how))


@pytest.fixture(scope="module")
def undamaged(folder):
    """By candidate, what the trials come to whose files will be damaged."""
    study = reference(folder / "undamaged")
    finished_cleanly(study)
    return table(study.rows())


@pytest.mark.slow
def test_a_study_of_nothing_but_faults_finishes(all_struck, unharmed):
    finished_cleanly(all_struck)
    others_are_unharmed(all_struck, unharmed)
    warns(all_struck)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "fault"), STRIKES)
def test_a_fault_is_told_with_its_stage_and_its_attempts(all_struck, place, fault):
    row = all_struck.row(candidate(place, fault))
    wanted = expected(place, fault)
    assert cell(row) == wanted
    assert row.trial.deaths == (wanted.attempts if fault in DEATHS else 0)
    if wanted.state == "complete":
        return
    assert row.trial.measurements == ()
    done = [stage.name for stage in row.trial.stages]
    if place in BUILDING:  # of a fault that is told by the bench, the stage is listed, too
        assert STAGE_OF[place] not in done[:-1]
    else:
        assert done[-1] == "marked_file"


@pytest.mark.slow
def test_a_study_on_a_full_and_failing_disk_finishes(all_filled, unharmed, undamaged):
    finished_cleanly(all_filled)
    others_are_unharmed(all_filled, unharmed)
    warns(all_filled)
    found = table(all_filled.rows())
    damaged = {key for key in undamaged if "once" in key}
    assert len(damaged) == len(SURVIVORS)
    assert {key: found[key] for key in damaged} == {key: undamaged[key] for key in damaged}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "fault"), FILLINGS)
def test_a_full_disk_fails_the_stage_that_has_no_room(all_filled, place, fault):
    assert cell(all_filled.row(candidate(place, fault))) == expected(place, fault)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "fault"), DAMAGES)
def test_a_damaged_artifact_is_built_again_once(all_filled, place, fault):
    trial = all_filled.row(candidate(place, fault)).trial
    assert cell(all_filled.row(candidate(place, fault))) == expected(place, fault)
    again = rf"trial {trial.number}: .*model\.onnx .*; its files are made again"
    assert len(re.findall(again, all_filled.err)) == 1
    if trial.state == "complete":
        store = ContentStore(all_filled.folder / "naslite.db.files" / "artifacts")
        store.verified(trial.artifact.sha256)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["cache is a file", *(pytest.param(f, marks=NEEDS_MOUNTS) for f in DISKS)]
)
def test_a_study_whose_folders_cannot_be_written_finishes(on_disks, unharmed, fault):
    study = on_disks(fault)
    finished_cleanly(study)
    rows = study.rows()
    if fault == "artifacts full":
        lost = [row for row in rows if row.trial.state != "complete"]
        assert len(lost) >= 2
        for row in lost:
            last = row.trial.stages[-1].name
            assert row.trial.state == "failed"
            assert row.trial.cause.startswith(f"{last}: storing the files: OSError: [Errno 28] ")
        warns(study)
        kept = table(row for row in rows if row not in lost)
        assert kept == {key: unharmed[key] for key in kept}
        assert len(kept) >= 2
    else:
        assert table(rows) == unharmed
        assert "warning" not in study.err
        assert not any(row.trial.stages[-1].cached for row in rows)
        said = study.worker_log().count("stages are computed anew in every trial")
        assert said == 1  # not by each trial


@pytest.mark.slow
@pytest.mark.parametrize("how", ["truncate", "flip"])
def test_a_cached_result_that_is_damaged_is_computed_again(intact_cache, damaged_caches, how):
    """And the baseline's file, which every timing needs."""
    intact, study = intact_cache, damaged_caches(how)
    finished_cleanly(study)
    assert table(study.rows()) == table(intact.rows())
    assert study.out.count("damaged ") == 1 + len(CACHE_DAMAGES)
    assert "the baseline's files are made again" in study.err
    for number, stage in CACHE_DAMAGES.items():
        for ended, cached in ((intact, True), (study, False)):
            (run,) = [s for s in ended.rows()[number + 1].trial.stages if s.name == stage]
            assert run.cached is cached


@pytest.mark.slow
@NEEDS_MOUNTS
def test_the_documentation_says_what_happens(all_struck, all_filled, on_disks, damaged_caches):
    cells = cells_of(all_struck, STRIKES) | cells_of(all_filled, [*FILLINGS, *DAMAGES])
    for fault in DISKS:
        cells |= cells_on_disk(on_disks(fault), fault)
    for how in ("truncate", "flip"):
        cells |= cells_of_damaged_cache(damaged_caches(how), how)
    page = REPOSITORY / "docs" / "fault_matrix.md"
    assert page.read_text() == document(cells), "run `python tests/fault_matrix.py`"
