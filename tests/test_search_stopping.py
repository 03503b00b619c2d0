"""When a training is given up: the rules as they are stated, on any curves."""

from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.config import parse_config
from search.stopping import (
    HalvingRule,
    MedianRule,
    Metric,
    Training,
    given_up,
    make_rule,
    trainings,
)
from storage import StageRun, Trial

ACCURACY = Metric("accuracy", True)
LOSS = Metric("loss", False)
EPOCHS = 9

scores = st.floats(0, 1).map(lambda x: round(x, 2))
curves = st.lists(scores, min_size=1, max_size=EPOCHS)


def own(*values, epochs=EPOCHS, key="own", stage="distillation"):
    return Training(stage, key, epochs, values)


def others(curves, **changes):
    return [own(*curve, key=str(number), **changes) for number, curve in enumerate(curves)]


# The median rule


@given(curves, st.lists(curves, max_size=7), st.integers(0, 3), st.integers(1, 4))
def test_the_median_rule_is_what_it_says(curve, peers, warmup, least):
    epoch = len(curve)
    means = [fmean(peer[:epoch]) for peer in peers if len(peer) >= epoch]
    hopeless = (
        warmup < epoch < EPOCHS and len(means) >= least and max(curve) < median(means or [0])
    )
    cause = given_up(MedianRule(warmup, least), ACCURACY, own(*curve), others(peers))
    assert bool(cause) == hopeless


def test_the_median_rule_says_what_it_compared():
    peers = others([[0.7, 0.8], [0.76, 0.78, 0.9], [0.79, 0.9], [0.5, 0.6]])
    cause = given_up(MedianRule(), ACCURACY, own(0.3, 0.41, epochs=EPOCHS), peers)
    assert cause == (
        "median rule: accuracy 0.41 at best by epoch 2 of 9, below the median 0.76 of 4 trainings"
    )


def test_of_a_score_that_should_be_low_the_high_one_is_given_up():
    peers = others([[0.1, 0.1]] * 4)
    cause = given_up(MedianRule(), LOSS, own(0.9, 0.5), peers)
    assert cause.endswith("loss 0.5 at best by epoch 2 of 9, above the median 0.1 of 4 trainings")
    assert not given_up(MedianRule(), LOSS, own(0.9, 0.05), peers)


# Successive halving


@given(curves, st.lists(curves, max_size=9), st.integers(2, 4), st.integers(1, 3))
def test_halving_is_what_it_says(curve, peers, reduction, first):
    epoch = len(curve)
    rungs = [first * reduction**k for k in range(10)]
    reached = [peer[epoch - 1] for peer in peers if len(peer) >= epoch] + [curve[-1]]
    kept = sorted(reached, reverse=True)[: len(reached) // reduction]
    hopeless = epoch in rungs and epoch < EPOCHS and bool(kept) and curve[-1] < min(kept)
    cause = given_up(HalvingRule(reduction, first), ACCURACY, own(*curve), others(peers))
    assert bool(cause) == hopeless


def test_halving_says_what_it_compared():
    peers = others([[0.9, 0.9, value] for value in (0.5, 0.6, 0.7, 0.3, 0.2)])
    cause = given_up(HalvingRule(3, 1), ACCURACY, own(0.1, 0.2, 0.41), peers)
    assert cause == (
        "successive halving: accuracy 0.41 after epoch 3 of 9 is number 4 of 6 trainings, and the"
        " best 2 go on"
    )
    assert not given_up(HalvingRule(3, 1), ACCURACY, own(0.1, 0.2), peers)  # no rung


@given(st.lists(curves, min_size=1, max_size=12), st.integers(2, 4))
def test_of_those_that_come_to_a_rung_some_always_go_on(peers, reduction):
    """Whoever comes, in whatever order: the best so far is never given up."""
    seen = []
    for number, curve in enumerate(peers):
        training = own(*curve[:1], key=str(number))
        if all(curve[0] >= other.scores[0] for other in seen):
            assert not given_up(HalvingRule(reduction, 1), ACCURACY, training, seen)
        seen.append(training)


# What both have in common

RULES = [MedianRule(0, 1), HalvingRule(2, 1)]
BETTER = others([[0.9]] * 4)


@pytest.mark.parametrize("rule", RULES)
def test_only_the_same_epoch_of_as_many_epochs_of_the_same_compressor_counts(rule):
    hopeless = own(0.1)
    assert given_up(rule, ACCURACY, hopeless, BETTER)
    assert not given_up(rule, ACCURACY, hopeless, others([[0.9]] * 4, epochs=8))
    assert not given_up(rule, ACCURACY, hopeless, others([[0.9]] * 4, stage="finetuning"))
    assert not given_up(rule, ACCURACY, hopeless, [])
    assert not given_up(rule, ACCURACY, own(0.1, 0.1), BETTER)  # none came as far


@pytest.mark.parametrize("rule", RULES)
def test_a_training_that_is_over_is_not_given_up(rule):
    peers = others([[0.9] * 2] * 4, epochs=2)
    assert given_up(rule, ACCURACY, own(0.1, epochs=2), peers)
    assert not given_up(rule, ACCURACY, own(0.1, 0.1, epochs=2), peers)


@pytest.mark.parametrize("rule", RULES)
def test_what_a_peer_has_trained_to_the_end_costs_nothing_and_goes_on(rule):
    begun, ended = own(0.1, 0.1), own(*[0.1] * EPOCHS)
    assert given_up(rule, ACCURACY, own(0.1), [*BETTER, begun])
    assert not given_up(rule, ACCURACY, own(0.1), [*BETTER, ended])


@pytest.mark.parametrize("rule", RULES)
def test_an_epoch_that_could_not_be_scored_does_not_count(rule):
    assert not given_up(rule, ACCURACY, own(None), BETTER)
    assert not given_up(rule, ACCURACY, own(0.1), others([[None]] * 4))


def test_an_unscored_epoch_before_counts_for_neither_best_nor_mean():
    peers = others([[None, 0.5]] * 4)
    assert given_up(MedianRule(), ACCURACY, own(None, 0.4), peers)
    assert not given_up(MedianRule(), ACCURACY, own(None, 0.6), peers)


@given(st.lists(curves, min_size=4, max_size=8), curves, st.randoms())
def test_the_order_of_the_others_means_nothing(peers, curve, random):
    shuffled = others(peers)
    random.shuffle(shuffled)
    for rule in RULES:
        causes = {
            given_up(rule, ACCURACY, own(*curve), found) for found in (others(peers), shuffled)
        }
        assert len(causes) == 1


# What trials tell


def stage(key, values, name="distillation", epochs=4):
    return StageRun(name, key, {}, 1.0, False, epochs=epochs, scores=tuple(values))


def test_each_training_is_told_once_as_far_as_it_went():
    pruning = StageRun("structured_pruning", "p", {}, 1.0, False)
    trials = [
        Trial(1, "stopped", {}, stages=(pruning, stage("a", [0.1, 0.2]))),
        Trial(2, "complete", {}, stages=(stage("a", [0.1, 0.2, 0.3, 0.4]),)),
        Trial(3, "stopped", {}, stages=(stage("a", [0.1]),)),
        Trial(4, "refused", {}, stages=(stage("b", [0.5]),)),
        Trial(5, "failed", {}, stages=(stage("c", [0.6]),)),
    ]
    assert trainings(trials) == (
        Training("distillation", "a", 4, (0.1, 0.2, 0.3, 0.4)),
        Training("distillation", "b", 4, (0.5,)),
    )


# The config


def stop_of(stop):
    config, problems = parse_config({"study": "s", "task": "t.py:T", "stop": stop})
    return config, [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("stop", "rule"),
    [
        ("none", None),
        ({}, None),
        ("median", MedianRule(1, 4)),
        ({"rule": "median", "warmup_epochs": 0, "min_trials": 7}, MedianRule(0, 7)),
        ("halving", HalvingRule(3, 1)),
        ({"rule": "halving", "reduction": 2, "min_epochs": 2}, HalvingRule(2, 2)),
    ],
)
def test_a_config_names_a_rule(stop, rule):
    config, problems = stop_of(stop)
    assert problems == []
    assert make_rule(config.stop) == rule
    again, problems = stop_of(config.stop.model_dump())  # as it is stored
    assert (again.stop, problems) == (config.stop, [])


@pytest.mark.parametrize(
    ("stop", "problem"),
    [
        ("hyperband", "stop.rule: input should be 'none', 'median' or 'halving', got 'hyperband'"),
        (
            {"rule": "median", "reduction": 3},
            "stop: rule 'median' has no 'reduction'; it takes warmup_epochs, min_trials",
        ),
        ({"min_trials": 3}, "stop: rule 'none' has no 'min_trials'; choose median or halving"),
        (
            {"rule": "halving", "reduction": 1},
            "stop.reduction: input should be greater than or equal to 2, got 1",
        ),
        (
            {"rule": "median", "min_trial": 3},
            "stop.min_trial: unknown key 'min_trial'",
        ),
        (True, "stop: must be keys and values, got True"),
    ],
)
def test_a_wrong_stop_is_a_problem(stop, problem):
    _, problems = stop_of(stop)
    assert len(problems) == 1
    assert problems[0].startswith(problem)
