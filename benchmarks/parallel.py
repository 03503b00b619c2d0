"""How much sooner two workers end a search that mostly trains."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from search import run
from storage import Store

CONFIG: dict[str, Any] = {
    "objectives": {"accuracy": "maximize", "size_bytes": "minimize"},
    "pipeline": [
        {"structured_pruning": {"ratio": {"low": 0.1, "high": 0.4, "step": 0.1}}},
        {"distillation": {"epochs": [60, 62], "lr": 0.004}},
    ],
    "strategy": "random",
    "budget": {"trials": 10},
    "threads": 1,
    "lag": 4,
}


def workers(folder: Path, rounds: int) -> list[list[str]]:
    """Seconds from the first proposal to the end of the same study, by turns, each in a store
    of its own, so that nothing is cached."""
    configs = Path(__file__).resolve().parent.parent / "configs"
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(rounds):
        for count in seconds:
            url = f"sqlite:///{folder / f'workers-{count}-{turn}.db'}"
            task = f"{configs / 'digits.py'}:Digits"
            run({**CONFIG, "task": task, "study": "s", "workers": count}, store=url)
            store = Store(url)
            trials = store.trials(store.study("s"))
            store.close()
            assert all(trial.state == "complete" for trial in trials)
            ends = [trial.finished_at for trial in trials if trial.finished_at is not None]
            seconds[count].append(max(ends) - trials[1].created_at)
    one, two = (statistics.median(values) for values in seconds.values())
    return [
        ["workers", "seconds", "share of one worker's"],
        ["1", f"{one:.0f}", "1.00"],
        ["2", f"{two:.0f}", f"{two / one:.2f}"],
    ]
