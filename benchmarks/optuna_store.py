"""Plain Optuna with its RDB storage: the peer that our store is timed against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, distribution_to_json
from optuna.storages import RDBStorage
from sqlalchemy import event, insert

OBJECTIVES = ("minimize", "maximize")


class OptunaStudy:
    """A study of knobs in [0, 1] in an SQLite file, in WAL mode with synchronous=NORMAL as ours.

    Args:
        path: Of the database, which must not exist.
    """

    def __init__(self, path: Path, knobs: int) -> None:
        optuna.logging.set_verbosity(logging.WARNING)
        self.url = f"sqlite:///{path}"
        self._storage = RDBStorage(self.url)
        _like_ours(self._storage)
        self.distributions: dict[str, BaseDistribution] = {
            f"knob{i}": FloatDistribution(0.0, 1.0) for i in range(knobs)
        }
        self._study = optuna.create_study(
            storage=self._storage,
            study_name="s",
            sampler=optuna.samplers.RandomSampler(seed=0),
            directions=list(OBJECTIVES),
        )

    def fill(self, trials: int) -> None:
        """Insert finished trials in bulk, as Optuna itself would have stored them."""
        from optuna.storages._rdb import models

        now = datetime.now(timezone.utc).replace(tzinfo=None)
        texts = {name: distribution_to_json(d) for name, d in self.distributions.items()}
        with self._storage.engine.begin() as connection:
            for first in range(0, trials, 250):
                numbers = range(first, min(first + 250, trials))
                connection.execute(
                    insert(models.TrialModel),
                    [
                        {
                            "trial_id": n + 1,
                            "number": n,
                            "study_id": 1,
                            "state": optuna.trial.TrialState.COMPLETE,
                            "datetime_start": now,
                            "datetime_complete": now,
                        }
                        for n in numbers
                    ],
                )
                connection.execute(
                    insert(models.TrialParamModel),
                    [
                        {
                            "trial_id": n + 1,
                            "param_name": name,
                            "param_value": (n % 97) / 97,
                            "distribution_json": text,
                        }
                        for n in numbers
                        for name, text in texts.items()
                    ],
                )
                connection.execute(
                    insert(models.TrialValueModel),
                    [
                        {
                            "trial_id": n + 1,
                            "objective": i,
                            "value": float(n % 89),
                            "value_type": models.TrialValueModel.TrialValueType.FINITE,
                        }
                        for n in numbers
                        for i in range(len(OBJECTIVES))
                    ],
                )

    def ask_and_tell(self) -> None:
        trial = self._study.ask(self.distributions)
        self._study.tell(trial, [1.0, 2.0])

    def read(self) -> Sequence[Any]:
        """All trials, as one who opens the study gets them."""
        study = optuna.load_study(study_name="s", storage=self.url)
        return study.trials


def _like_ours(storage: RDBStorage) -> None:
    with storage.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    @event.listens_for(storage.engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()
