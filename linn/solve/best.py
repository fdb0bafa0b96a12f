"""`best`: the best of many replies, by the domain's grader or by a judge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from linn.solve.account import Account
from linn.solve.questions import rated_values
from linn.solve.result import Result
from linn.solve.rules import check_at_least
from linn.types import Prompt


@dataclass(frozen=True)
class BestRules:
    """How `best` chooses."""

    samples: int = 64
    """Replies sampled."""
    by: Literal["grader", "judge"] = "grader"
    """`grader`: the domain's own verdict, as where tests are at hand (the score is then pass@k).
    `judge`: the mean of a judge's ratings, which never sees the verdict."""
    ratings: int = 1
    """Ratings of each reply by the judge."""
    stop: float = 1.0
    """With `grader`: no further wave once a reply earns this much."""

    def __post_init__(self) -> None:
        check_at_least(1, samples=self.samples, ratings=self.ratings)


async def best(prompt: Prompt, account: Account, rules: BestRules) -> Result:
    """Sample wave by wave, and give the first reply of the highest value."""
    leader = None
    high = -math.inf
    seen = rated = 0
    while seen < rules.samples and not account.budget.is_spent:
        if rules.by == "grader" and high >= rules.stop:
            break
        # What a reply of this wave costs is laid on what was spent before it.
        tokens = account.budget.spent
        attempts = await account.play([prompt] * min(account.at_once, rules.samples - seen))
        seen += len(attempts)

        values: list[float | None] = [attempt.verdict.reward for attempt in attempts]
        costs = [attempt.tokens for attempt in attempts]
        if rules.by == "judge":
            # From here on the verdict is a score to report, and no reason to choose.
            texts = [attempt.reply.text for attempt in attempts]
            values, judged = await rated_values(prompt, texts, account, rules.ratings)
            costs = [cost + more for cost, more in zip(costs, judged, strict=True)]

        # The standing after each reply: one solve shows the whole curve.
        for attempt, value, cost in zip(attempts, values, costs, strict=True):
            tokens += cost
            rated += value is not None
            if value is not None and value > high:
                leader, high = attempt, value
            account.note(leader.verdict.reward if leader else 0.0, tokens)

    if leader is None:
        return Result("", 0.0, {"replies": seen, "rated": rated})
    counts = {"replies": seen, "rated": rated, "value": high}
    return Result(leader.reply.text, leader.verdict.reward, counts)
