"""What starts fast, and what a user's own files cannot break."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "optuna", "deap", "moocore", "sklearn", "scipy")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["ls"],
        ["best", "toy"],
        ["trials", "toy"],
        ["show", "toy", "1"],
        ["report", "toy", "--format", "md"],
        ["replay", "toy"],
    ],
)
def test_verbs_that_read_start_without_torch(finished, arguments):
    # Greedy ranks with moocore; a report has a hypervolume, and importances where there is enough.
    allowed = {"replay": {"moocore"}, "report": {"moocore", "optuna", "sklearn", "scipy"}}
    unwanted = sorted(set(HEAVY) - allowed.get(arguments[0], set()))
    program = f"""
import sys
from search.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert end.code == 0, end.code
heavy = [name for name in {unwanted!r} if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run(
        [sys.executable, "-c", program], cwd=finished.folder, check=True, capture_output=True
    )


def test_the_python_api_is_lazy():
    program = """
import sys
import search
assert "search.build" not in sys.modules
from search import check, open_study, resume, run
assert "torch" not in sys.modules
assert callable(run)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_file_of_the_user_that_shadows_a_package_is_named(tmp_path):
    (tmp_path / "storage.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import search"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"Python finds {tmp_path / 'storage.py'}; rename that file" in done.stderr


def test_unknown_attributes_are_errors():
    import search

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = search.nothing
