"""Several samples of each prompt: avg@k, pass@k and maj@k, with two-level intervals.

Formulas, no draws: docs/evaluation.md says how well they cover.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from linn.ledger.intervals import Interval, Z, student


def two_level(means: Sequence[float], k: int) -> Interval:
    """The mean over prompts with its 95 % interval over other prompts and other samples.

    `means`: one estimate per prompt, each from `k` samples. Their variance holds both levels: that
    between prompts, and a k-th of that between the samples of one. Within [0, 1] it is Wilson's
    interval at the effective number of prompts (see `reward_interval`) with Student's quantile:
    few prompts tell their own variance badly. Beyond [0, 1] it is Student's.
    """
    n = len(means)
    assert n and k >= 1, (n, k)
    value = math.fsum(means) / n
    squares = math.fsum((mean - value) ** 2 for mean in means)
    quantile = student(Z, n - 1) if n > 1 else student(Z, 1)
    if min(means) < 0 or max(means) > 1:
        half = quantile * math.sqrt(squares / max(1, n - 1) / n)
        return Interval(value, value - half, value + half)

    # Rounding may put the mean of equal means a bit beyond them.
    value = min(max(means), max(min(means), value))
    if min(means) == max(means):  # no variance was estimated: plain Wilson
        return _score_interval(value, float(n), Z)
    effective = n * value * (1 - value) / (squares / (n - 1))
    # Samples of one prompt can be no more than independent of each other.
    return _score_interval(value, min(effective, float(n * k)), quantile)


def one_level(rewards: Sequence[Sequence[float]]) -> Interval | None:
    """The same mean with its 95 % interval over other samples of the very same prompts.

    How far another run of the same model on the same rows may come out otherwise. `rewards`: those
    of each prompt's samples. None where no prompt has two samples, which tell their variance, or
    where a reward lies beyond [0, 1].
    """
    own = [[float(reward) for reward in prompt] for prompt in rewards if prompt]
    flat = [reward for prompt in own for reward in prompt]
    if not own or min(map(len, own)) < 2 or min(flat) < 0 or max(flat) > 1:
        return None
    n = len(own)
    means = [math.fsum(prompt) / len(prompt) for prompt in own]
    value = min(1.0, max(0.0, math.fsum(means) / n))
    variance = 0.0
    for prompt, mean in zip(own, means, strict=True):
        squares = math.fsum((reward - mean) ** 2 for reward in prompt)
        variance += squares / (len(prompt) - 1) / len(prompt)
    variance /= n * n

    # Where no prompt's samples differ, as many samples as there are prove no certainty.
    effective = float(len(flat))
    if variance > 0:
        effective = value * (1 - value) / variance
    return _score_interval(value, effective, Z)


def _score_interval(share: float, n: float, quantile: float) -> Interval:
    """Wilson's interval of a share of `n`, at another quantile than the normal one."""
    square = quantile * quantile
    scale = 1 + square / n
    centre = (share + square / (2 * n)) / scale
    half = quantile * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / scale
    low = max(0.0, min(share, centre - half))
    high = min(1.0, max(share, centre + half))
    return Interval(share, low, high)


# ---------------------------------------------------------------- several samples of one prompt


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right, from c right ones of n.

    It is 1 - C(n-c, k) / C(n, k) (Chen et al. 2021): the share of all choices of k samples that
    hold a right one.
    """
    assert 0 <= c <= n and 1 <= k <= n, (n, c, k)
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def maj_at_k(answers: Sequence[Hashable | None], rewards: Sequence[float], k: int) -> float:
    """The expected reward of the answer that most of k samples gave, k of those drawn at random.

    It is the mean over all choices of k samples. Ties go to each of the tied answers with equal
    chance. None is no answer and has no vote; where nobody votes the reward is 0. An answer's
    reward is the mean of those of the samples that gave it.
    """
    n = len(answers)
    assert n == len(rewards) and 1 <= k <= n, (n, len(rewards), k)
    counts = Counter(answer for answer in answers if answer is not None)
    sums = dict.fromkeys(counts, 0.0)
    for answer, reward in zip(answers, rewards, strict=True):
        if answer is not None:
            sums[answer] += reward
    classes = [(count, sums[answer] / count) for answer, count in counts.items()]
    silent = n - sum(counts.values())

    expected = math.fsum(_won_with(votes, classes, silent, k) for votes in range(1, k + 1))
    return expected / math.comb(n, k)


def _won_with(votes: int, classes: Sequence[tuple[int, float]], silent: int, k: int) -> float:
    """The summed reward of all choices of k samples whose winner has just so many votes.

    `classes`: (samples, reward) of each answer; `silent`: samples without one.
    """
    # (samples chosen, answers at the top) -> (choices, the summed rewards of those at the top).
    states: dict[tuple[int, int], tuple[int, float]] = {(0, 0): (1, 0.0)}
    for count, reward in classes:
        following: dict[tuple[int, int], tuple[int, float]] = {}
        for (chosen, top), (ways, summed) in states.items():
            for own in range(min(votes, count, k - chosen) + 1):
                times = math.comb(count, own)
                wins = own == votes
                state = (chosen + own, top + wins)
                gained = summed + ways * reward if wins else summed
                before, worth = following.get(state, (0, 0.0))
                following[state] = (before + times * ways, worth + times * gained)
        states = following

    total = 0.0
    for (chosen, top), (_, summed) in states.items():
        if top and k - chosen <= silent:
            total += summed / top * math.comb(silent, k - chosen)
    return total
