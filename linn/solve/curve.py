"""Score against tokens: what a budget of so many tokens a task would have earned."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from linn.ledger import reward_interval
from linn.solve.account import Standing

_MOST_POINTS = 60


@dataclass(frozen=True)
class Point:
    """The mean score of all tasks, had each stopped at this many tokens."""

    tokens: int
    """Sampled tokens per task, at most."""
    spent: float
    """Mean of what the tasks had spent by then."""
    score: float
    """Mean score, of the highest possible: 0 to 1."""
    low: float
    """Lower end of the 95 % interval over tasks."""
    high: float
    """Upper end of the 95 % interval over tasks."""
    n: int
    """Tasks."""


def curve(
    standings: Sequence[Sequence[Standing]], highest: Sequence[float] | None = None
) -> list[Point]:
    """The curve of many tasks from each one's standings, at up to sixty places.

    Before its first standing a task has earned nothing; after its last it stays where it is.
    `highest`: the most that each task's score can be; default 1.
    """
    if not standings:
        return []
    most = highest or [1.0] * len(standings)

    # The curve can change only where some task's standing does.
    ends = sorted({one.tokens for task in standings for one in task})
    if len(ends) > _MOST_POINTS:
        step = (len(ends) - 1) / (_MOST_POINTS - 1)
        ends = [ends[round(place * step)] for place in range(_MOST_POINTS)]

    points = []
    for tokens in ends:
        scores = []
        total = 0
        for task, full in zip(standings, most, strict=True):
            last = _standing_at(task, tokens)
            scores.append(last.score / full)
            total += last.tokens
        interval = reward_interval(scores)
        mean_spent = total / len(standings)
        points.append(
            Point(tokens, mean_spent, interval.value, interval.low, interval.high, len(standings))
        )
    return points


def _standing_at(task: Sequence[Standing], tokens: int) -> Standing:
    """A task's last standing that cost no more than this; nothing before its first."""
    at = bisect.bisect_right([one.tokens for one in task], tokens)
    return task[at - 1] if at else Standing(0, 0.0)
