"""The contract of executors on each of ours."""

from __future__ import annotations

import pkgutil

from search.executor import Executor, Serial
from search.jobs import BenchSpec
from search.testing import ExecutorContract
from search.workers import ProcessPool


class TestSerial(ExecutorContract):
    survives_deaths = limits_time = runs_at_once = pauses = False

    def open(self, spec: BenchSpec, slots: int) -> Executor:
        return Serial(pkgutil.resolve_name(spec.factory)(**spec.arguments))


class TestProcessPool(ExecutorContract):
    def open(self, spec: BenchSpec, slots: int) -> Executor:
        return ProcessPool(spec, slots)
