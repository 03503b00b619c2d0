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


def continued(
    results: StudyResults,
    pipeline: Sequence[Step],
    loaded: LoadedTask,
    epochs: int,
    where: str | None = None,
) -> list[dict[str, Any]]:
    """The candidates of some rows with each training of fewer epochs raised to so many.

    The rows are the front, or those that meet `where`. What does not train stays untrained.
    Candidates that the study has already are left out. They need not lie in the study's space:
    only their compressors limit their epochs.

    Raises:
        ExpressionError: `where` is malformed or names something unknown.
        NasliteError: The study trains nothing, a compressor takes no such number of epochs, or
            there is no candidate left.
    """
    name = results.name
    trainings = [step for step in pipeline if isinstance(step.compressor, TrainingCompressor)]
    knobs = [knob for step in trainings if (knob := _checked(step, loaded, epochs))]
    if not knobs:
        names = ", ".join(step.name for step in pipeline)
        raise NasliteError(
            "--epochs needs a compressor that trains for a number of epochs, such as"
            f" distillation, got {names} in study {name!r}; leave it away"
        )
    rows = [row for row in results.best(where) if row.number]
    known = {candidate_key(row.trial.candidate) for row in results.rows()}
    found = []
    for row in rows:
        candidate = _raised(row.trial.candidate, knobs, epochs)
        if candidate_key(candidate) not in known:
            known.add(candidate_key(candidate))
            found.append(candidate)
    if not found:
        had = [row.trial.candidate.get(knob, 0) for row in rows for knob in knobs]
        longest = f", the longest training has {max(had)} epochs" if any(had) else ""
        which = "on the front" if where is None else f"where {where}"
        raise NasliteError(
            f"--epochs {epochs} would lengthen no training of {name!r}: {len(rows)} compressed"
            f" rows {which}{longest}; give more epochs, or choose other rows with --where"
        )
    return found


def _raised(candidate: Mapping[str, Any], knobs: Sequence[str], epochs: int) -> dict[str, Any]:
    longer = {knob: epochs for knob in knobs if 0 < candidate.get(knob, 0) < epochs}
    return {**candidate, **longer}


def _checked(step: Step, loaded: LoadedTask, epochs: int) -> str | None:
    """The name of the step's knob for epochs; None if it has none.

    Raises:
        NasliteError: It takes no such number.
    """
    for knob in step.compressor.knobs(loaded.model, loaded.task):
        if knob.name == EPOCHS:
            try:
                knob.resolve(epochs)
            except SpaceError as error:
                raise NasliteError(f"--epochs, for {step.name}: {error}") from None
            return f"{step.name}.{EPOCHS}"
    return None
