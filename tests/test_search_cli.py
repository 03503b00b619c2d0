"""The verbs as a user types them: output, exit codes, and what is (not) written."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from conftest import one_line

from search import open_study
from search.cli import VERBS, main
from search.results import StudyResults

PROGRAM = [sys.executable, "-c", "from search.cli import main; main()"]


def everything_below(folder) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


# Reading


def test_help_lists_every_verb_with_a_line(naslite):
    code, out, _ = naslite("--help")
    assert code == 0
    for verb in VERBS:
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [verb]]
        assert len(line.split()) > 4


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(naslite, verb):
    code, out, _ = naslite(verb, "--help")
    assert code == 0
    assert f"Usage: naslite {verb}" in out


def test_ls_trials_best_and_show_print_tables(naslite, finished):
    store = ("--store", finished.store)
    assert "6/6" in naslite("ls", *store)[1]
    code, out, _ = naslite("trials", "toy", *store)
    assert code == 0
    assert "uncompressed" in out
    code, out, _ = naslite("best", "toy", *store)
    assert "on the front" in out
    assert "×" in out
    code, out, _ = naslite("show", "toy", 1, *store)
    assert "export" in out
    assert "SHA-256" in out


@pytest.mark.parametrize("verb", [("ls",), ("trials", "toy"), ("best", "toy"), ("show", "toy", 1)])
def test_every_read_verb_gives_json_and_csv(naslite, finished, verb):
    code, out, err = naslite(*verb, "--store", finished.store, "--format", "json")
    assert (code, err) == (0, "")
    records = json.loads(out)
    assert isinstance(records, dict if verb[0] == "show" else list)
    code, out, _ = naslite(*verb, "--store", finished.store, "--format", "csv")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 1 + (1 if verb[0] == "show" else len(records))


def test_best_where_sort_limit(naslite, finished):
    _, out, _ = naslite(
        "best",
        "toy",
        "--store",
        finished.store,
        "--where",
        "size_bytes < 15000",
        "--sort",
        "size_bytes",
        "--limit",
        1,
        "--format",
        "json",
    )
    (record,) = json.loads(out)
    sizes = [r.metrics["size_bytes"] for r in open_study("toy", store=finished.store).rows()]
    assert record["metrics"]["size_bytes"]["value"] == min(sizes)


def test_ls_without_a_store_says_how_to_start_and_creates_nothing(naslite, workspace):
    code, out, _ = naslite("ls")
    assert code == 0
    assert "naslite run CONFIG" in out
    assert json.loads(naslite("ls", "--format", "json")[1]) == []
    assert not (workspace.folder / "naslite.db").exists()


# Wrong inputs: one clear line, exit code 2, nothing written


def test_unknown_things_are_named_with_what_exists(naslite, finished):
    store = ("--store", finished.store)
    assert "unknown verb 'bset'; did you mean 'best'" in one_line(naslite("bset"))
    assert "unknown study 'tyo'; studies in" in one_line(naslite("best", "tyo", *store))
    assert "no trial 99" in one_line(naslite("show", "toy", 99, *store))
    assert "did you mean 'size_bytes'" in one_line(
        naslite("best", "toy", "--where", "sizebytes < 3", *store)
    )
    assert "expected a number" in one_line(naslite("best", "toy", "--where", "accuracy <", *store))
    assert "unknown metric" in one_line(naslite("best", "toy", "--sort", "zzz", *store))
    assert "'xml' is not one of" in one_line(naslite("ls", "--format", "xml", *store))
    assert "not running" in one_line(naslite("stop", "toy", *store))
    assert "x>=1" in one_line(naslite("resume", "toy", "--trials", 0, *store))


def test_reading_where_nothing_is_stored(naslite, workspace):
    for verb in (("best", "a"), ("trials", "a"), ("show", "a", 1), ("resume", "a"), ("rm", "a")):
        assert "no study is stored at" in one_line(naslite(*verb))
    assert not (workspace.folder / "naslite.db").exists()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"sed": 1}, "toy.yaml: sed: unknown key 'sed'; did you mean 'seed'?"),
        ({"seed": "one"}, "toy.yaml: seed: "),
        (
            {"pipeline": [{"distillation": {"epochs": {"low": 5, "high": 2}}}]},
            "pipeline.0.distillation.epochs.high: `low <= high` must hold, got low=5, high=2",
        ),
        ({"strategy": "radnom"}, "strategy.name: unknown strategy 'radnom'; did you mean 'rand"),
        ({"pipeline": ["distilation"]}, "pipeline.0: unknown compressor 'distilation'; did you"),
        ({"objectives": {"acuracy": "maximize"}}, "objectives.acuracy: unknown metric 'acuracy'"),
        ({"task": "none.py:Toy"}, "task: the file"),
        ({"task": "bare.py:Bare"}, "task: Bare must define model()"),
        ({"task": None}, "task: this key is required"),
        ({"study": "two words"}, "study: a study's name must be"),
    ],
)
def test_a_wrong_config_gives_one_line_and_writes_nothing(naslite, workspace, changes, part):
    (workspace.folder / "bare.py").write_text(
        "from compressors.base import Task\n"
        "class Bare(Task):\n"
        "    def train_batches(self): return []\n"
        "    calibration_batches = eval_batches = train_batches\n"
    )
    path = workspace.config(**changes)
    before = everything_below(workspace.folder)
    for verb in ("check", "run"):
        assert part in one_line(naslite(verb, path))
    assert everything_below(workspace.folder) == before


def test_a_missing_config(naslite, workspace):
    assert "the config file does not exist" in one_line(naslite("run", "none.yaml"))


def test_a_database_that_is_not_ours_or_newer_is_left_alone(naslite, workspace):
    path = workspace.config()
    (workspace.folder / "text.db").write_text("hello")
    with sqlite3.connect(workspace.folder / "other.db") as connection:
        connection.execute("create table people (name text)")
    with sqlite3.connect(workspace.folder / "newer.db") as connection:
        connection.execute("create table naslite_schema (version integer)")
        connection.execute("insert into naslite_schema values (999)")
    connection.close()
    before = everything_below(workspace.folder)
    for name, part in (
        ("text.db", "not a naslite database"),
        ("other.db", "it holds people"),
        ("newer.db", "written by a newer naslite (schema 999"),
    ):
        for verb in (("ls",), ("best", "toy"), ("run", path)):
            line = one_line(naslite(*verb, "--store", f"sqlite:///{workspace.folder / name}"))
            assert part in line
    assert everything_below(workspace.folder) == before


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("sqlite:////proc/naslite.db", "cannot be written"),
        ("sqlite:///none/naslite.db", "does not exist"),
        ("naslite.db", "must be a URL"),
        ("mysql://host/db", "must be one of sqlite, postgresql"),
    ],
)
def test_a_store_that_cannot_be_used(naslite, workspace, url, part):
    path = workspace.config()
    before = everything_below(workspace.folder)
    assert part in one_line(naslite("run", path, "--store", url))
    assert everything_below(workspace.folder) == before


def test_a_name_already_used_names_resume(naslite, finished):
    before = everything_below(finished.folder)
    result = naslite("run", finished.folder / "toy.yaml", "--store", finished.store)
    assert "continue it with `naslite resume toy`" in one_line(result)
    assert everything_below(finished.folder) == before


def test_debug_shows_the_traceback(workspace):
    with pytest.raises(Exception, match="does not exist"):
        main(["--debug", "run", "none.yaml"])


# Running


def test_init_check_and_run_work_as_written(naslite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = naslite("init", "mine")
    assert code == 0
    assert "naslite check mine/search.yaml" in out
    written = (tmp_path / "mine" / "task.py").read_text().split("class MyTask")[1]
    user_code = [
        line for line in written.split("\n") if line.strip() and not line.strip().startswith("#")
    ]
    assert len(user_code) <= 15
    assert "exists and is kept" in one_line(naslite("init", "mine"))
    code, out, _ = naslite("check", "mine/search.yaml")
    assert code == 0
    for part in (
        "structured_pruning.ratio",
        "space: 24 candidates",
        "structured_pruning -> distillation -> export -> onnx_quantization",
        "12 trials",
        "ready",
    ):
        assert part in out
    assert not (tmp_path / "naslite.db").exists()
    code, out, _ = naslite(
        "run", "mine/search.yaml", "--trials", 2, "--name", "short", "--seed", 5
    )
    assert code == 0
    assert "study short finished: all 2 trials are done" in out
    assert "front of short" in out
    study = open_study("short").study
    assert (study.seed, study.trials) == (5, 2)
    baseline = open_study("short").baseline()
    assert baseline is not None
    assert baseline.metrics["accuracy"] > 0.85


def test_hints_name_a_store_that_is_not_the_default(naslite, workspace):
    other = f"sqlite:///{workspace.folder / 'other.db'}"
    _, out, _ = naslite("run", workspace.config(), "--trials", 1, "--store", other)
    assert f"DIR --store {other}` for the files" in out
    path = workspace.config("second.yaml", study="second", store="sqlite:///third.db")
    _, out, _ = naslite("run", path, "--trials", 1)
    assert f"--store sqlite:///{workspace.folder / 'third.db'}`" in out


def test_a_total_below_what_is_done_is_refused(naslite, finished):
    line = one_line(naslite("resume", "toy", "--trials", 3, "--store", finished.store))
    assert "6 of 'toy' are there already, got 3" in line


def test_without_a_verb_the_help_comes(naslite):
    code, out, err = naslite()
    assert (code, err) == (2, "")
    assert "Usage: naslite" in out


def test_rm_removes_the_study_and_its_files(naslite, workspace):
    naslite("run", workspace.config(), "--trials", 1)
    artifacts = workspace.folder / "naslite.db.files" / "artifacts"
    assert list(artifacts.rglob("model.onnx"))
    code, out, _ = naslite("rm", "toy")
    assert code == 0
    assert "removed study toy" in out
    assert not list(artifacts.rglob("model.onnx"))
    assert "unknown study" in one_line(naslite("best", "toy"))


def comparable(results: StudyResults) -> list[tuple]:
    return [
        (
            row.number,
            dict(row.trial.candidate),
            row.trial.state,
            row.metrics["accuracy"],
            row.metrics["size_bytes"],
            row.trial.artifact.sha256 if row.trial.artifact else None,
        )
        for row in results.rows()
    ]


def start(*arguments: object) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def wait_for(process: subprocess.Popen, text: str) -> str:
    seen = ""
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"{text!r} did not come; got\n{seen}")


def test_ctrl_c_then_resume_equals_the_uninterrupted_study(workspace, finished):
    process = start("run", workspace.config())
    wait_for(process, "trial 2/6")
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert "continue with `naslite resume toy`" in out
    results = open_study("toy")
    assert results.state == "interrupted"
    assert len(results.rows()) < 7
    done = subprocess.run([*PROGRAM, "resume", "toy"], capture_output=True, text=True, check=True)
    assert "study toy finished" in done.stdout
    assert comparable(open_study("toy")) == comparable(open_study("toy", store=finished.store))


def test_stop_from_another_terminal_then_resume_with_a_new_total(naslite, workspace, caplog):
    process = start("run", workspace.config())
    wait_for(process, "trial 1/6")
    assert "is being run by process" in one_line(naslite("rm", "toy"))
    code, out, _ = naslite("stop", "toy")
    assert code == 0
    assert "asked toy to stop" in out
    out, _ = process.communicate()
    assert process.returncode == 0
    assert "study toy stopped" in out
    assert open_study("toy").state == "stopped"
    done = len(open_study("toy").rows())
    code, out, _ = naslite("resume", "toy", "--trials", done)
    assert code == 0
    assert len(open_study("toy").rows()) == done + 1
    assert naslite("resume", "toy")[0] == 0  # nothing left to do: prints the front
    assert naslite("resume", "toy", "--trials", done + 1, "--workers", 2)[0] == 0
    assert "has lag: 1, so of 2 workers at most 1 will have work" in caplog.text


def test_resume_refuses_a_changed_task(naslite, workspace):
    naslite("run", workspace.config(), "--trials", 1)
    task = workspace.folder / "toy_task.py"
    task.write_text(task.read_text() + "\n# changed\n")
    line = one_line(naslite("resume", "toy", "--trials", 2))
    assert "is not the one that study 'toy' was created with" in line
    results = open_study("toy")
    assert (results.state, len(results.rows())) == ("finished", 2)
