"""avg@k, pass@k and maj@k against enumeration; coverage of the two-level interval."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linn.ledger.intervals import wilson
from linn.ledger.samples import maj_at_k, one_level, pass_at_k, two_level


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_all_choices_that_hold_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        choices = list(itertools.combinations(range(n), k))
        share = sum(any(i < c for i in choice) for choice in choices) / len(choices)
        assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


def enumerated_majority(answers, rewards, k):
    """The definition: every choice of k, ties shared among those with most votes."""
    total, choices = 0.0, 0
    for choice in itertools.combinations(range(len(answers)), k):
        choices += 1
        votes = Counter(answers[i] for i in choice if answers[i] is not None)
        if not votes:
            continue
        most = max(votes.values())
        top = [answer for answer, count in votes.items() if count == most]
        for answer in top:
            of_answer = [r for a, r in zip(answers, rewards, strict=True) if a == answer]
            total += sum(of_answer) / len(of_answer) / len(top)
    return total / choices


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=8), st.data())
def test_maj_at_k_is_the_mean_over_all_choices(answers, data):
    worth = {name: data.draw(st.sampled_from([0.0, 1.0, 0.5])) for name in "abcd"}
    rewards = [worth.get(answer, 0.0) for answer in answers]
    k = data.draw(st.integers(1, len(answers)))
    expected = enumerated_majority(answers, rewards, k)
    assert maj_at_k(answers, rewards, k) == pytest.approx(expected, abs=1e-9)


def test_majority_of_all_samples_shares_a_tie_and_gives_no_vote_to_silence():
    assert maj_at_k(["7", "7", "8", "8"], [1, 1, 0, 0], 4) == 0.5
    assert maj_at_k([None, None, None, "7"], [0, 0, 0, 1], 4) == 1.0
    assert maj_at_k([None, None], [0, 0], 2) == 0.0
    assert maj_at_k(["7"] * 40 + ["8"] * 24, [1] * 40 + [0] * 24, 64) == 1.0


def test_more_votes_make_a_majority_surer():
    answers, rewards = ["7"] * 12 + ["8"] * 8, [1] * 12 + [0] * 8
    curve = [maj_at_k(answers, rewards, k) for k in (1, 3, 5, 11, 20)]
    assert curve == sorted(curve) and curve[0] == pytest.approx(0.6) and curve[-1] == 1.0


# ---------------------------------------------------------------- intervals


def coverage(prompts, k, a, b, runs=1500, seed=0):
    """How often the interval holds the mean of prompts whose chances follow Beta(a, b)."""
    rng = np.random.default_rng(seed)
    chances = rng.beta(a, b, (runs, prompts))
    means = rng.binomial(k, chances) / k
    inside = 0
    for row in means:
        interval = two_level(row.tolist(), k)
        inside += interval.low <= a / (a + b) <= interval.high
    return inside / runs


@pytest.mark.slow
@pytest.mark.parametrize("prompts, k", [(30, 1), (30, 4), (30, 64), (100, 1), (100, 2), (164, 8)])
@pytest.mark.parametrize("a, b", [(0.5, 0.5), (2, 2), (0.3, 0.1)])
def test_the_two_level_interval_covers(prompts, k, a, b):
    # ± three standard errors of the simulation itself at 1,500 runs are 1.7 points.
    assert 0.93 <= coverage(prompts, k, a, b) <= 0.975


@pytest.mark.parametrize("k", [1, 4, 16])
@pytest.mark.parametrize("a, b", [(0.2, 3.8), (3.8, 0.2)])
def test_it_covers_near_nought_and_near_one(k, a, b):
    assert 0.93 <= coverage(100, k, a, b) <= 0.975


def rerun_coverage(prompts, k, a, b, runs=1500):
    """The same for other samples of the same prompts."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(runs):
        chances = rng.beta(a, b, prompts)
        right = rng.random((prompts, k)) < chances[:, None]
        interval = one_level(right.astype(float).tolist())
        inside += interval.low <= chances.mean() <= interval.high
    return inside / runs


@pytest.mark.slow
@pytest.mark.parametrize("prompts, k, a, b", [(30, 8, 0.5, 0.5), (60, 4, 2, 2), (30, 16, 2, 8)])
def test_the_interval_of_a_rerun_covers_the_chances_of_its_own_prompts(prompts, k, a, b):
    assert 0.93 <= rerun_coverage(prompts, k, a, b) <= 0.975


def test_a_wrong_interval_would_be_found():
    """The pooled interval, as if all samples were independent, covers far too little."""
    rng = np.random.default_rng(0)
    means = rng.binomial(16, rng.beta(0.5, 0.5, (400, 30))) / 16
    pooled = [wilson(row.mean(), 30 * 16) for row in means]
    assert np.mean([low <= 0.5 <= high for low, high in pooled]) < 0.6


def test_one_sample_a_prompt_is_nearly_wilson():
    interval = two_level([1.0] * 40 + [0.0] * 60, 1)
    low, high = wilson(0.4, 100)
    assert interval.low == pytest.approx(low, abs=0.004)
    assert interval.high == pytest.approx(high, abs=0.004)


def test_equal_prompts_prove_no_certainty():
    for value in (0.0, 1.0):
        interval = two_level([value] * 30, 8)
        assert interval.high - interval.low > 0.05
    assert one_level([[1.0]] * 5) is None
    assert one_level([[0.0, 3.0]]) is None
    flat = one_level([[1.0, 1.0]] * 10)
    assert flat is not None and flat.value == 1.0 and flat.low < 1.0


def test_rewards_beyond_a_share_take_students_interval():
    interval = two_level([float(i) for i in range(11)], 1)
    assert interval.value == 5.0
    # Student's quantile of ten degrees of freedom, from a table.
    assert interval.high - 5.0 == pytest.approx(2.228, rel=0.01)
