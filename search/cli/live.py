"""How a running study looks: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from storage import Study, Trial

from ..goals import Goals
from ..observer import Observer
from ..report import console, format_value, rows_view
from ..results import StudyResults


@contextmanager
def live_observer() -> Iterator[Observer]:
    """An observer that draws on standard output while the block runs."""
    out = console()
    if not out.is_terminal:
        yield LogLines(out)
        return
    observer = LiveTable(out)
    try:
        yield observer
    finally:
        observer.close()


def finish(results: StudyResults) -> None:
    """The front, and where to go from here."""
    out, name = console(), results.name
    front = results.front()
    title = f"front of {name}: {len(front)} rows"
    out.print(rows_view(results, front, title=title, width=out.width))
    if not any(row.is_feasible for row in front):
        out.print("no trial meets all constraints; these come nearest")
    failures = Counter(r.trial.state for r in results.rows() if r.trial.state != "complete")
    if failures:
        counts = ", ".join(f"{n} {state}" for state, n in failures.items())
        out.print(f"{counts}: `naslite trials {name}` says why")
    example = next((row.number for row in front if row.number), 0)
    out.print(
        f"`naslite show {name} {example}` for details,"
        f" `naslite export {name} {example} DIR` for the files"
    )


class Progress(Observer):
    """Counts what the two displays show."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self.name = ""
        self.total = 0
        self.minutes: float | None = None
        self.spent = 0.0
        self.trials: list[Trial] = []
        self.goals: Goals | None = None
        self.current: tuple[int, float] | None = None

    def started(self, study: Study, trials: list[Trial]) -> None:
        self.name, self.total, self.minutes = study.name, study.trials, study.minutes
        self.spent = study.seconds
        self.goals = Goals.of_config(study.config)
        self.trials = [t for t in trials if t.finished_at is not None]

    def proposed(self, number: int, candidate: dict[str, object]) -> None:
        self.current = number, time.monotonic()

    def ended(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.spent += trial.seconds
        self.current = None

    @property
    def done(self) -> int:
        return sum(trial.number > 0 for trial in self.trials)

    def best(self) -> dict[str, str]:
        """The best value of each objective over the feasible trials."""
        assert self.goals is not None
        feasible = [
            t
            for t in self.trials
            if t.state == "complete" and not any(self.goals.violations(t.metrics))
        ]
        found = {}
        for name, way in self.goals.objectives.items():
            values = [(t.metrics[name], t.number) for t in feasible]
            if values:
                value, number = max(values) if way == "maximize" else min(values)
                found[name] = f"{format_value(name, value)} (#{number})"
        return found

    def seconds_left(self) -> float | None:
        """By the mean of the trials so far, and the budget in minutes."""
        own = [t.seconds for t in self.trials if t.number]
        if not own:
            return None
        left = (self.total - self.done) * sum(own) / len(own)
        if self.minutes is not None:
            left = min(left, 60 * self.minutes - self.spent)
        return max(0.0, left)


class LogLines(Progress):
    """One line per trial."""

    def preparing(self, what: str) -> None:
        self._say(what)

    def started(self, study: Study, trials: list[Trial]) -> None:
        super().started(study, trials)
        self._say(f"study {study.name}: {self.done} of {self.total} trials done")

    def ended(self, trial: Trial) -> None:
        super().ended(trial)
        assert self.goals is not None
        what = trial.cause
        if trial.state == "complete":
            names = dict.fromkeys(
                [*self.goals.objectives, *(c.name for c in self.goals.constraints)]
            )
            what = ", ".join(f"{n} {format_value(n, trial.metrics[n])}" for n in names)
        hits = sum(stage.cached for stage in trial.stages)
        left = self.seconds_left()
        who = f"trial {trial.number}/{self.total}" if trial.number else "baseline"
        self._say(
            f"{who} {trial.state} in {trial.seconds:.1f} s"
            f" ({hits}/{len(trial.stages)} stages cached): {what}"
            + (f"; {clock(left)} left" if left is not None else "")
        )

    def stopped(self, state: str, cause: str) -> None:
        self._say(ending(self.name, state, cause))

    def _say(self, text: str) -> None:
        click.echo(f"{time.strftime('%H:%M:%S')} {text}")


class LiveTable(Progress):
    """A table that is redrawn in place."""

    def __init__(self, out: Console) -> None:
        super().__init__(out)
        self._live: Live | None = None

    def preparing(self, what: str) -> None:
        self.out.print(f"{what} ...")

    def started(self, study: Study, trials: list[Trial]) -> None:
        super().started(study, trials)
        self._live = Live(get_renderable=self.table, console=self.out, refresh_per_second=4)
        self._live.start()

    def stopped(self, state: str, cause: str) -> None:
        self.current = None
        self.close()
        self.out.print(ending(self.name, state, cause))

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self) -> Table:
        table = Table(title=f"study {self.name}", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(min_width=44)
        own = [t for t in self.trials if t.number]
        table.add_row("trials", f"{self.done} of {self.total}")
        states = Counter(t.state for t in own)
        table.add_row("states", ", ".join(f"{n} {s}" for s, n in states.items()) or "none yet")
        for name, value in (self.best() if self.goals else {}).items():
            table.add_row(f"best {name}", value)
        if own:
            mean = sum(t.seconds for t in own) / len(own)
            table.add_row("per trial", f"{mean:.1f} s")
        left = self.seconds_left()
        table.add_row("time left", clock(left) if left is not None else "not known yet")
        if self.current is not None:
            number, since = self.current
            what = f"trial {number}" if number else "the baseline"
            table.add_row("running", f"{what} for {time.monotonic() - since:.0f} s")
        return table


def ending(name: str, state: str, cause: str) -> str:
    text = f"study {name} {state}: {cause}" if cause else f"study {name} {state}"
    return text if state == "finished" else f"{text}; continue with `naslite resume {name}`"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
