"""`vote`: the answer that most replies give, each counted once or by a verifier's rating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from linn.solve.account import Account
from linn.solve.answers import answer_key
from linn.solve.budget import Attempt
from linn.solve.questions import rated_values
from linn.solve.result import Result
from linn.solve.rules import check_at_least
from linn.types import Prompt


@dataclass(frozen=True)
class VoteRules:
    """How `vote` counts."""

    samples: int = 64
    """Replies sampled."""
    weigh: Literal["equal", "judge"] = "equal"
    """`judge`: each reply counts as much as the judge's rating of it, 0 to 1."""
    ratings: int = 1
    """Ratings of each reply by the judge."""

    def __post_init__(self) -> None:
        check_at_least(1, samples=self.samples, ratings=self.ratings)


async def vote(prompt: Prompt, account: Account, rules: VoteRules) -> Result:
    """Sample, count equal answers, and give the first reply of the largest count.

    Ties go to the answer that came first. Replies without an answer do not vote; a reply whose
    rating cannot be read weighs nothing.
    """
    counts: dict[str, float] = {}
    firsts: dict[str, Attempt] = {}
    leader = None
    seen = 0

    # Wave by wave, so that a budget that ends leaves no reply unrated but the last wave's.
    while seen < rules.samples and not account.budget.is_spent:
        tokens = account.budget.spent
        attempts = await account.play([prompt] * min(account.at_once, rules.samples - seen))
        seen += len(attempts)
        weights: list[float | None] = [1.0] * len(attempts)
        costs = [attempt.tokens for attempt in attempts]
        if rules.weigh == "judge":
            texts = [attempt.reply.text for attempt in attempts]
            weights, judged = await rated_values(prompt, texts, account, rules.ratings)
            costs = [own + more for own, more in zip(costs, judged, strict=True)]

        # The standing after each reply: one solve shows the whole curve.
        for attempt, weight, cost in zip(attempts, weights, costs, strict=True):
            tokens += cost
            key = answer_key(attempt.reply.text)
            if key:
                # Of equal counts `max` gives the answer that came first.
                firsts.setdefault(key, attempt)
                counts[key] = counts.get(key, 0.0) + (weight or 0.0)
                leader = firsts[max(counts, key=counts.__getitem__)]
            account.note(leader.verdict.reward if leader else 0.0, tokens)

    if leader is None:
        return Result("", 0.0, {"replies": seen, "answers": 0})
    shares = {"replies": seen, "answers": len(counts), "votes": max(counts.values())}
    return Result(leader.reply.text, leader.verdict.reward, shares)
