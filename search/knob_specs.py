"""What a config says of knobs, resolved against those that the compressors have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from strategies.knobs import PER_LAYER
from strategies.space import Condition, Knob, Space, SpaceError

from .config import StudyConfig
from .errors import Problem
from .registry import unknown_name
from .stages import Step

if TYPE_CHECKING:
    from .task import LoadedTask

FEW = 1024  # levels of a knob that are looked at one by one


def resolved_space(
    config: StudyConfig,
    steps: list[Step | None],
    loaded: LoadedTask | None,
    problems: list[Problem],
) -> Space | None:
    """The space of a config; None, and problems are added, where something is wrong with it."""
    knobs: list[Knob] = []
    before = len(problems)
    for position, (step, entry) in enumerate(zip(steps, config.pipeline, strict=True)):
        ((name, specs),) = entry.items()
        if step is not None:
            knobs += _resolved(step, specs, f"pipeline.{position}.{name}", loaded, problems)
    if len(problems) > before:
        return None
    try:
        return Space(_reachable(knobs))
    except SpaceError as error:
        problems.append(Problem("pipeline", str(error)))
        return None


def _resolved(
    step: Step,
    specs: Mapping[str, Any],
    path: str,
    loaded: LoadedTask | None,
    problems: list[Problem],
) -> list[Knob]:
    compressor: Any = step.compressor
    model, task = (loaded.model, loaded.task) if loaded else (None, None)
    try:
        declared = compressor.knobs(model, task)
    except Exception as error:
        if loaded is not None:  # without a model, only knobs that do not depend on it are known
            problems.append(Problem(path, f"{type(error).__name__}: {error}"))
        return []
    known = [knob.name for knob in declared]
    for name in specs:
        if name in known or (loaded is None and PER_LAYER in name):
            continue
        if not any(_means(name, other) for other in known):
            problems.append(Problem(f"{path}.{name}", unknown_name("knob", name, known)))
    resolved = []
    for knob in declared:
        said = _spec_name(knob.name, specs)
        try:
            spec = None if said is None else specs[said]
            resolved.append(_prefixed(knob.resolve(spec), step.name))
        except SpaceError as error:
            parts = (path, said or knob.name, error.path)
            problem = Problem(".".join(part for part in parts if part), str(error))
            if problem not in problems:  # a pattern may mean many knobs
                problems.append(problem)
    return resolved


def _spec_name(name: str, specs: Mapping[str, Any]) -> str | None:
    """Which entry is about a knob: the one of its name, else the last pattern that matches it."""
    if name in specs:
        return name
    return next((pattern for pattern in reversed(list(specs)) if _means(pattern, name)), None)


def _means(pattern: str, name: str) -> bool:
    """Whether an entry such as `precision@layer3.*` is about a knob of one layer."""
    kind, found, layers = pattern.partition(PER_LAYER)
    own_kind, _, layer = name.partition(PER_LAYER)
    return bool(found) and kind == own_kind and bool(layer) and fnmatchcase(layer, layers)


def _prefixed(knob: Knob, name: str) -> Knob:
    when = knob.active_when
    if when is not None:
        when = replace(when, knob=f"{name}.{when.knob}")
    return replace(knob, name=f"{name}.{knob.name}", active_when=when)


def _reachable(knobs: list[Knob]) -> list[Knob]:
    """Those that some candidate has: of a model's many layers, only what the config opens."""
    kept: dict[str, Knob] = {}
    names = {knob.name for knob in knobs}
    for knob in knobs:
        when = knob.active_when
        is_free = when is None or when.knob not in names  # a space says which parent it misses
        if when is None or is_free or (when.knob in kept and _can_hold(when, kept[when.knob])):
            kept[knob.name] = knob
    return list(kept.values())


def _can_hold(when: Condition, parent: Knob) -> bool:
    if parent.size is not None and parent.size <= FEW:
        return any(when.holds(parent.at(position)) for position in range(parent.size))
    named = when.value if isinstance(when.value, tuple) else (when.value,)
    values = [parent.from_unit(0.0), parent.from_unit(1.0)]
    return any(when.holds(v) for v in [*values, *(v for v in named if parent.contains(v))])
