"""Real faults in real studies: what is tried at which stage, and what must come of it.

`python tests/fault_matrix.py` tries all of them and writes docs/fault_matrix.md; it needs the
right to mount file systems in a namespace.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faulty_study import (
    ARTIFACTS,
    MEMORY_MB,
    STAGES,
    TESTS,
    TIMEOUT_S,
    Ended,
    can_mount,
    search,
)

from search.results import Row

# Where a fault strikes -> the stage that the trial's cause must name.
STAGE_OF = {
    "prune": "structured_pruning",
    "distil": "distillation",
    "export": "export",
    "quantize": "onnx_quantization",
    "score": "measure",
    "time": "measure",
}
PLACES = tuple(STAGE_OF)
BUILDING = PLACES[:4]

PRUNED = {"structured_pruning.ratio": 0.5}
TRAINED = {**PRUNED, "distillation.epochs": 1}
QUANTIZED = {**TRAINED, "onnx_quantization.scheme": "static"}
# They share their first stages with the trials that fail.
HEALTHY: list[dict[str, Any]] = [
    PRUNED,
    {**TRAINED, "onnx_quantization.scheme": "dynamic"},
    QUANTIZED,
    {"structured_pruning.ratio": 0.25, "onnx_quantization.scheme": "static"},
    {"distillation.epochs": 1},
]

# Fault -> what the documentation calls it.
TITLES = {
    "raise": "Python exception",
    "exit": "`sys.exit()`",
    "sigkill": "SIGKILL",
    "segfault": "segmentation fault",
    "hang": "hang",
    "memory": "memory without end",
    "nan": "NaN in the weights or outputs",
    "nan records": "NaN in the task's records",
    "odd": "a plug-in gives back something else than it should",
    "disk": "disk full: scratch files",
    "cache full": "disk full: stage cache",
    "artifacts full": "disk full: artifacts",
    "cache read-only": "stage cache read-only",
    "entry truncate": "cached result truncated",
    "entry flip": "bit of a cached result flipped",
    "truncate once": "artifact truncated after it was written",
    "flip once": "bit of an artifact flipped after it was written",
    "truncate always": "artifact truncated whenever it is written",
}
DEATHS = {
    "sigkill": "worker died (signal 9)",
    "segfault": "worker died (signal 11)",
    "memory": f"used N, more than limits.memory = {MEMORY_MB / 1000:g} GB",
}
ODD = {
    "prune": "TypeError: cannot unpack non-iterable NoneType object",
    "distil": "TypeError: cannot unpack non-iterable NoneType object",
    "quantize": "ValueError: it wrote no model.onnx",
    "score": "ValueError: could not convert string to float: 'many'",
}
ERRORS = {"raise": "ValueError: deliberate", "exit": "SystemExit: 3"}
FULL = (28, "No space left on device") if can_mount() else (27, "File too large")
STRIKES = [
    *((place, fault) for place in PLACES for fault in (*ERRORS, *DEATHS, "hang")),
    *((place, "nan") for place in PLACES if place != "time"),
    ("score", "nan records"),
    *((place, "odd") for place in PLACES if place != "time"),
]
FILLINGS = [(place, "disk") for place in PLACES]
# At the others: a trial that went through this place last has its artifact damaged before it is
# scored; at `time`, after that.
DAMAGES = [
    *((place, f"{how} once") for how in ("truncate", "flip") for place in (*BUILDING, "time")),
    ("score", "truncate always"),
    ("time", "truncate always"),
]


@dataclass(frozen=True, slots=True)
class Cell:
    """How a trial ended.

    Args:
        cause: With `N` for what differs from run to run.
    """

    state: str
    cause: str = ""
    attempts: int = 1


def cell(row: Row) -> Cell:
    cause = re.sub(r"used [\d.]+ [MG]B", "used N", row.trial.cause)
    cause = re.sub(r"(?<=left on device): '.*", "", cause)  # of a copy: both paths
    cause = re.sub(r"/\S*/(?=model\.onnx)", "", cause)
    cause = re.sub(r"has \d+ bytes, not \d+", "has N bytes, not N", cause)
    return Cell(row.trial.state, cause, row.trial.attempt)


def candidate(place: str, fault: str) -> dict[str, Any]:
    """What is enqueued to let a fault strike at a place."""
    if (place, fault) in DAMAGES:
        compressed: Mapping[str, Any] = {
            "prune": PRUNED,
            "distil": {"distillation.epochs": 1},
            "export": {},
            "quantize": {"onnx_quantization.scheme": "static"},
        }.get(place, QUANTIZED)
        return {**compressed, "marked_file.fault": f"{_moment(place)} {fault}"}
    if place == "prune":
        return {**PRUNED, "structured_pruning.fault": fault}
    if place == "distil":
        return {**TRAINED, "distillation.fault": fault}
    if place == "export":
        return {**TRAINED, "marked_model.fault": fault}
    if place == "quantize":
        return {**QUANTIZED, "onnx_quantization.fault": fault}
    return {**QUANTIZED, "marked_file.fault": f"{place} {fault}"}


def expected(place: str, fault: str) -> Cell:
    """What must come of the trial."""
    stage = STAGE_OF[place]
    if fault in DEATHS:
        return Cell("failed", f"{DEATHS[fault]} in stage {stage}", attempts=2)
    if fault in ERRORS:
        return Cell("failed", f"{stage}: {ERRORS[fault]}")
    if fault == "hang":
        return Cell("failed", f"no result after {TIMEOUT_S} s (limits.timeout) in stage {stage}")
    if fault == "disk" and place in ("prune", "distil"):  # written by a library in Rust
        error = f"I/O error: {FULL[1]} (os error {FULL[0]})"
        return Cell("failed", f"{stage}: SafetensorError: Error while serializing: {error}")
    if fault == "disk":
        return Cell("failed", f"{stage}: OSError: [Errno {FULL[0]}] {FULL[1]}")
    if fault == "nan" and place in ("prune", "distil"):
        error = "ValueError: the weights of 'stem.weight' hold NaN or infinite values"
        return Cell("failed", f"{stage}: {error}")
    if fault == "nan" and place == "export":
        return Cell(
            "refused",
            "export: the exported file's outputs hold NaN, the model's do not",
        )
    if fault == "nan":  # of a quantized file: found where its outputs are looked at
        return Cell("failed", "measure: ValueError: the model's outputs hold NaN")
    if fault == "nan records":
        return Cell("failed", "measure: ValueError: records() gave NaN or infinite values")
    if fault == "odd" and place == "export":
        return Cell("complete")  # no note instead of an empty one
    if fault == "odd":
        return Cell("failed", f"{stage}: {ODD[place]}")
    if fault == "truncate always":
        return Cell("failed", "measure: CorruptFiles: model.onnx has N bytes, not N")
    assert fault in ("truncate once", "flip once")
    return Cell("complete")


def mixed(trials: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The candidates of faulty trials, with the healthy ones among them."""
    found = [candidate(*trial) for trial in trials]
    for position, healthy in enumerate(HEALTHY):
        found.insert((position + 1) * len(found) // len(HEALTHY), healthy)
    return found


def reference(folder: Path) -> Ended:
    """A study without faults: what all others must agree with."""
    survivors = [candidate(*trial) for trial in DAMAGES if expected(*trial).state == "complete"]
    return search(folder, [*HEALTHY, *survivors], armed=False)


def struck(folder: Path, trials: Sequence[tuple[str, str]] = STRIKES) -> Ended:
    candidates = mixed(trials)
    return search(folder, candidates, workers=2, lag=len(candidates))  # a hang holds up no other


def filled_and_damaged(folder: Path) -> Ended:
    """With one worker: on a full disk, whatever runs at the same time fails, too."""
    return search(folder, mixed([*FILLINGS, *DAMAGES]))


# What is done to the disk of a whole study.
DISKS = {
    "cache full": f"mkdir -p {STAGES} && mount -t tmpfs -o size=48k tmpfs {STAGES}",
    "cache read-only": f"mkdir -p {STAGES} && mount -t tmpfs -o ro tmpfs {STAGES}",
    "artifacts full": f"mkdir -p {ARTIFACTS} && mount -t tmpfs -o size=64k tmpfs {ARTIFACTS}",
}


def on_disk(folder: Path, fault: str) -> Ended:
    """A study whose folders are as the fault says."""
    if fault == "cache is a file":
        path = folder / STAGES
        path.parent.mkdir(parents=True)
        path.touch()
        return search(folder, HEALTHY)
    return search(folder, HEALTHY, mounts=[DISKS[fault]])


# Trial -> the trial and the stage whose cached result is damaged when it has ended. The next one
# needs that very result.
CACHE_TRIALS: list[dict[str, Any]] = [
    QUANTIZED,
    {**QUANTIZED, "marked_file.fault": "harmless"},
    {**TRAINED, "onnx_quantization.scheme": "dynamic"},
    {**TRAINED, "marked_model.fault": "harmless"},
    {**PRUNED, "distillation.epochs": 2},
]
CACHE_DAMAGES = {1: "onnx_quantization", 2: "export", 3: "distillation", 4: "structured_pruning"}


def with_damaged_cache(folder: Path, how: str, *, armed: bool = True) -> Ended:
    """A study in whose cache a stage of the first trial is damaged before the next one uses it."""
    damages = {number: [1, stage] for number, stage in CACHE_DAMAGES.items()}
    script = [sys.executable, "damaging_run.py", how, json.dumps(damages)]
    return search(folder, CACHE_TRIALS, armed=armed, program=script)


Cells = dict[tuple[str, str], Cell]


def cells_of(study: Ended, trials: Sequence[tuple[str, str]]) -> Cells:
    """What became of each of the faulty trials of a study."""
    return {trial: cell(study.row(candidate(*trial))) for trial in trials}


def cells_on_disk(study: Ended, fault: str) -> Cells:
    """What became of the trials that no stage of which could be cached, or no file stored."""
    if fault == "artifacts full":
        rows = [row for row in study.rows() if row.trial.state != "complete"]
        places = {stage: place for place, stage in STAGE_OF.items()}
        return {(places[row.trial.stages[-1].name], fault): cell(row) for row in rows}
    last = study.row(HEALTHY[2])
    assert [stage.name for stage in last.trial.stages] == [STAGE_OF[p] for p in BUILDING]
    return {(place, fault): cell(last) for place in PLACES}


def cells_of_damaged_cache(study: Ended, how: str) -> Cells:
    """What became of the trials that needed a damaged result."""
    places = {stage: place for place, stage in STAGE_OF.items()}
    rows = study.rows()
    return {
        (places[stage], f"entry {how}"): cell(rows[number + 1])
        for number, stage in CACHE_DAMAGES.items()
    }


def document(cells: Cells) -> str:
    """The page that says what becomes of which fault at which place."""
    lines = [PAGE, "| fault | at | the trial | its cause |", "|---|---|---|---|"]
    for fault, title in TITLES.items():
        alike: dict[Cell, list[str]] = {}
        for place in PLACES:
            if (place, fault) in cells:
                found = cells[place, fault]
                words = re.sub(rf"^{STAGE_OF[place]}(?=:)", "STAGE", found.cause)
                words = re.sub(rf"(?<=in stage ){STAGE_OF[place]}$", "STAGE", words)
                alike.setdefault(replace(found, cause=words), []).append(place)
        for found, places in alike.items():
            at = "everywhere" if places == list(PLACES) else ", ".join(places)
            times = "" if found.attempts == 1 else f", begun {found.attempts} times"
            cause = f"`{found.cause}`" if found.cause else ""
            lines.append(f"| {title} | {at} | {found.state}{times} | {cause} |")
    return "\n".join(lines) + "\n"


PAGE = """\
# What becomes of a trial with a fault

Written by `python tests/fault_matrix.py`, which lets each fault happen in real studies;
`tests/test_reliability_faults.py` compares. Every study finished, `naslite run` ended with code 0,
and the other trials gave the values and the files, byte by byte, of a study without faults.

*prune*, *distil*, *export* and *quantize* are the stages of a build; *score* and *time* are the
two jobs of measuring, in different processes. `STAGE` stands for the stage's name
(`structured_pruning`, `distillation`, `export`, `onnx_quantization`; `measure` for both jobs), `N`
for a number. A trial whose worker dies is begun once more (`limits.max_attempts: 2`), one with an
error is not. What is `complete` has the values and the files that it has without the fault:
what was damaged is made again, what cannot be cached is computed anew.
"""


def all_cells(folder: Path) -> Cells:
    """Let every fault happen, each in studies below a folder."""
    faulty = [*FILLINGS, *DAMAGES]
    cells = cells_of(struck(folder / "struck"), STRIKES)
    cells |= cells_of(filled_and_damaged(folder / "filled"), faulty)
    for fault in DISKS:
        cells |= cells_on_disk(on_disk(folder / fault.replace(" ", "-"), fault), fault)
    for how in ("truncate", "flip"):
        cells |= cells_of_damaged_cache(with_damaged_cache(folder / how, how), how)
    return cells


def _moment(place: str) -> str:
    return "scored" if place == "time" else "built"


if __name__ == "__main__":
    if not can_mount():
        sys.exit("cannot mount file systems in a namespace: some faults cannot be tried here")
    with tempfile.TemporaryDirectory() as name:
        page = document(all_cells(Path(name)))
    (TESTS.parent / "docs" / "fault_matrix.md").write_text(page)
