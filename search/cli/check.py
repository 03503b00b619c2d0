"""`naslite check`."""

from __future__ import annotations

from pathlib import Path

import click

from ..enqueue import load_candidates
from ..report import console
from . import options


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@options.enqueue
def check(config: Path, enqueue: Path | None) -> None:
    """Validate CONFIG and its task: import it, run a batch, export it. Nothing is stored."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ..build import check as check_config
    from ..report import knob_values

    prepared = check_config(config, enqueue=load_candidates(enqueue) if enqueue else [])
    out, resolved = console(), prepared.config
    knobs = Table("knob", "values", "active when", box=SIMPLE_HEAD)
    for knob in prepared.space:
        when = knob.active_when
        condition = f"{when.knob} {when.op} {when.value}" if when else ""
        knobs.add_row(knob.name, knob_values(knob.to_json()), condition)
    out.print(knobs)
    size = prepared.space.size
    out.print(f"space: {f'{size:,} candidates' if size else 'continuous'}")
    names = [step.name for step in prepared.pipeline]
    position = sum(step.changes_model for step in prepared.pipeline)
    out.print(f"pipeline: {' -> '.join([*names[:position], 'export', *names[position:]])}")
    goals = [f"{way} {name}" for name, way in prepared.goals.objectives.items()]
    out.print(f"objectives: {', '.join(goals)}")
    out.print(f"constraints: {', '.join(map(str, prepared.goals.constraints)) or 'none'}")
    chosen, budget = resolved.strategy, resolved.budget
    given = ", ".join(f"{name}={value}" for name, value in (chosen.model_extra or {}).items())
    strategy = f"{chosen.name} ({given})" if given else chosen.name
    minutes = f" or {budget.minutes:g} minutes" if budget.minutes else ""
    out.print(f"strategy: {strategy}; budget: {budget.trials} trials{minutes}")
    stop = resolved.stop.model_dump(exclude_none=True)
    options = ", ".join(f"{name}={value}" for name, value in stop.items() if name != "rule")
    if options:
        out.print(f"stop: {resolved.stop.rule} ({options})")
    first = len(resolved.enqueue)
    out.print(f"enqueued: {f'{first} to be evaluated first' if first else 'none'}")
    out.print(f"task: {resolved.task} runs and exports; {config} is ready for `naslite run`")
