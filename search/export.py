"""Handing over the very files that were measured, with a manifest that says what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from storage import CorruptFiles
from storage.artifacts import describe_artifact

from . import runtimes
from .errors import NasliteError
from .registry import load
from .results import Row, StudyResults

MANIFEST = "manifest.json"


def export(results: StudyResults, number: int, folder: Path) -> Path:
    """Copy a trial's artifact into a new or empty folder, beside a `manifest.json`.

    Raises:
        UnknownTrial: There is no such trial.
        NasliteError: It has no artifact, or the folder is not empty or cannot be written.
        CorruptFiles: The stored files are not the ones that were measured.
    """
    row = results.row(number)
    artifact = row.trial.artifact
    if artifact is None or row.trial.state != "complete":
        raise NasliteError(
            f"trial {number} of {results.name!r} has nothing to export: it is {row.trial.state}"
            f"{f' ({row.trial.cause})' if row.trial.cause else ''}"
        )
    try:
        stored, facts = results.store.artifacts.verified(artifact.sha256)
    except CorruptFiles as error:
        raise CorruptFiles(
            f"{error}; is the store's folder of files (NASLITE_FILES) the one"
            " that the study was run with?"
        ) from None
    files = [stored / file.name for file in artifact.files]
    if describe_artifact(files, artifact.format) != artifact:
        raise CorruptFiles(f"the files of artifact {artifact.sha256} are not those measured")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NasliteError(f"the export folder must be new or empty, but {folder} is not")
    manifest = _manifest(results, row, str(facts["main"]), stored)
    targets = [folder / file.name for file in artifact.files]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for source, target in zip(files, targets, strict=True):
            shutil.copyfile(source, target)
        if describe_artifact(targets, artifact.format) != artifact:
            raise CorruptFiles(f"copying artifact {artifact.sha256} to {folder} changed it")
        # Last: a folder without a manifest is an export that was cut short.
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise NasliteError(f"cannot export to {folder}: {error.strerror or error}") from None
    return folder


def _manifest(results: StudyResults, row: Row, main: str, stored: Path) -> dict[str, Any]:
    config, facts = results.study.config, results.study.facts
    name = config["runtime"]["name"]
    runtime = load("runtime", "runtimes", name, runtimes.BUILTIN, Path(config["folder"]))()
    record = row.to_json()
    artifact = record["artifact"]
    return {
        "study": results.name,
        "trial": row.number,
        "candidate": record["candidate"],
        "stages": [{k: s[k] for k in ("name", "options")} for s in record["stages"]],
        "metrics": record["metrics"],
        "violations": record["violations"],
        "format": artifact["format"],
        "size_bytes": artifact["size_bytes"],
        "sha256": artifact["sha256"],
        "files": artifact["files"],
        "runtime": config["runtime"],
        "measured_on": {k: facts[k] for k in ("cpu", "cores", "machine", "isa")},
        "versions": facts["versions"],
        "task": {"fingerprint": results.study.task_fingerprint, "reference": config["task"]},
        "how_to_load": runtime.loading_example(
            stored / main, threads=config["runtime"]["threads"]
        ),
    }
