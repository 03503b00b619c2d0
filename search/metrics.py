"""Metrics: what is said of an artifact, each read off the exported file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from storage import Measurement

from .jobs import Scored, Timing

DROP_DIGITS = 12
BOUNDS_LEVEL = 0.90  # of an interval whose ends are one-sided 95 % bounds
AUDIT = "audit_"  # before a metric of the front that is measured when the search has ended
RATIO = "latency_ratio"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything measured on one artifact.

    Args:
        scored: On the search split.
        baseline_score: The uncompressed model's, on the same samples.
        timings: The first is of the batch size that objectives use.
    """

    score_name: str
    higher_is_better: bool
    scored: Scored
    baseline_score: float
    size_bytes: int
    timings: tuple[Timing, ...]


def score(facts: Facts) -> list[Measurement]:
    """The task's score of the file over the search split, with a 95 % interval."""
    found = facts.scored
    low, high = found.interval or (None, None)
    return [Measurement(facts.score_name, found.score, "", low, high, found.samples)]


def drop(facts: Facts) -> list[Measurement]:
    """Baseline score minus score (the other way round where lower is better), absolute, with
    one-sided 95 % bounds of a paired comparison."""
    loss = score_drop(facts.baseline_score, facts.scored.score, facts.higher_is_better)
    name, n = drop_name(facts.score_name), facts.scored.samples
    if facts.scored.drop is None:
        return [Measurement(name, loss, n=n)]
    low, high = facts.scored.drop
    return [Measurement(name, loss, "", low, high, n, level=BOUNDS_LEVEL)]


def size_bytes(facts: Facts) -> list[Measurement]:
    """Bytes of all files that must be shipped."""
    return [Measurement("size_bytes", float(facts.size_bytes), "B")]


def size_zstd_bytes(facts: Facts) -> list[Measurement]:
    """Bytes of the same files compressed by zstd: the only size that sparse weights lower."""
    found = facts.scored.size_zstd_bytes
    return [] if found is None else [Measurement("size_zstd_bytes", float(found), "B")]


def latency_ms(facts: Facts) -> list[Measurement]:
    """Milliseconds of one call at the batch size, median."""
    return [
        Measurement(f"latency_ms{suffix}", t.milliseconds, "ms", n=t.blocks, noisy=t.noisy)
        for suffix, t in _with_suffix(facts.timings)
    ]


def latency_p90_ms(facts: Facts) -> list[Measurement]:
    """Milliseconds of one call at the batch size, 90th percentile."""
    return [
        Measurement(f"latency_p90_ms{suffix}", t.p90_ms, "ms", n=t.blocks, noisy=t.noisy)
        for suffix, t in _with_suffix(facts.timings)
        if t.p90_ms is not None
    ]


def latency_ratio(facts: Facts) -> list[Measurement]:
    """Time over the uncompressed file's, timed in the same blocks, with a 95 % interval."""
    return latency_ratios(facts.timings)


def throughput_per_s(facts: Facts) -> list[Measurement]:
    """Samples per second at the batch size, from the median time of a call."""
    return [
        Measurement(
            f"throughput_per_s{suffix}", 1e3 * t.batch_size / t.milliseconds, "1/s", noisy=t.noisy
        )
        for suffix, t in _with_suffix(facts.timings)
        if t.milliseconds
    ]


def load_ms(facts: Facts) -> list[Measurement]:
    """Milliseconds of loading the file in a fresh process."""
    found = facts.timings[0].load_ms if facts.timings else None
    return [] if found is None else [Measurement("load_ms", found, "ms")]


def peak_rss_bytes(facts: Facts) -> list[Measurement]:
    """By how much loading and running the file raised a fresh process's resident memory."""
    found = facts.timings[0].peak_rss_bytes if facts.timings else None
    return [] if found is None else [Measurement("peak_rss_bytes", float(found), "B")]


def parameters(facts: Facts) -> list[Measurement]:
    """Elements of all weights and biases in the file's graph."""
    return [Measurement("parameters", facts.scored.parameters)]


def macs(facts: Facts) -> list[Measurement]:
    """Multiply-accumulates of convolutions and matrix products for one sample."""
    return [Measurement("macs", facts.scored.macs)]


def drop_name(score_name: str) -> str:
    """The metric that says how much of a score was lost."""
    return f"{score_name}_drop"


# In the order in which tables show them. SCORE stands for the task's score name.
SCORE = "<score>"
METRICS: dict[str, Callable[[Facts], list[Measurement]]] = {
    SCORE: score,
    drop_name(SCORE): drop,
    "size_bytes": size_bytes,
    "size_zstd_bytes": size_zstd_bytes,
    "latency_ms": latency_ms,
    "latency_p90_ms": latency_p90_ms,
    "latency_ratio": latency_ratio,
    "throughput_per_s": throughput_per_s,
    "load_ms": load_ms,
    "peak_rss_bytes": peak_rss_bytes,
    "parameters": parameters,
    "macs": macs,
}


# With one more for every further batch size, such as `latency_ms_batch32`.
PER_BATCH_SIZE = ("latency_ms", "latency_p90_ms", "latency_ratio", "throughput_per_s")


# Counted on the file, not measured: their values have no interval and need none.
EXACT = frozenset({"size_bytes", "size_zstd_bytes", "parameters", "macs"})


def score_drop(baseline: float, score: float, higher_is_better: bool) -> float:
    """What was lost of a score: > 0 is worse."""
    loss = baseline - score if higher_is_better else score - baseline
    # 0.995 - 0.985 is 0.01, not 0.010000000000000009, which would break `accuracy_drop <= 0.01`.
    return round(loss, DROP_DIGITS) or 0.0


def audit_names(score_name: str) -> tuple[str, str]:
    """The metrics of the audit split: the score and its drop, on audited trials only."""
    return f"{AUDIT}{score_name}", f"{AUDIT}{drop_name(score_name)}"


def audit_ratio_names(batch_sizes: Iterable[int]) -> list[str]:
    """The ratios of a timing after the search, on rows of the front only."""
    return [f"{AUDIT}{RATIO}", *(f"{AUDIT}{RATIO}_batch{size}" for size in [*batch_sizes][1:])]


def partial_measurements(facts: Facts) -> tuple[Measurement, ...]:
    """What is known of a trial that was given up before it was timed."""
    return (*score(facts), *drop(facts), *size_bytes(facts))


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
        if name in PER_BATCH_SIZE:
            names.extend(f"{name}_batch{size}" for size in later)
    return names


def latency_ratios(timings: Sequence[Timing]) -> list[Measurement]:
    """`latency_ratio` and, for each further batch size, `latency_ratio_batchN`."""
    return [
        Measurement(f"{RATIO}{suffix}", t.ratio, "", t.low, t.high, t.blocks, t.noisy)
        for suffix, t in _with_suffix(timings)
    ]


def _with_suffix(timings: Sequence[Timing]) -> Iterable[tuple[str, Timing]]:
    for position, timing in enumerate(timings):
        yield (f"_batch{timing.batch_size}" if position else ""), timing
