"""Intervals and tests: shares and graded rewards, differences of the same prompts, many tests.

Closed forms, each a few lines: scipy takes longer to import than all of `linn ls` takes to run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linn.types import Score

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

FALSE_DISCOVERIES = 0.05
"""Share of a run's flags that may be false, in expectation (Benjamini and Hochberg 1995)."""

LEAST_SHARED = 0.5
"""Two evaluations are compared prompt by prompt where they share this much of the smaller."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    """The estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""

    @property
    def holds_zero(self) -> bool:
        """Whether 0 is among the values that the data leave open."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Difference(Interval):
    """After minus before."""

    p: float
    """Two-sided p-value of no difference; below 0.05 just where the interval leaves 0 out."""
    pairs: int
    """Prompts that both sides answered; 0: compared as if they had answered different prompts."""

    @property
    def paired(self) -> bool:
        """Whether it was taken prompt by prompt."""
        return self.pairs > 0

    @property
    def error(self) -> float:
        """The standard error of the difference: half its interval over the normal quantile."""
        return (self.high - self.low) / (2 * Z)


# ---------------------------------------------------------------- one evaluation


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of `n`, which need not be whole.

    Honest at 0, at 1 and for small n, where the normal interval is not.
    """
    assert n > 0 and 0 <= share <= 1, (share, n)
    # Both ends solve (p - share)² = Z² p (1 - p) / n for p.
    square = Z * Z
    scale = 1 + square / n
    variance = share * (1 - share) / n + square / (4 * n * n)
    centre = (share + square / (2 * n)) / scale
    half = Z * math.sqrt(variance) / scale

    # Rounding must not push the estimate itself outside.
    low = max(0.0, min(share, centre - half))
    high = min(1.0, max(share, centre + half))
    return low, high


def reward_interval(rewards: Sequence[float]) -> Interval:
    """The mean reward of independent prompts with its 95 % interval.

    Rewards within [0, 1] take Wilson's interval at their effective number: n times the variance
    that 0/1 rewards of that mean would have, over their own. Of 0/1 rewards that is Wilson itself;
    for graded ones it covers as well as a bootstrap does, without its draws (docs/statistics.md).
    Equal rewards take n: n prompts never prove certainty. Rewards beyond [0, 1] take the normal
    interval.
    """
    n = len(rewards)
    assert n, "no rewards"
    value = math.fsum(rewards) / n
    squares = math.fsum((reward - value) ** 2 for reward in rewards)
    if min(rewards) < 0 or max(rewards) > 1:
        half = Z * math.sqrt(squares / max(1, n - 1) / n)
        return Interval(value, value - half, value + half)

    # Rounding may put the mean of equal rewards a bit beyond them.
    value = min(max(rewards), max(min(rewards), value))
    effective = float(n)
    if min(rewards) < max(rewards):
        effective = n * value * (1 - value) / (squares / n)
    low, high = wilson(value, effective)
    return Interval(value, low, high)


# ---------------------------------------------------------------- two evaluations


def paired(before: Mapping[str, float], after: Mapping[str, float]) -> Difference | None:
    """After minus before over the prompts that both have; None where they share too few.

    The interval of Agresti and Min (2005, Statistics in Medicine 24) for matched pairs: Wald's
    after adding half a pair of each of the four outcomes of 0/1 rewards, so that few changed
    prompts, or none, leave an honest width. Graded rewards: the added pairs move by the largest
    move that was seen. One formula for both, with Student's quantile; the p-value belongs to the
    same statistic, so an interval and its test never disagree.
    """
    shared = [prompt for prompt in before if prompt in after]
    if not shared or len(shared) < LEAST_SHARED * min(len(before), len(after)):
        return None
    return moved([after[prompt] - before[prompt] for prompt in shared])


def moved(moves: Sequence[float]) -> Difference:
    """The mean of the prompts' moves with its interval and p-value; see `paired`."""
    total = math.fsum(moves)
    centre, variance = centre_and_variance(moves)
    freedom = max(1, len(moves) - 1)
    half = student(Z, freedom) * math.sqrt(variance)
    value = total / len(moves)
    return Difference(
        value=value,
        low=min(value, centre - half),
        high=max(value, centre + half),
        p=p_value(normal(abs(centre) / math.sqrt(variance), freedom)),
        pairs=len(moves),
    )


def centre_and_variance(moves: Sequence[float]) -> tuple[float, float]:
    """The mean move and its variance, after two prompts are added: see `paired`.

    Of the two, half moved up by the largest move, half moved down, and one stayed.
    """
    # Where nothing moved at all, a whole prompt might have: the range of a reward.
    largest = max(map(abs, moves)) or 1.0
    n = len(moves) + 2
    centre = math.fsum(moves) / n
    squares = math.fsum(move * move for move in moves) + largest * largest
    return centre, (squares / n - centre * centre) / n


def p_value(z: float) -> float:
    """Two-sided p-value of a standard normal statistic."""
    return math.erfc(abs(z) / math.sqrt(2))


def normal(t: float, freedom: int) -> float:
    """The normal quantile of the same tail as Student's `t` (Wallace 1959), to three digits."""
    scale = (8 * freedom + 1) / (8 * freedom + 3)
    return scale * math.sqrt(freedom * math.log1p(t * t / freedom))


def student(z: float, freedom: int) -> float:
    """Student's quantile of the same tail as the normal `z`: the inverse of `normal`."""
    scale = (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1((z * scale) ** 2 / freedom))


def difference(before: Score, after: Score) -> Difference:
    """`after` minus `before` where their prompts are not at hand or not the same.

    Newcombe's square-and-add of the two rows' own intervals, for shares and graded rewards alike.
    It takes the two as independent; where the same prompts stand behind both, the true interval is
    narrower, so a flag errs on the quiet side.
    """
    change = after.value - before.value
    # Each end takes the ends of both rows that move the difference that way.
    low = change - math.hypot(after.value - after.low, before.high - before.value)
    high = change + math.hypot(after.high - after.value, before.value - before.low)

    # The end on the side of 0 decides whether the interval leaves it out, so the test takes it.
    to_zero = change - low if change > 0 else high - change
    p = 1.0
    if to_zero > 0:
        p = p_value(Z * change / to_zero)
    elif change:
        p = 0.0
    return Difference(change, low, high, p, pairs=0)


# ---------------------------------------------------------------- several


def discoveries(p_values: Sequence[float], share: float = FALSE_DISCOVERIES) -> list[bool]:
    """Which of many tests are discoveries, by Benjamini and Hochberg (1995).

    In expectation at most `share` of the discoveries are false; where nothing changed at all, at
    most `share` of tables hold any.
    """
    # The largest k for which k p-values are at most k / m of the share; those k are discoveries.
    ordered = sorted(p_values)
    bound = -1.0
    for rank, p in enumerate(ordered, 1):
        if p <= share * rank / len(ordered):
            bound = p
    return [p <= bound for p in p_values]


def mean(parts: Sequence[Interval]) -> Interval | None:
    """The mean of independent estimates with its interval; None of none."""
    if not parts:
        return None
    k = len(parts)
    value = math.fsum(part.value for part in parts) / k
    below = math.hypot(*(part.value - part.low for part in parts)) / k
    above = math.hypot(*(part.high - part.value for part in parts)) / k
    return Interval(value, low=value - below, high=value + above)
