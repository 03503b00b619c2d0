"""Candidates to evaluate first: read from a file, and resolved in the study's space."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from strategies.space import Space, SpaceError, Value, candidate_key

from .errors import NasliteError, Problem
from .registry import unknown_name

log = logging.getLogger("naslite.search")


def load_candidates(path: str | Path) -> list[Any]:
    """The list in a JSON file of candidates, or of trials as `best --format json` prints them.

    Raises:
        NasliteError: The file cannot be read, is not JSON, or holds no list.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise NasliteError(f"{path}: cannot read the candidates: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # JSON, or its encoding
        raise NasliteError(f"{path}: the file of candidates is not JSON: {error}") from None
    if not isinstance(content, list):
        raise NasliteError(
            f"{path}: must hold a JSON list of candidates, or of trials as `naslite best NAME"
            f" --format json` prints them, got {type(content).__name__}"
        )
    return content


def resolve(
    entries: Sequence[Any], space: Space, problems: list[Problem]
) -> list[dict[str, Value]]:
    """The canonical candidates that `entries` mean, in their order; problems join `problems`.

    An entry is a candidate, or a trial with a `candidate`; the baseline among trials (number 0)
    is left out, being trial 0 of every study, and so is a continued training, with a warning,
    where the space does not have so many epochs. A knob that an entry does not give is as little
    compressed as the space allows; one that would not be active is a problem: somebody who gave
    it meant another candidate.
    """
    seen = {candidate_key(space.baseline()): "the uncompressed baseline, which is trial 0"}
    found = []
    for position, entry in enumerate(entries):
        path = f"enqueue.{position}"
        if not isinstance(entry, Mapping):
            problems.append(Problem(path, f"must be knobs and values, got {entry!r}"))
            continue
        if "candidate" in entry and entry.get("number") == 0:
            continue
        given = entry.get("candidate", entry)
        if not isinstance(given, Mapping):
            problems.append(
                Problem(f"{path}.candidate", f"must be knobs and values, got {given!r}")
            )
            continue
        wrong = _problems(given, space, path)
        if wrong and entry.get("origin") == "continued":
            log.warning("%s is left out, being a longer training than this space has", path)
            continue
        problems += wrong
        if wrong:
            continue
        candidate = space.complete(given)
        key = candidate_key(candidate)
        if key in seen:
            problems.append(Problem(path, f"means the same as {seen[key]}; remove it"))
            continue
        seen[key] = path
        found.append(candidate)
    return found


def _problems(given: Mapping[str, Any], space: Space, path: str) -> list[Problem]:
    found = []
    for name, value in given.items():
        try:
            if name in space:
                space[name].normal(value)
            else:
                known = [knob.name for knob in space]
                found.append(Problem(f"{path}.{name}", unknown_name("knob", name, known)))
        except SpaceError as error:
            found.append(Problem(f"{path}.{name}", str(error)))
    if found:
        return found
    candidate = space.complete(given)
    for name in given:
        when = space[name].active_when
        if name not in candidate and when is not None:
            needs = f"{when.knob} {when.op} {when.value!r}"
            text = (
                f"is not active in this candidate, it needs {needs}; give that too, or remove it"
            )
            found.append(Problem(f"{path}.{name}", text))
    return found
