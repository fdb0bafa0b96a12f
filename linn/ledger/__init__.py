"""The ledger: what every checkpoint scores in every domain, with intervals.

And what follows from it: changes, teachers, recovery. Everything here is a function of its
arguments to the byte: no clock, no randomness, sums by `math.fsum`. docs/statistics.md says what
the numbers mean and how well they do.
"""

from __future__ import annotations

from linn.ledger.changes import Change, changes, compared, loss_line, regressions
from linn.ledger.file import Ledger, latest, score
from linn.ledger.intervals import (
    Difference,
    Interval,
    difference,
    discoveries,
    mean,
    moved,
    paired,
    reward_interval,
    wilson,
)
from linn.ledger.recovery import GapShare, Taught, gap_share, taught_domain
from linn.ledger.rewards import Cell, RewardFiles, Rewards, RewardsOf, no_rewards, write_rewards
from linn.ledger.teachers import Choice, best, place_of, row_at, teacher_of

__all__ = [
    "Cell",
    "Change",
    "Choice",
    "Difference",
    "GapShare",
    "Interval",
    "Ledger",
    "RewardFiles",
    "Rewards",
    "RewardsOf",
    "Taught",
    "best",
    "changes",
    "compared",
    "difference",
    "discoveries",
    "gap_share",
    "latest",
    "loss_line",
    "mean",
    "moved",
    "no_rewards",
    "paired",
    "place_of",
    "regressions",
    "reward_interval",
    "row_at",
    "score",
    "taught_domain",
    "teacher_of",
    "wilson",
    "write_rewards",
]
