from __future__ import annotations

import pytest
from reported import BASELINE, complete, stored

from search.headline import digits, headline, is_share
from storage import Measurement, Outcome

THREE = {"accuracy": "maximize", "size_bytes": "minimize", "latency_ratio": "minimize"}


def said(folder, *outcomes, **config):
    results = stored(folder, [BASELINE, *outcomes], **config)
    return headline(results, results.front())


def test_a_headline_has_sizes_speed_ups_and_points(tmp_path):
    row = complete(0.894, 84.75, (0.192, 0.1818, 0.2041), drop=(-0.002, 0.0095))
    found = said(tmp_path, row, constraints=["accuracy_drop <= 0.01"])
    assert found.number == 1
    assert found.phrases == (
        "11.8× smaller",
        "5.2× faster [4.9, 5.5]",
        "−0.6 points [proven ≤ 1]",
    )


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        ((0.97, 0.94, 1.0), "no difference in speed shown [1.0, 1.1]"),
        ((1.001, 0.998, 1.004), "no difference in speed shown [0.996, 1.002]"),
        ((1.4, 1.28, 1.51), "1.4× slower [1.3, 1.5]"),
        ((0.5, 0.45, 0.55), "2.0× faster [1.8, 2.2]"),
        ((0.0, 0.0, 0.0), None),
    ],
)
def test_faster_is_said_only_if_the_interval_excludes_one(tmp_path, ratio, expected):
    phrases = said(tmp_path, complete(0.9, 500, ratio)).phrases
    assert [p for p in phrases if "fast" in p or "slow" in p or "speed" in p] == (
        [expected] if expected else []
    )


def test_a_speed_that_was_timed_beside_other_work_says_so(tmp_path):
    ratio = Measurement("latency_ratio", 0.5, "", 0.4, 0.6, 9, noisy=True)
    size = Measurement("size_bytes", 500, "B")
    row = Outcome("complete", measurements=(ratio, size))
    found = said(tmp_path, row, objectives={"size_bytes": "minimize"}, constraints=[])
    assert found.phrases[1] == "2.0× faster [1.7, 2.5], the timing was disturbed"


def test_what_is_worse_is_said(tmp_path):
    row = complete(0.95, 1500, drop=(-0.07, -0.03))
    found = said(tmp_path, row, objectives={"accuracy": "maximize"}, constraints=[])
    assert found.phrases[0] == "1.5× larger"
    assert found.phrases[2] == "+5 points [+3, +7]"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("accuracy", 0.9, True),
        ("top5_accuracy", 1.0, True),
        ("macro-F1", 0.5, True),
        ("accuracy", 91.5, False),
        ("spearman", 0.82, False),
        ("log_loss", 0.4, False),
        ("mapping", 0.4, False),
    ],
)
def test_only_shares_of_one_are_counted_in_points(name, value, expected):
    assert is_share(name, value) is expected


@pytest.mark.parametrize(
    ("loss", "bounds", "expected"),
    [
        (1.5, (1.25, 1.75), "+1.5 perplexity [+1.25, +1.75]"),
        (-0.5, (-0.75, 0.25), "−0.5 perplexity [−0.75, +0.25]"),
    ],
)
def test_a_loss_of_a_score_that_should_be_low_raises_it(tmp_path, loss, bounds, expected):
    facts = {"score_name": "perplexity", "higher_is_better": False}
    rows = [
        scored("perplexity", 20.0, 0.0, (0.0, 0.0), 1000),
        scored("perplexity", 20.0 + loss, loss, bounds, 500),
    ]
    config = {"objectives": {"size_bytes": "minimize"}, "constraints": []}
    results = stored(tmp_path, rows, facts=facts, **config)
    assert headline(results, results.front()).phrases == ("2.0× smaller", expected)


def test_a_limit_on_such_a_loss_is_not_turned_round(tmp_path):
    facts = {"score_name": "log_loss", "higher_is_better": False}
    rows = [
        scored("log_loss", 0.5, 0.0, (0.0, 0.0), 1000),
        scored("log_loss", 0.75, 0.25, (0.2, 0.29), 500),
    ]
    config = {"objectives": {"size_bytes": "minimize"}, "constraints": ["log_loss_drop <= 0.3"]}
    results = stored(tmp_path, rows, facts=facts, **config)
    said_last = headline(results, results.front()).phrases[-1]
    assert said_last == "+0.25 log_loss [proven ≤ 0.3]"


def scored(name, value, loss, bounds, size):
    """A trial of which only the score, its drop and the size are known."""
    return Outcome(
        "complete",
        measurements=(
            Measurement(name, value, "", n=400),
            Measurement(f"{name}_drop", loss, "", *bounds, 400, level=0.9),
            Measurement("size_bytes", size, "B"),
        ),
    )


def test_an_audit_that_says_otherwise_stands_beside_it(tmp_path):
    def audited(score, drop, bounds):
        name = "audit_accuracy"
        return [
            Measurement(name, score, "", n=200),
            Measurement(f"{name}_drop", drop, "", *bounds, 200, level=0.9),
        ]

    rows = [
        complete(0.9, 1000, extra=audited(0.92, 0.0, (0.0, 0.0))),
        complete(0.9, 500, drop=(0.0, 0.005), extra=audited(0.9, 0.02, (0.0, 0.04))),
    ]
    results = stored(tmp_path, rows, constraints=["accuracy_drop <= 0.01"])
    found = headline(results, results.front())
    assert found.phrases[-2:] == (
        "±0 points [proven ≤ 1]",
        "audit: −2 points [violated ≤ 1]",
    )


def test_a_proven_row_goes_before_a_cheaper_one(tmp_path):
    proven, cheaper = complete(0.9, 500, drop=(0, 0.2)), complete(0.9, 100, drop=(0, 0.4))
    objectives = {"size_bytes": "minimize", "latency_ratio": "minimize"}
    slower = complete(0.9, 100, (1.2, 1.1, 1.3), drop=(0, 0.4))
    found = said(tmp_path, proven, slower, objectives=objectives)
    assert found.number == 1
    assert "all proven" in found.rule
    (tmp_path / "b").mkdir()
    found = said(tmp_path / "b", complete(0.9, 500, drop=(0, 0.4)), cheaper)
    assert found.number == 2
    assert "within the limits" in found.rule


def test_a_limited_quality_is_not_traded(tmp_path):
    best, knee, cheapest = complete(0.9, 900), complete(0.89, 200), complete(0.7, 190)
    rows = (best, knee, cheapest)
    assert said(tmp_path, *rows).number == 3, "the limit on the drop says what may be lost"
    (tmp_path / "b").mkdir()
    assert said(tmp_path / "b", *rows, constraints=[]).number == 2


def test_without_a_row_within_the_limits_nothing_is_said(tmp_path):
    results = stored(tmp_path, [BASELINE], constraints=["accuracy >= 0.95"])
    assert headline(results, results.front()) is None
    (tmp_path / "b").mkdir()
    results = stored(tmp_path / "b", [Outcome("failed", "no")])
    assert headline(results, results.front()) is None


def test_a_baseline_that_nothing_beats_is_said_to_be_so(tmp_path):
    found = said(tmp_path, complete(0.1, 100))
    assert (found.number, found.phrases) == (
        0,
        ("nothing beats the uncompressed model within the limits",),
    )


@pytest.mark.parametrize(
    ("value", "text"), [(11.84, "11.8"), (5.17, "5.2"), (0.978, "0.98"), (123.4, "123"), (0, "0")]
)
def test_numbers_have_the_digits_that_count(value, text):
    assert digits(value) == text
