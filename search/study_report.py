"""What a report says of a study, as plain data: the same for every format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compressors import PACKED_ONLY
from storage.database import files_folder

from .causes import Cause
from .formats import format_value
from .headline import Headline, by_metric, headline, is_share
from .hypervolume import Progress, progress
from .knob_importance import Importance, importance
from .metrics import AUDIT, RATIO
from .optimism import optimism
from .redaction import mapped, redactor
from .report_figures import Lines, Points, is_audit, label, lines, points
from .results import Row, StudyResults
from .study_costs import (
    StageCost,
    config_text,
    environment,
    failures,
    session_lines,
    stage_costs,
)
from .trial_detail import Detail, detail, measured

FRONT_ROWS = 200  # of the table
LATEST = 100  # trials that have details although they are not on the front
CAUSES = 30  # of failures, the most frequent
DETAIL_VALUES = 60_000  # knobs of all details together; 1 MB or so


@dataclass(frozen=True, slots=True)
class FrontRow:
    """A row of the table of the front.

    Args:
        cells: Value and interval by metric, audit metrics among them.
        verdicts: By constraint.
    """

    number: int
    candidate: str
    cells: Mapping[str, str]
    verdicts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StudyReport:
    """Everything that a report says; see `study_report`.

    Args:
        notes: What is missing, and why.
        score_is_share: Whether the baseline's score is a share of 1.
        optimism: By how much the best of the front is expected to look better than it is.
    """

    name: str
    score_name: str
    state: str
    counts: Mapping[str, int]
    budget: str
    notes: tuple[str, ...]
    objectives: Mapping[str, str]
    constraints: tuple[str, ...]
    headline: Headline | None
    columns: tuple[str, ...]
    front: tuple[FrontRow, ...]
    front_size: int
    optimism: float | None
    score_is_share: bool
    points: Points
    progress: Progress | None
    lines: Lines | None
    importance: tuple[Importance, ...]
    failures: tuple[Cause, ...]
    stages: tuple[StageCost, ...]
    environment: tuple[tuple[str, str], ...]
    sessions: tuple[tuple[str, ...], ...]
    config: str
    details: tuple[Detail, ...]


def study_report(results: StudyResults, notes: Sequence[str] = ()) -> StudyReport:
    """Read a study once, and say everything about it that others may see: no absolute path and
    no password is in it.

    Args:
        notes: What else is to be said, such as which files are damaged.
    """
    study, rows, front = results.study, results.rows(), results.front()
    sessions = results.store.sessions(study)
    counts = Counter(row.trial.state for row in rows)
    names = [*results.goals.names]
    score = study.facts["score_name"]
    baseline = results.baseline()
    found = importance(study.space, rows, names, study.seed)
    report = StudyReport(
        name=results.name,
        score_name=score,
        state=results.state,
        counts=dict(counts),
        budget=f"{study.trials} trials" + (f", {study.minutes:g} min" if study.minutes else ""),
        notes=(*notes, *_notes(results, rows, front)),
        objectives=results.goals.objectives,
        constraints=tuple(map(str, results.goals.constraints)),
        headline=headline(results, front),
        columns=_columns(results, front),
        front=tuple(_front_row(results, row) for row in front[:FRONT_ROWS]),
        front_size=len(front),
        optimism=optimism(results),
        score_is_share=baseline is not None and is_share(score, baseline.metrics[score]),
        points=points(results, rows),
        progress=progress(results.goals, rows, sessions),
        lines=lines(results, rows, found),
        importance=tuple(found),
        failures=tuple(failures(rows)[:CAUSES]),
        stages=tuple(stage_costs(rows)),
        environment=tuple(environment(study)),
        sessions=tuple(session_lines(sessions)),
        config=config_text(study),
        details=tuple(detail(results, row) for row in _detailed(rows, front)),
    )
    folders = [str(study.config.get("folder", "")), str(files_folder(results.store.url))]
    clean: StudyReport = mapped(report, redactor(folders))
    return clean


def _notes(results: StudyResults, rows: Sequence[Row], front: Sequence[Row]) -> list[str]:
    study, found = results.study, []
    if results.state == "running":
        found.append("The study is running: this is what was stored when the report was written.")
    elif results.state in ("interrupted", "stopped", "failed"):
        cause = f": {study.cause}" if study.cause else ""
        again = "" if results.state == "failed" else "; `naslite resume` continues it"
        found.append(f"The study is {results.state}{cause}{again}.")
    ended = [row for row in rows if row.trial.state not in ("queued", "running")]
    complete = [row for row in ended if row.trial.state == "complete"]
    if not ended:
        found.append("No trial has ended yet, so there is nothing to show.")
    elif results.baseline() is None:
        found.append("The uncompressed baseline has no measurements, so nothing is compared.")
    elif len(complete) == 1:
        found.append("No candidate is complete yet: only the uncompressed baseline is shown.")
    if front and not any(row.is_feasible for row in front):
        found.append("No row is within the limits; the front shows the least violation.")
    if len(front) > FRONT_ROWS:
        found.append(f"The table shows {FRONT_ROWS} of the {len(front)} rows of the front.")
    active = {name for row in front for name in _packed_only(results, row)}
    if active:
        found.append(
            f"What {' and '.join(sorted(active))} did is smaller only when a file is packed"
            " (size_zstd_bytes), and never faster."
        )
    reasons = len(failures(rows))
    if reasons > CAUSES:
        found.append(f"The table of failures shows {CAUSES} of {reasons} causes.")
    return found


def _packed_only(results: StudyResults, row: Row) -> list[str]:
    """Those of PACKED_ONLY that a candidate uses."""
    neutral = {knob["name"]: knob["neutral"] for knob in results.study.space}
    used = {
        name.partition(".")[0]
        for name, value in row.trial.candidate.items()
        if value != neutral.get(name)
    }
    return [name for name in PACKED_ONLY if name in used]


def _columns(results: StudyResults, front: Sequence[Row]) -> tuple[str, ...]:
    """What the study is after, then the other main metrics, with those of the audit split."""
    known = {m.metric for row in front for m in row.trial.measurements}
    shown, asked = results.shown_metrics, results.goals.names
    found = [name for name in asked if name in shown]  # what the study is after stands first
    for name in [*asked, *shown]:
        twin = f"{AUDIT}{name}"
        found += [other for other in (name, twin) if other in known or other in shown]
    return tuple(dict.fromkeys(found))


def _front_row(results: StudyResults, row: Row) -> FrontRow:
    cells = {name: measured(m) for name, m in by_metric(row).items()}
    return FrontRow(row.number, label(results, row), cells, row.verdicts)


def _detailed(rows: Sequence[Row], front: Sequence[Row]) -> list[Row]:
    """The trials with details: the baseline, the front, the latest, as many as there is room."""
    by_number = {row.number: row for row in rows}
    ended = [row for row in rows if row.trial.state not in ("queued", "running")]
    wanted = [*rows[:1], *front[:FRONT_ROWS], *reversed(ended[-LATEST:])]
    room, chosen = DETAIL_VALUES, []
    for number in dict.fromkeys(row.number for row in wanted):
        room -= len(by_number[number].trial.candidate) + 20
        if room < 0:
            break
        chosen.append(number)
    return [by_number[number] for number in sorted(chosen)]


def state_line(report: StudyReport) -> str:
    """`finished · budget 16 trials · 15 complete, 2 failed`."""
    counts = ", ".join(f"{n} {state}" for state, n in report.counts.items())
    return f"{report.state} · budget {report.budget} · {counts or 'no trial'}"


def optimism_text(report: StudyReport) -> str:
    """How to read the search figures: beside those of the audit, and as the best of many."""
    text = "The front was not scored on an audit split."
    if report.state == "running":
        text = "The front is scored on the audit split, if there is one, when the study ends."
    audited = [name for name in report.columns if is_audit(name)]
    if any(RATIO not in name for name in audited):
        text = "Columns named audit_ are of samples that the search never saw."
    if any(RATIO in name for name in audited):
        text += (
            f" {AUDIT}{RATIO} is of a timing after the search; the interval of {RATIO} covers it"
            " and the search's own."
        )
    if report.optimism is None:
        return text
    if not report.optimism:
        return (
            f"{text} The best scores do not vary with the samples that are drawn, as where all are"
            " right, so how much picking the best flatters cannot be estimated."
        )
    picked = report.counts.get("complete", 0) - (0 in report.points.numbers)
    flattered = format_value(report.score_name, report.optimism)
    if report.score_is_share:
        flattered = f"{100 * report.optimism:.2g} points"
    return (
        f"{text} Picking the best of {picked:,} by the search split is expected to flatter its"
        f" score by at least {flattered}."
    )


def failed_numbers(found: Cause, shown: int) -> str:
    """How many trials of a cause are not listed."""
    rest = len(found.numbers) - shown
    return f" and {rest} more" if rest > 0 else ""
