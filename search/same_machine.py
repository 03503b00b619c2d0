"""Whether a study's figures were measured where this process runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from storage import Store, Study, Trial, UnknownStudy

from .environment import cpu_facts, library_versions


def differences(store: Store, study: Study, trials: Iterable[Trial]) -> list[str]:
    """What of the machine, or the libraries, that these trials were measured with is not this
    process's, in words."""
    known = [study.facts, *(session.facts for session in store.sessions(study))]
    for name in {trial.reused_study for trial in trials if trial.reused_study}:
        try:
            known.append(store.study(name).facts)
        except UnknownStudy:
            return [f"study {name}, from which rows were taken over, is gone"]
    now: dict[str, Any] = {**cpu_facts(), "versions": library_versions()}
    found = []
    for facts in known:
        for key in ("cpu", "isa"):
            if key in facts and facts[key] != now[key]:
                found.append(f"{key} {facts[key]}, this is {now[key]}")
        for library, version in facts.get("versions", {}).items():
            if library != "naslite" and now["versions"].get(library) != version:
                found.append(f"{library} {version}, this is {now['versions'].get(library)}")
    return list(dict.fromkeys(found))
