"""What an earlier study found out, as known facts of a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storage import Known, Outcome, Store, Study, Trial
from strategies.space import SpaceError, candidate_key

from .answers import taken_over
from .errors import NasliteError

if TYPE_CHECKING:
    from .evaluation import Workbench
    from .prepare import Prepared

# What must be the same on both sides for a measurement to hold: facts, and keys of the config.
FACTS = ("threads", "cpu", "isa", "versions")
KEYS = ("seed", "runtime")


def known_facts(store: Store, name: str, prepared: Prepared, bench: Workbench) -> list[Known]:
    """The evaluations of study `name` that hold for a new study, which need not repeat them.

    One holds if the candidate lies in the new space, and every stage of it has the key that it
    would have here: equal keys give equal bytes, whatever the objectives and the strategy are.

    Raises:
        UnknownStudy
        NasliteError: The study is of another task, or nothing of it can hold here.
    """
    study = store.study(name)
    if study.task_fingerprint != prepared.loaded.fingerprint:
        raise NasliteError(
            f"study {name!r} is of another task (its files, options, weights or data differ),"
            " so its evaluations say nothing of this one; leave --from away"
        )
    differing = _differences(study, prepared)
    if differing:
        raise NasliteError(
            f"no evaluation of study {name!r} holds for this one: {'; '.join(differing)};"
            " make them equal, or leave --from away"
        )
    trials = [t for t in store.trials(study) if t.state in ("complete", "refused")]
    found: dict[str, Known] = {}  # a study may have met a candidate more than once
    for trial in trials:
        known = _known(trial, study, prepared, bench, store)
        if known is not None:
            found.setdefault(known.candidate_key, known)
    return list(found.values())


def _differences(study: Study, prepared: Prepared) -> list[str]:
    here: dict[str, Any] = {**prepared.stored_config, **prepared.facts}
    there: dict[str, Any] = {**study.config, **study.facts}
    there["seed"] = study.seed
    for side in (here, there):  # how long files are timed says how wide intervals are, no more
        side["runtime"] = {k: v for k, v in side["runtime"].items() if k != "timing_seconds"}
    return [
        f"its {key} is {there.get(key)!r}, here it is {here.get(key)!r}"
        for key in (*KEYS, *FACTS)
        if there.get(key) != here.get(key)
    ]


def _known(
    trial: Trial, study: Study, prepared: Prepared, bench: Workbench, store: Store
) -> Known | None:
    try:
        if trial.number == 0:
            candidate = prepared.space.baseline()
        else:
            candidate = prepared.space.canonical(trial.candidate)
    except SpaceError:
        return None
    keys = bench.stage_keys(candidate)[: len(trial.stages)]
    if [stage.key for stage in trial.stages] != keys:
        return None
    outcome = taken_over(trial, study.name)
    if trial.state == "complete":
        lacking = set(prepared.goals.names) - {m.metric for m in outcome.measurements}
        if lacking:  # of before it was measured: the candidate is evaluated
            return None
        outcome = replace(outcome, records=store.records(study, trial.number))
    return Known(candidate_key(candidate), outcome)


def of_baseline(known: Sequence[Known], prepared: Prepared) -> Outcome | None:
    """The outcome of trial 0, if it is among the known facts."""
    key = candidate_key(prepared.space.baseline())
    found = [fact.outcome for fact in known if fact.candidate_key == key]
    return found[0] if found and found[0].state == "complete" else None
