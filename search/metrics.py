"""Metrics: what is said of an artifact, each read off the exported file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage import Measurement

from .jobs import Timing

DROP_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything measured on one artifact.

    Args:
        score: On the search split, over `samples` samples.
        baseline_score: The uncompressed model's, on the same samples.
        timings: The first is of the batch size that objectives use.
    """

    score_name: str
    higher_is_better: bool
    score: float
    samples: int
    baseline_score: float
    size_bytes: int
    parameters: float
    macs: float
    timings: tuple[Timing, ...]


def score(facts: Facts) -> list[Measurement]:
    """The task's score of the file over the search split."""
    return [Measurement(facts.score_name, facts.score, n=facts.samples)]


def drop(facts: Facts) -> list[Measurement]:
    """Baseline score minus score (the other way round where lower is better), absolute."""
    loss = facts.baseline_score - facts.score
    if not facts.higher_is_better:
        loss = -loss
    # 0.995 - 0.985 is 0.01, not 0.010000000000000009, which would break `accuracy_drop <= 0.01`.
    loss = round(loss, DROP_DIGITS) or 0.0
    return [Measurement(drop_name(facts.score_name), loss, n=facts.samples)]


def size_bytes(facts: Facts) -> list[Measurement]:
    """Bytes of all files that must be shipped."""
    return [Measurement("size_bytes", float(facts.size_bytes), "B")]


def latency_ms(facts: Facts) -> list[Measurement]:
    """Milliseconds of one call at the batch size, median over blocks."""
    return [
        Measurement(f"latency_ms{suffix}", t.milliseconds, "ms", n=t.blocks)
        for suffix, t in _timings(facts)
    ]


def latency_ratio(facts: Facts) -> list[Measurement]:
    """Time over the uncompressed file's, timed in the same blocks, with a 95 % interval."""
    return [
        Measurement(f"latency_ratio{suffix}", t.ratio, "", t.low, t.high, t.blocks)
        for suffix, t in _timings(facts)
    ]


def parameters(facts: Facts) -> list[Measurement]:
    """Elements of all weights and biases in the file's graph."""
    return [Measurement("parameters", facts.parameters)]


def macs(facts: Facts) -> list[Measurement]:
    """Multiply-accumulates of convolutions and matrix products for one sample."""
    return [Measurement("macs", facts.macs)]


def drop_name(score_name: str) -> str:
    """The metric that says how much of a score was lost."""
    return f"{score_name}_drop"


# In the order in which tables show them. SCORE stands for the task's score name.
SCORE = "<score>"
METRICS: dict[str, Callable[[Facts], list[Measurement]]] = {
    SCORE: score,
    drop_name(SCORE): drop,
    "size_bytes": size_bytes,
    "latency_ms": latency_ms,
    "latency_ratio": latency_ratio,
    "parameters": parameters,
    "macs": macs,
}


def measurements(facts: Facts) -> tuple[Measurement, ...]:
    """Every metric of an artifact."""
    return tuple(m for metric in METRICS.values() for m in metric(facts))


def not_finite(found: Iterable[Measurement]) -> str:
    """What is NaN or infinite first, such as `latency_ratio is nan`; "" if nothing is."""
    for m in found:
        for value in (m.value, m.low, m.high):
            if value is not None and not math.isfinite(value):
                return f"{m.metric} is {value}"
    return ""


def metric_names(score_name: str, batch_sizes: Iterable[int]) -> list[str]:
    """The names that `measurements` gives for a task and the batch sizes to time."""
    later = list(batch_sizes)[1:]
    names = []
    for name in METRICS:
        names.append(name.replace(SCORE, score_name))
        if name.startswith("latency_"):
            names.extend(f"{name}_batch{size}" for size in later)
    return names


def _timings(facts: Facts) -> Iterable[tuple[str, Timing]]:
    for position, timing in enumerate(facts.timings):
        yield (f"_batch{timing.batch_size}" if position else ""), timing
