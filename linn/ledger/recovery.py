"""What distillation gave back: its share of the gap between the student's start and its teachers.

The share is a ratio of two uncertain means of the same prompts, so its interval is Fieller's (1954,
JRSS B 16): no share is divided out where the gap itself may be 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from linn.ledger.intervals import (
    LEAST_SHARED,
    Difference,
    Interval,
    Z,
    centre_and_variance,
    difference,
    moved,
)
from linn.ledger.rewards import RewardsOf, no_rewards
from linn.types import Score


@dataclass(frozen=True)
class Taught:
    """One taught domain: where distillation started, where it ended, and its teacher."""

    domain: str
    """The domain."""
    teacher: str
    """The checkpoint that taught it: `sft`, or `sft:40` of one within a stage."""
    start: Score
    """Before distillation."""
    after: Score
    """After it."""
    top: Score
    """The teacher's."""
    gain: Difference
    """After minus start."""
    gap: Difference
    """Teacher minus start; exactly 0 where the start itself teaches."""
    gain_variance: float
    """Variance of the mean gain."""
    gap_variance: float
    """Variance of the mean gap."""
    covariance: float
    """Of the two means: both are taken from the same start, on the same prompts."""

    @property
    def is_anchor(self) -> bool:
        """The student's own start teaches: there is nothing to gain, only something to keep."""
        return (self.start.stage, self.start.step) == (self.top.stage, self.top.step)


@dataclass(frozen=True)
class GapShare:
    """How much of the gap to the teacher was closed, in one domain or pooled over several."""

    gain: Interval
    """Mean of after minus start."""
    gap: Interval
    """Mean of teacher minus start."""
    share: Interval | None
    """Gain over gap; None where the gap cannot be told from 0, or the teacher stands below."""


def taught_domain(
    teacher: str, start: Score, after: Score, top: Score, rewards: RewardsOf = no_rewards
) -> Taught:
    """One taught domain, prompt by prompt where all three checkpoints' rewards are there."""
    of_start, of_after, of_top = rewards(start), rewards(after), rewards(top)
    shared = [prompt for prompt in of_start if prompt in of_after and prompt in of_top]
    fewest = min(len(of_start), len(of_after), len(of_top))
    if not shared or len(shared) < LEAST_SHARED * fewest:
        return _unpaired(teacher, start, after, top)

    gains = [of_after[prompt] - of_start[prompt] for prompt in shared]
    gaps = [of_top[prompt] - of_start[prompt] for prompt in shared]
    n = len(shared)
    gain, gap = moved(gains), moved(gaps)
    products = math.fsum(
        (one - gain.value) * (other - gap.value) for one, other in zip(gains, gaps, strict=True)
    )
    taught = Taught(
        domain=start.domain,
        teacher=teacher,
        start=start,
        after=after,
        top=top,
        gain=gain,
        gap=gap,
        gain_variance=centre_and_variance(gains)[1],
        gap_variance=centre_and_variance(gaps)[1],
        covariance=products / n / n,
    )
    return _anchored(taught) if taught.is_anchor else taught


def _unpaired(teacher: str, start: Score, after: Score, top: Score) -> Taught:
    """From the rows' own intervals, as if they had answered different prompts."""
    before, later, highest = (_variance(row) for row in (start, after, top))
    taught = Taught(
        domain=start.domain,
        teacher=teacher,
        start=start,
        after=after,
        top=top,
        gain=difference(start, after),
        gap=difference(start, top),
        gain_variance=before + later,
        gap_variance=before + highest,
        covariance=before,  # gain and gap share the start, and its error
    )
    return _anchored(taught) if taught.is_anchor else taught


def _anchored(taught: Taught) -> Taught:
    """The gap of a checkpoint to itself is 0, without any error."""
    none = Difference(0.0, 0.0, 0.0, p=1.0, pairs=taught.gap.pairs)
    return replace(taught, gap=none, gap_variance=0.0, covariance=0.0)


def _variance(row: Score) -> float:
    return ((row.high - row.low) / (2 * Z)) ** 2


def gap_share(domains: Sequence[Taught]) -> GapShare:
    """(after − start)/(teacher − start), pooled: the domains' mean gain over their mean gap.

    Pooled over every taught domain it is free of selection: which domains show a gap on these
    prompts is partly luck, and to count those alone would turn that luck into recovery.
    """
    assert domains, "a share of no domains"
    k = len(domains)
    gain = math.fsum(taught.gain.value for taught in domains) / k
    gap = math.fsum(taught.gap.value for taught in domains) / k
    gain_variance = math.fsum(taught.gain_variance for taught in domains) / k**2
    gap_variance = math.fsum(taught.gap_variance for taught in domains) / k**2
    covariance = math.fsum(taught.covariance for taught in domains) / k**2
    return GapShare(
        gain=_normal(gain, gain_variance),
        gap=_normal(gap, gap_variance),
        share=_fieller(gain, gap, gain_variance, gap_variance, covariance),
    )


def _normal(value: float, variance: float) -> Interval:
    half = Z * math.sqrt(variance)
    return Interval(value, value - half, value + half)


def _fieller(
    gain: float, gap: float, gain_variance: float, gap_variance: float, covariance: float
) -> Interval | None:
    """The shares r for which gain - r gap is within its own 95 % of 0."""
    # (gain - r gap)² = Z² (V_gain - 2 r C + r² V_gap): the ends solve a r² - 2 b r + c = 0.
    a = gap**2 - Z**2 * gap_variance
    b = gain * gap - Z**2 * covariance
    c = gain**2 - Z**2 * gain_variance
    if gap <= 0 or a <= 0:
        return None
    half = math.sqrt(max(0.0, b * b - a * c))
    value = gain / gap
    return Interval(value, min(value, (b - half) / a), max(value, (b + half) / a))
