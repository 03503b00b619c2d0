"""Measuring stored files again, in fresh processes: does a study's word still hold?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import Artifact, CorruptFiles, Measurement
from storage.artifacts import describe_artifact
from storage.database import files_folder

from .agreement import DISAGREES, SHOWN, Agreement, agreements
from .build import open_study
from .errors import NasliteError
from .executor import Executor
from .file_timing import result_of, timed_alone, timing_seed
from .interrupts import Interrupts
from .jobs import Job, JobEnd, Scored, Timing
from .metrics import RATIO, Facts, measurements
from .pools import memory_share
from .results import Row, StudyResults
from .same_machine import differences
from .scratch import scratch_folder
from .timing_lock import TimingLock, default_path

if TYPE_CHECKING:
    from .prepare import Prepared

FIRST_TURN = 2  # of `timing_seed`: none that the search has had
TIMINGS = 3  # before a ratio of times is said to disagree: other work may disturb one or two


@dataclass(frozen=True, slots=True)
class Verified:
    """A row measured again.

    Args:
        problem: Why it could not be, such as files that are not those measured; else empty.
    """

    number: int
    sha256: str
    problem: str
    metrics: tuple[Agreement, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.problem and all(m.verdict != DISAGREES for m in self.metrics)

    @property
    def unjudged(self) -> int:
        """How many ratios of times were not judged, since one of the two timings was noisy."""
        return sum(
            m.verdict == SHOWN and (m.stored.noisy or m.found.noisy)
            for m in self.metrics
            if m.metric.startswith(RATIO) and m.stored and m.found
        )

    @property
    def is_to_time_again(self) -> bool:
        """Whether a ratio of times disagrees, or was found beside other work."""
        return any(
            m.verdict == DISAGREES or (m.found.noisy and not m.stored.noisy)
            for m in self.metrics
            if m.metric.startswith(RATIO) and m.stored and m.found
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "sha256": self.sha256,
            "agrees": self.agrees,
            "unjudged": self.unjudged,
            "problem": self.problem,
            "metrics": {m.metric: m.to_json() for m in self.metrics},
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """What measuring rows of a study again showed.

    Args:
        differs: What of the machine or its libraries is not as it was.
    """

    name: str
    differs: tuple[str, ...]
    rows: tuple[Verified, ...]

    @property
    def agrees(self) -> bool:
        return all(row.agrees for row in self.rows)

    @property
    def unjudged(self) -> int:
        """How many ratios of times were not judged."""
        return sum(row.unjudged for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        return {
            "study": self.name,
            "agrees": self.agrees,
            "unjudged": self.unjudged,
            "differs": list(self.differs),
            "rows": [row.to_json() for row in self.rows],
        }


def verify(
    name: str,
    number: int | None = None,
    *,
    store: str | None = None,
    said: Callable[[str], None] = lambda line: None,
) -> Verification:
    """Measure the stored files of a trial, or of the front, again; nothing is written.

    Args:
        number: Of the trial; None for all rows of the front.
        said: Called with a line when something begins.

    Raises:
        NoStore, UnknownStudy, UnknownTrial
        NasliteError: The trial has no files.
        TaskChanged, ConfigError: The task is not what it was, or cannot be loaded any more.
    """
    from .prepare import prepare_stored

    results = open_study(name, store=store)
    with closing(results.store):
        baseline, rows = _rows(results, number)
        said(f"loading task {results.study.config['task']}")
        interrupts = Interrupts()
        with interrupts.caught():
            prepared = prepare_stored(results.study, 1)
            interrupts.check()
            with study_executors(prepared, files_folder(results.store.url)) as (builders, timer):
                lock = TimingLock(default_path(), name)
                bench = Bench(results, baseline, builders, timer, lock, interrupts.check)
                return bench.verification(rows, said)


@contextmanager
def study_executors(prepared: Prepared, files: Path) -> Iterator[tuple[Executor, Executor]]:
    """A process that scores files of a study and one that times them, as its search does."""
    from .workbench import build_spec, timing_spec
    from .workers import ProcessPool

    with scratch_folder() as scratch:
        options: dict[str, Any] = {"memory_bytes": memory_share(1), "scratch": scratch}
        with (
            ProcessPool(build_spec(prepared, files), 1, **options) as builders,
            ProcessPool(timing_spec(prepared), 1, **options) as timer,
        ):
            yield builders, timer


class Bench:
    """Measures stored files again, one after the other.

    Args:
        baseline: What scores and times are compared with, itself scored again first.
        check: Called while waiting; what it raises ends everything.
    """

    def __init__(
        self,
        results: StudyResults,
        baseline: Row,
        builders: Executor,
        timer: Executor,
        lock: TimingLock,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.results = results
        self.baseline = baseline
        self._builders = builders
        self._timer = timer
        self._lock = lock
        self._check = check
        self._ids = 0
        self._scored: dict[str, Scored] = {}

    def verification(
        self, rows: Sequence[Row], said: Callable[[str], None] = lambda line: None
    ) -> Verification:
        """Measure these rows again; those whose ratio disagrees, or was found beside other work,
        are timed anew when all others have been, three times in all, and the last one counts."""
        differs = differences(self.results.store, self.results.study, (row.trial for row in rows))
        ratios = sum(
            m.metric.startswith(RATIO) and m.low != m.high
            for row in rows
            for m in row.trial.measurements
        )
        judge = {
            "score_name": self.results.study.facts["score_name"],
            "is_same_machine": not differs,
            "ratios": ratios,
        }
        found: dict[int, Verified] = {}
        for row in rows:
            said(f"measuring trial {row.number}")
            found[row.number] = self._verified(row, judge, FIRST_TURN)
        for turn in range(1, TIMINGS):
            for row in rows:
                if found[row.number].is_to_time_again:
                    said(f"timing trial {row.number} again")
                    found[row.number] = self._verified(row, judge, FIRST_TURN + turn)
        return Verification(self.results.name, tuple(differs), tuple(found.values()))

    def _verified(self, row: Row, judge: dict[str, Any], turn: int) -> Verified:
        artifact = row.trial.artifact
        assert artifact is not None
        stored, result = row.trial.measurements, Verified(row.number, artifact.sha256, "")
        try:
            before = self._score(self._artifact(self.baseline), None)
            is_baseline = artifact == self.baseline.trial.artifact
            scored = before if is_baseline else self._score(artifact, before.records)
            found = self._measurements(scored, before, artifact, self._time(artifact, turn))
            compared = agreements(stored, found, **judge)
        except (CorruptFiles, OSError, _Failed) as error:
            return replace(result, problem=str(error))
        return replace(result, metrics=compared)

    def _measurements(
        self, scored: Scored, before: Scored, artifact: Artifact, timings: tuple[Timing, ...]
    ) -> tuple[Measurement, ...]:
        facts = self.results.study.facts
        return measurements(
            Facts(
                score_name=facts["score_name"],
                higher_is_better=facts["higher_is_better"],
                scored=scored,
                baseline_score=before.score,
                size_bytes=self._shipped_bytes(artifact),
                timings=timings,
            )
        )

    def _score(self, artifact: Artifact, reference: bytes | None) -> Scored:
        if artifact.sha256 not in self._scored:
            self._main_file(artifact)
            given = (artifact,) if reference is None else (artifact, reference)
            job = self._job("score", given)
            scored: Scored = _value(result_of(self._builders, job, self._is_ended))
            if scored.stopped:
                raise _Failed(f"it is given up now: {scored.stopped}")
            self._scored[artifact.sha256] = scored
        return self._scored[artifact.sha256]

    def _time(self, artifact: Artifact, turn: int) -> tuple[Timing, ...]:
        reference = self._artifact(self.baseline)
        other = None if artifact == reference else self._main_file(reference)
        job = self._job("time", (self._main_file(artifact), other, timing_seed(artifact, turn)))
        return tuple(_value(timed_alone(self._timer, self._lock, job, self._is_ended)))

    def _job(self, method: str, arguments: tuple[Any, ...]) -> Job:
        self._ids += 1
        limit = self.results.study.config.get("limits", {}).get("timeout")
        return Job(self._ids, method, arguments, limit)

    def _is_ended(self) -> bool:
        self._check()
        return False

    def _main_file(self, artifact: Artifact) -> Path:
        """The file to load, all files having been compared with their SHA-256s."""
        folder, facts = self.results.store.artifacts.verified(artifact.sha256)
        files = [folder / file.name for file in artifact.files]
        if describe_artifact(files, artifact.format) != artifact:
            raise CorruptFiles(f"the files of artifact {artifact.sha256} are not those measured")
        return folder / str(facts["main"])

    def _shipped_bytes(self, artifact: Artifact) -> int:
        folder = self._main_file(artifact).parent
        return sum((folder / file.name).stat().st_size for file in artifact.files)

    @staticmethod
    def _artifact(row: Row) -> Artifact:
        assert row.trial.artifact is not None
        return row.trial.artifact


class _Failed(Exception):
    """A file could not be measured again."""


def _value(end: JobEnd | None) -> Any:
    assert end is not None  # only an exception ends the waiting
    if end.kind == "broken":
        raise NasliteError(f"a worker cannot begin: {end.cause}")
    if end.kind != "returned":
        raise _Failed(f"it cannot be measured: {end.cause}")
    return end.value


def _rows(results: StudyResults, number: int | None) -> tuple[Row, list[Row]]:
    """The baseline, and the rows to verify."""
    baseline = results.baseline()
    rows = results.front() if number is None else [results.row(number)]
    for row in rows:
        if row.trial.state != "complete" or row.trial.artifact is None:
            raise NasliteError(
                f"trial {row.number} of {results.name!r} has no figures to verify: it is"
                f" {row.trial.state}; `naslite best` lists those that have"
            )
    if baseline is None or not rows:
        raise NasliteError(f"study {results.name!r} has nothing to verify: no trial is complete")
    return baseline, rows
