"""How much better the best of many looks than it is, having been picked by its looks."""

from __future__ import annotations

import numpy as np

from .results import StudyResults
from .sample_records import unpacked

CONTENDERS = 200  # the best ones; those further behind are never picked
RESAMPLES = 1000


def optimism(results: StudyResults) -> float | None:
    """By how much the best score of a study is expected to exceed its true value.

    Efron's bootstrap estimate (1983, JASA 78:316-331; for the pick of the best of several models
    Tibshirani and Tibshirani 2009, Annals of Applied Statistics 3:822-829): the samples are drawn
    anew, the same ones for all candidates, the best one on them is picked, and what it scores on
    them beyond its score on the original samples is averaged. Candidates that err on the same
    samples count as fewer, as they should.

    Returns:
        In units of the score, > 0 whichever direction is better; 0 where nothing varies, as if the
        best candidates have all samples right. None unless the score is the mean of one number per
        sample, with records of two candidates at least.
    """
    sign = 1.0 if results.study.facts["higher_is_better"] else -1.0
    records = _records(results)
    if len(records) < 2 or len({len(row) for row in records}) > 1:
        return None
    return picking_optimism(sign * np.array(records))


def picking_optimism(records: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The optimism of picking the row with the greatest mean.

    Args:
        records: Shape (candidates, samples).
    """
    rng, size = np.random.default_rng(seed), records.shape[1]
    means, total = records.mean(axis=1), 0.0
    for _ in range(resamples):
        weights = rng.multinomial(size, np.full(size, 1 / size))
        drawn = records @ weights / size
        picked = int(drawn.argmax())
        total += float(drawn[picked] - means[picked])
    return total / resamples


def _records(results: StudyResults) -> list[np.ndarray]:
    """Of the best candidates, one for each file, as far as their scores are means."""
    study = results.study
    name, higher = study.facts["score_name"], study.facts["higher_is_better"]
    column = results.store.facts(study, [name]).columns[name]
    scores = {number: score for number, score in column.items() if number}
    ranked = sorted(scores, key=lambda number: -scores[number] if higher else scores[number])
    found: dict[bytes, np.ndarray] = {}
    for number in ranked[:CONTENDERS]:
        content = results.store.records(study, number)
        if content is None or content in found:
            continue
        records = unpacked(content)
        if records.ndim != 1 or not np.isclose(records.mean(), scores[number], atol=1e-9):
            return []
        found[content] = records.astype(float)
    return list(found.values())
