"""Which worker samples which request."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from linn.engine.local.sampler import LocalSampler
from linn.types import Completion, Sampling


class Noting:
    """Workers that note what each is asked, and answer with one token."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[list[tuple[int, ...]]] = []

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        assert name == "generate"
        self.asked = [[ids for ids, _, _ in requests] for _, requests, _ in arguments]
        done = Completion(ids=(7,), logprobs=(-1.0,), finish="length")
        return [[done] * len(requests) for _, requests, _ in arguments]


def prompt(length: int, number: int) -> tuple[int, ...]:
    return (number,) * length


def test_prompts_are_dealt_by_their_tokens_and_siblings_stay_together() -> None:
    draw = random.Random(0)
    groups = [prompt(draw.randint(30, 500), number) for number in range(16)]
    pool = Noting(2)
    asked = [(ids, Sampling(64), seed) for seed in range(8) for ids in groups]
    LocalSampler(pool).run(asked)

    one, two = (set(share) for share in pool.asked)
    assert one | two == set(groups) and not one & two
    assert [len(share) for share in pool.asked] == [8 * len(one), 8 * len(two)]
    tokens = [sum(map(len, share)) + 8 * 64 * len(share) for share in (one, two)]
    assert abs(tokens[0] - tokens[1]) < 100, tokens


def test_who_goes_on_stays_where_it_ran_and_counts_there() -> None:
    pool = Noting(2)
    sampler = LocalSampler(pool)
    talks = [prompt(200, 1), prompt(199, 2)]
    sampler.run([(ids, Sampling(10, more=True), 0) for ids in talks])
    assert pool.asked == [[talks[0]], [talks[1]]]

    # The second one is told much more, so all new prompts go to the first's worker.
    longer = [(*talks[0], 7, 3), (*talks[1], 7, *prompt(90, 4))]
    fresh = [prompt(20, 5), prompt(21, 6)]
    sampler.run([(ids, Sampling(10, more=True), 0) for ids in (*fresh, *longer)])
    assert pool.asked == [[*fresh, longer[0]], [longer[1]]]
