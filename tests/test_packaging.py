from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGES = {"search", "strategies", "compressors", "storage"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    for name in filter(None, listed):
        target = source / name
        if (REPOSITORY / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
            *("-w", str(folder), str(source)),
        ],
        check=True,
        env={**os.environ, "PIP_NO_INDEX": "1"},
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_holds_our_four_packages_and_nothing_else(wheel):
    assert {Path(name).parts[0] for name in wheel if ".dist-info" not in name} == PACKAGES


def test_the_wheel_holds_every_module_and_template(wheel):
    ours = [
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sorted(set(ours) - set(wheel)) == []


def test_no_source_file_is_longer_than_350_lines():
    long = [
        str(path)
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        if len(path.read_text().splitlines()) > 350
    ]
    assert long == []
