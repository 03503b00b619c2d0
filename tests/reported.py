"""Studies of `doubles.SPACE` written straight into a store, for tests of reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from doubles import CONFIG, FACTS, SPACE

from search.results import StudyResults
from storage import Measurement, NewStudy, Outcome, StageRun, Store
from storage.lease import new_owner
from strategies.space import candidate_key


def complete(
    accuracy: float,
    size: float,
    ratio: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    drop: tuple[float, float] | None = None,
    baseline: float = 0.9,
    cached: bool = False,
    extra: Sequence[Measurement] = (),
) -> Outcome:
    """A trial that was measured.

    Args:
        ratio: Of latencies: value, low, high.
        drop: The bounds of the accuracy's drop.
    """
    low, high = drop or (None, None)
    value, below, above = ratio
    return Outcome(
        "complete",
        stages=(
            StageRun("prune", "a" * 64, {"level": 1}, 0.1 if cached else 4.0, cached),
            StageRun("export", "b" * 64, {}, 1.0, False),
        ),
        measurements=(
            Measurement("accuracy", accuracy, "", n=400),
            Measurement(
                "accuracy_drop", round(baseline - accuracy, 9), "", low, high, 400, level=0.9
            ),
            Measurement("size_bytes", size, "B"),
            Measurement("latency_ms", value, "ms", n=9),
            Measurement("latency_ratio", value, "", below, above, 9),
            *extra,
        ),
        seconds=6.0,
    )


BASELINE = complete(0.9, 1000)


def stored(
    folder: Path | str,
    outcomes: Sequence[Outcome | None],
    /,
    *,
    state: str = "finished",
    cause: str = "",
    sessions: Sequence[dict[str, Any]] = (),
    name: str = "s",
    facts: dict[str, Any] = {},
    **config: Any,
) -> StudyResults:
    """A study whose trials ended so; None is still running. Their candidates all differ."""
    store = Store(f"sqlite:///{Path(folder) / 'naslite.db'}")
    owner = new_owner()
    new = NewStudy(
        name, {**CONFIG, **config}, SPACE.to_json(), "f" * 64, 0, 20, None, {**FACTS, **facts}
    )
    study = store.create_study(new, owner)
    for session in sessions:
        store.add_session(study, owner, 0, session)
    for number, outcome in enumerate(outcomes):
        scheme = "int8" if number % 20 >= 10 else "none"
        candidate = {"prune.level": number % 10, "quantize.scheme": scheme}
        store.propose(study, owner, number, candidate, f"{candidate_key(candidate)}{number}")
        if outcome is not None:
            store.finish(study, owner, number, outcome)
    if state != "running":
        store.release(study, owner, state, cause)
    return StudyResults(store, name)
