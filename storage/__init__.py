"""What happened? Studies, trials and measurements in SQL; artifacts and cached stages as files."""

from __future__ import annotations

from .errors import (
    CorruptFiles,
    ForeignDatabase,
    NameTaken,
    NoStore,
    StoreError,
    StudyBusy,
    UnknownStudy,
    UnknownTrial,
)
from .records import (
    Artifact,
    Extension,
    Facts,
    File,
    Known,
    Measurement,
    NewStudy,
    Outcome,
    Request,
    StageRun,
    Study,
    StudySummary,
    Trial,
)
from .store import Store

__all__ = [
    "Artifact",
    "CorruptFiles",
    "Extension",
    "Facts",
    "File",
    "ForeignDatabase",
    "Known",
    "Measurement",
    "NameTaken",
    "NewStudy",
    "NoStore",
    "Outcome",
    "Request",
    "StageRun",
    "Store",
    "StoreError",
    "Study",
    "StudyBusy",
    "StudySummary",
    "Trial",
    "UnknownStudy",
    "UnknownTrial",
]
