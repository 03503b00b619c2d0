from __future__ import annotations

import numpy as np

from search.goals import Goals

GOALS = Goals.of_config(
    {
        "objectives": {"accuracy": "maximize", "size_bytes": "minimize"},
        "constraints": ["accuracy_drop <= 0.1"],
    }
)


def row(accuracy: float, size: float, drop: float) -> dict[str, float]:
    return {"accuracy": accuracy, "size_bytes": size, "accuracy_drop": drop}


def on_front(*rows: dict[str, float]) -> list[bool]:
    table = np.array([[row[name] for name in GOALS.names] for row in rows]).reshape(-1, 3)
    return GOALS.on_front(table).tolist()


def test_values_are_all_minimised():
    assert GOALS.values(row(0.9, 100, 0)) == (-0.9, 100)


def test_feasible_rows_come_before_infeasible_ones_on_the_front():
    rows = [row(0.5, 10, 0.4), row(0.9, 100, 0.0), row(0.8, 90, 0.1), row(0.8, 95, 0.1)]
    assert on_front(*rows) == [False, True, True, False]


def test_without_a_feasible_row_the_least_broken_one_is_the_front():
    assert on_front(row(0.5, 10, 0.4), row(0.6, 100, 0.3)) == [False, True]


def test_no_rows_have_no_front():
    assert on_front() == []
