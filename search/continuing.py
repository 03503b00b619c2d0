"""Longer trainings of rows of a study, which `resume` asks for with more epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from compressors.base import TrainingCompressor
from strategies.space import SpaceError, candidate_key

from .errors import NasliteError
from .stages import EPOCHS, Step

if TYPE_CHECKING:
    from .results import StudyResults
    from .task import LoadedTask


def longer_candidates(
    results: StudyResults,
    pipeline: Sequence[Step],
    loaded: LoadedTask,
    epochs: int,
    where: str | None = None,
) -> list[dict[str, Any]]:
    """The candidates of some rows with each training of fewer epochs raised to so many.

    The rows are the front, or those that meet `where`; what does not train stays untrained. What
    the study has evaluated, or is about to, is left out. The candidates need not lie in the
    study's space: only their compressors limit their epochs.

    Returns:
        Nothing if all that are missing wait already, so that asking twice asks once.

    Raises:
        ExpressionError: `where` is malformed or names something unknown.
        NasliteError: The study trains nothing, a compressor takes no such number of epochs, or
            no row would be trained for longer.
    """
    knobs = _epoch_knobs(results.name, pipeline, loaded, epochs)
    rows = [row for row in results.best(where) if row.number]
    wanted: dict[str, dict[str, Any]] = {}
    for row in rows:
        candidate = _raised(row.trial.candidate, knobs, epochs)
        if candidate != row.trial.candidate:
            wanted[candidate_key(candidate)] = candidate
    waiting = _keys(results, "queued", "running") | _asked(results)
    ended = _keys(results, "complete", "refused")
    found = [c for key, c in wanted.items() if key not in waiting | ended]
    if not found and waiting.isdisjoint(wanted):
        raise NasliteError(_nothing(results.name, len(rows), len(wanted), epochs, where))
    return found


def _keys(results: StudyResults, *states: str) -> set[str]:
    return {candidate_key(r.trial.candidate) for r in results.rows() if r.trial.state in states}


def _asked(results: StudyResults) -> set[str]:
    """What was asked for before, and is not a trial yet."""
    requests = results.store.requests(results.study)
    payloads = [request.payload for request in requests if request.kind == "continue"]
    return {candidate_key(c) for payload in payloads for c in payload["candidates"]}


def _nothing(name: str, rows: int, known: int, epochs: int, where: str | None) -> str:
    which = "on the front" if where is None else f"that meet {where}"
    counted = f"{rows or 'no'} compressed row{'s' * (rows != 1)} {which}"
    if known:
        counted += f", of which {known} had so many in other trials"
    return (
        f"--epochs {epochs} lengthens no training of {name!r} ({counted}): give more epochs than"
        " the rows have, or choose rows that train with --where"
    )


def _raised(candidate: Mapping[str, Any], knobs: Sequence[str], epochs: int) -> dict[str, Any]:
    longer = {knob: epochs for knob in knobs if 0 < candidate.get(knob, 0) < epochs}
    return {**candidate, **longer}


def _epoch_knobs(
    name: str, pipeline: Sequence[Step], loaded: LoadedTask, epochs: int
) -> list[str]:
    """The names of the knobs that say how many epochs a compressor trains.

    Raises:
        NasliteError: There are none, or one takes no such number.
    """
    found = []
    for step in pipeline:
        if not isinstance(step.compressor, TrainingCompressor):
            continue
        for knob in step.compressor.knobs(loaded.model, loaded.task):
            if knob.name == EPOCHS:
                try:
                    knob.resolve(epochs)
                except SpaceError as error:
                    raise NasliteError(f"--epochs, for {step.name}: {error}") from None
                found.append(f"{step.name}.{EPOCHS}")
    if not found:
        names = ", ".join(step.name for step in pipeline)
        raise NasliteError(
            "--epochs needs a compressor that trains for a number of epochs, such as"
            f" distillation, got {names} in study {name!r}; leave it away"
        )
    return found
