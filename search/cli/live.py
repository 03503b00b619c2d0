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

from ..config import store_option
from ..formats import format_value, values_text
from ..goals import Goals
from ..jobs import Epoch
from ..observer import Observer
from ..report import console, rows_view
from ..results import StudyResults

QUIET_S = 10.0  # after so long without a line, the next epoch of a training is told


@contextmanager
def live_observer(store: str) -> Iterator[Progress]:
    """An observer that draws on standard output while the block runs.

    Args:
        store: The store's URL, for the commands that it names.
    """
    out = console()
    observer = LiveTable(out, store) if out.is_terminal else LogLines(out, store)
    try:
        yield observer
    except KeyboardInterrupt:
        if not observer.name:
            click.echo("interrupted before the search began; nothing was changed", err=True)
        raise
    finally:
        observer.close()


def finish(results: StudyResults) -> None:
    """The front, and where to go from here."""
    out, name = console(), results.name
    front = results.front()
    title = f"front of {name}: {len(front)} row{'s' * (len(front) != 1)}"
    out.print(rows_view(results, front, title=title, width=out.width))
    if not any(row.is_feasible for row in front):
        out.print("no trial meets all constraints; these come nearest")
    store = store_option(results.store.url)
    lost = [row.trial for row in results.rows() if row.trial.state in ("failed", "refused")]
    if lost:
        counts = Counter(trial.state for trial in lost)
        (cause, times), *_ = Counter(trial.cause for trial in lost).most_common(1)
        shown = ", ".join(f"{n} {state}" for state, n in counts.items())
        click.echo(
            f"warning: {shown} of {len(results.rows()) - 1} trials; most often ({times}x)"
            f" {cause!r}: `naslite trials {name}{store}` lists them all",
            err=True,
        )
    example = next((row.number for row in front if row.number), 0)
    click.echo(  # not wrapped: these are to be copied
        f"`naslite show {name} {example}{store}` for details,"
        f" `naslite export {name} {example} DIR{store}` for the files"
    )


class Progress(Observer):
    """Counts what the two displays show."""

    def __init__(self, out: Console, store: str) -> None:
        self.out = out
        self.store = store_option(store)
        self.name = ""
        self.total = 0
        self.minutes: float | None = None
        self.spent = self.began = 0.0
        self.workers = 1
        self.trials: list[Trial] = []
        self.goals: Goals | None = None
        self.running: dict[int, float] = {}  # since when
        self.epochs: dict[int, str] = {}  # how far the trainings of running trials are
        self.score_name = ""
        self.best: dict[str, tuple[float, int]] = {}

    def started(self, study: Study, trials: list[Trial]) -> None:
        self.name, self.total, self.minutes = study.name, study.trials, study.minutes
        self.spent, self.began = study.seconds, time.monotonic()
        self.workers = int(study.config.get("workers", 1))
        self.goals = Goals.of_config(study.config)
        self.score_name = study.facts["score_name"]
        self.trials = [t for t in trials if t.finished_at is not None]
        for trial in self.trials:
            self._compare(trial)

    def proposed(self, number: int, candidate: dict[str, object]) -> None:
        self.running[number] = time.monotonic()

    def epoch_ended(self, number: int, epoch: Epoch) -> None:
        score = epoch.score
        shown = "" if score is None else f", {self.score_name} {format_value('', score)}"
        self.epochs[number] = f"epoch {epoch.number}/{epoch.total}{shown}"

    def ended(self, trial: Trial) -> None:
        self.trials.append(trial)
        self.running.pop(trial.number, None)
        self.epochs.pop(trial.number, None)
        self._compare(trial)

    def extended(self, trials: int, minutes: float | None) -> None:
        self.total, self.minutes = trials, minutes

    @property
    def done(self) -> int:
        return sum(trial.number > 0 for trial in self.trials)

    def close(self) -> None:
        """Leave the terminal as it was."""

    def budget(self) -> str:
        minutes = "" if self.minutes is None else f" or {self.minutes:g} minutes"
        return f"new budget: {self.total} trials{minutes}"

    def audit(self, rows: int) -> str:
        return f"auditing {rows} row{'s' if rows > 1 else ''} of the front"

    def timing_again(self, rows: int) -> str:
        return f"timing {rows} row{'s' if rows > 1 else ''} of the front again"

    def farewell(self, running: int, grace_s: float | None) -> str:
        """What the user waits for after asking to stop."""
        if not running:
            return "stopping"
        what = f"{running} running trial{'s' if running > 1 else ''}"
        if grace_s is None:
            return f"stopping: waiting for {what}"
        return f"stopping: up to {grace_s:.0f} s for {what}; once more stops at once"

    def ending(self, state: str, cause: str) -> str:
        """How the study was left, and how to go on with it."""
        text = f"study {self.name} {state}" + (f": {cause}" if cause else "")
        if state == "finished":
            return text
        return f"{text}; continue with `naslite resume {self.name}{self.store}`"

    def _compare(self, trial: Trial) -> None:
        """Keep the best value of each objective over the feasible trials."""
        assert self.goals is not None
        metrics = trial.metrics
        if trial.state != "complete" or any(self.goals.violations(metrics)):
            return
        for name, way in self.goals.objectives.items():
            value = metrics[name]
            known = self.best.get(name)
            if known is None or (value > known[0] if way == "maximize" else value < known[0]):
                self.best[name] = value, trial.number

    def seconds_left(self) -> float | None:
        """By the mean of the trials so far, and the budget in minutes."""
        own = [t.seconds for t in self.trials if t.number]
        if not own:
            return None
        left = (self.total - self.done) * sum(own) / len(own) / self.workers
        if self.minutes is not None:
            spent = self.spent + time.monotonic() - self.began
            left = min(left, 60 * self.minutes - spent)
        return max(0.0, left)


class LogLines(Progress):
    """One line per trial, and one for an epoch of a training where nothing was said for long."""

    def __init__(self, out: Console, store: str) -> None:
        super().__init__(out, store)
        self._said = time.monotonic()

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
            values = values_text(trial, names)
            what = ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True))
        hits = sum(stage.cached for stage in trial.stages)
        left = self.seconds_left()
        who = f"trial {trial.number}/{self.total}" if trial.number else "baseline"
        self._say(
            f"{who} {trial.state} in {trial.seconds:.1f} s"
            f" ({hits}/{len(trial.stages)} stages cached): {what}"
            + (f"; {clock(left)} left" if left is not None else "")
        )

    def epoch_ended(self, number: int, epoch: Epoch) -> None:
        super().epoch_ended(number, epoch)
        if time.monotonic() - self._said >= QUIET_S:
            self._say(f"trial {number}: {self.epochs[number]}")

    def retried(self, trial: Trial, cause: str) -> None:
        self._say(f"trial {trial.number} begins again, attempt {trial.attempt}: {cause}")

    def extended(self, trials: int, minutes: float | None) -> None:
        super().extended(trials, minutes)
        self._say(self.budget())

    def auditing(self, rows: int) -> None:
        self._say(self.audit(rows))

    def retiming(self, rows: int) -> None:
        self._say(self.timing_again(rows))

    def stopping(self, running: int, grace_s: float | None) -> None:
        self._say(self.farewell(running, grace_s))

    def stopped(self, state: str, cause: str) -> None:
        self._say(self.ending(state, cause))

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        click.echo(f"{time.strftime('%H:%M:%S')} {text}")


class LiveTable(Progress):
    """A table that is redrawn in place."""

    def __init__(self, out: Console, store: str) -> None:
        super().__init__(out, store)
        self._live: Live | None = None

    def preparing(self, what: str) -> None:
        self.out.print(f"{what} ...")

    def started(self, study: Study, trials: list[Trial]) -> None:
        super().started(study, trials)
        self._live = Live(get_renderable=self.table, console=self.out, refresh_per_second=4)
        self._live.start()

    def retried(self, trial: Trial, cause: str) -> None:
        self._print(f"trial {trial.number} begins again, attempt {trial.attempt}: {cause}")

    def extended(self, trials: int, minutes: float | None) -> None:
        super().extended(trials, minutes)
        self._print(self.budget())

    def auditing(self, rows: int) -> None:
        self._print(self.audit(rows))

    def retiming(self, rows: int) -> None:
        self._print(self.timing_again(rows))

    def stopping(self, running: int, grace_s: float | None) -> None:
        self._print(self.farewell(running, grace_s))

    def stopped(self, state: str, cause: str) -> None:
        self.running.clear()
        self.close()
        click.echo(self.ending(state, cause))

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
        for name, (value, number) in self.best.items():
            table.add_row(f"best {name}", f"{format_value(name, value)} (#{number})")
        if own:
            mean = sum(t.seconds for t in own) / len(own)
            table.add_row("per trial", f"{mean:.1f} s")
        left = self.seconds_left()
        table.add_row("time left", clock(left) if left is not None else "not known yet")
        now = time.monotonic()
        for number, since in sorted(self.running.items()):
            what = f"trial {number}" if number else "the baseline"
            epoch = f", {self.epochs[number]}" if number in self.epochs else ""
            table.add_row("running", f"{what} for {now - since:.0f} s{epoch}")
        return table

    def _print(self, text: str) -> None:
        """A line above the table, which stays."""
        (self._live.console if self._live else self.out).print(text)


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
