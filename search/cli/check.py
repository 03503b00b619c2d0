"""`naslite check`."""

from __future__ import annotations

from pathlib import Path

import click

from ..report import console


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
def check(config: Path) -> None:
    """Validate CONFIG and its task: import it, run a batch, export it. Nothing is stored."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ..build import check as check_config
    from ..report import knob_values

    prepared = check_config(config)
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
    strategy, budget = resolved.strategy.name, resolved.budget
    minutes = f" or {budget.minutes:g} minutes" if budget.minutes else ""
    out.print(f"strategy: {strategy}; budget: {budget.trials} trials{minutes}")
    out.print(f"task: {resolved.task} runs and exports; {config} is ready for `naslite run`")
