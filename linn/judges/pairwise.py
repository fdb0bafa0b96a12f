"""Pairwise judging for RLHF (paper §4.4): which pairs, what a judge said, and how comparisons become one reward a reply."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from linn.errors import UserError
from linn.judges.text import FENCES, conversation_text, fenced, history
from linn.types import Message, seed_of

Pairs = Literal["all", "circular"]
Order = Literal["random", "both", "given"]


@dataclass(frozen=True)
class Comparison:
    """What a judge said of two replies shown as `response_1` and `response_2`."""

    score_1: float = 3.0
    """How good the first is, 1 to 5."""
    score_2: float = 3.0
    """How good the second is, 1 to 5."""
    ranking: float = 3.5
    """1: the first is far better … 6: the second is far better."""


UNREADABLE = Comparison()
"""Stands for a verdict that could not be read: equal scores and no ranking, so nobody gains."""


@dataclass(frozen=True)
class Shaping:
    """Weights of the length terms (paper §4.4); lengths are characters of the stripped text, relative to the group."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - a recipe's misspelt key is refused

    think: float = 0.5
    """Weight of the zero-sum term on the thoughts' lengths."""
    answer: float = 0.5
    """Weight of the zero-sum term on the answers' lengths."""
    bonus_think: float = 0.5
    """For the shortest thought, if its reply is among the best."""
    bonus_answer: float = 0.5
    """For the shortest answer, if its reply is among the best."""
    top: float = 0.2
    """The best: scores not below the k-th best, k = max(1, int(n * top))."""


def pairs_of(
    count: int, pairs: Pairs = "all", order: Order = "random", seed: int | str = 0
) -> list[tuple[int, int]]:
    """Which replies are compared, as (shown first, shown second).

    `all`: every pair; `circular`: each with the next, so that each is shown once in each place (`order` does not apply).
    `random` turns each pair by `seed`; `both` judges it twice, once each way; `given` keeps the lower index first.
    """
    if pairs not in ("all", "circular") or order not in ("random", "both", "given"):
        raise UserError(
            f"pairs is {pairs!r}, order is {order!r}; allowed: pairs all, circular; order random, both, given"
        )
    if count < 2:
        return []
    if pairs == "circular":
        return [(i, (i + 1) % count) for i in range(count)]
    every = [(i, j) for i in range(count) for j in range(i + 1, count)]
    if order == "both":
        return [pair for i, j in every for pair in ((i, j), (j, i))]
    if order == "random":
        return [
            (i, j) if random.Random(seed_of("order", seed, i, j)).random() < 0.5 else (j, i)
            for i, j in every
        ]
    return every


def base_rewards(
    count: int, compared: Sequence[tuple[int, int]], said: Sequence[Comparison]
) -> list[float]:
    """Mean score of each reply over its comparisons, ties broken by the ranking; 3 for a reply that was never compared."""
    assert len(compared) == len(said), (len(compared), len(said))
    sums, times = [0.0] * count, [0] * count
    for (i, j), verdict in zip(compared, said, strict=True):
        edge = 3.5 - verdict.ranking if verdict.score_1 == verdict.score_2 else 0.0
        sums[i] += verdict.score_1 + edge
        sums[j] += verdict.score_2 - edge
        times[i] += 1
        times[j] += 1
    return [total / n if n else 3.0 for total, n in zip(sums, times, strict=True)]


def length_terms(lengths: Sequence[int]) -> list[float]:
    """Zero-sum weights, the shortest highest: 1 - (len - min) / (max - min), less the group's mean; 0 for all where all are equal."""
    if not lengths or max(lengths) == min(lengths):
        return [0.0] * len(lengths)
    low, span = min(lengths), max(lengths) - min(lengths)
    weights = [1.0 - (length - low) / span for length in lengths]
    mean = sum(weights) / len(weights)
    return [w - mean for w in weights]


def bonus_winner(lengths: Sequence[int], base: Sequence[float], top: float = 0.2) -> int | None:
    """The first of the shortest non-empty texts, if its base reward is among the best; else nobody."""
    filled = [i for i, length in enumerate(lengths) if length > 0]
    if len(base) < 2 or not filled:
        return None
    shortest = min(filled, key=lambda i: lengths[i])
    bar = sorted(base, reverse=True)[max(1, int(len(base) * top)) - 1]
    return shortest if base[shortest] >= bar else None


def group_rewards(
    base: Sequence[float],
    thoughts: Sequence[str],
    answers: Sequence[str],
    shaping: Shaping | None = None,
) -> list[float]:
    """Base rewards plus length terms and bonuses, one a reply; the bonus looks at base rewards alone."""
    shaping = shaping or Shaping()
    rewards = list(base)
    parts = (
        (thoughts, shaping.think, shaping.bonus_think),
        (answers, shaping.answer, shaping.bonus_answer),
    )
    for texts, weight, bonus in parts:
        lengths = [len(text.strip()) for text in texts]
        for i, term in enumerate(length_terms(lengths)):
            rewards[i] += weight * term
        winner = bonus_winner(lengths, base, shaping.top)
        if winner is not None:
            rewards[winner] += bonus
    return rewards


def read_comparison(text: str) -> Comparison | None:
    """The last JSON object in a judge's answer that holds `score_1`, `score_2` (1-5) and `ranking` (1-6); None where there is none."""
    found = _last_object(text, ("score_1", "score_2", "ranking"))
    if found is None:
        return None
    first, second, ranking = found
    return (
        Comparison(first, second, ranking)
        if min(first, second) >= 1 and max(first, second) <= 5 and 1 <= ranking <= 6
        else None
    )


def read_score(text: str, low: float = 1.0, high: float = 5.0) -> float | None:
    """`score` of the last JSON object in a judge's answer that holds one; None where there is none or it lies outside."""
    found = _last_object(text, ("score",))
    return found[0] if found is not None and low <= found[0] <= high else None


def _last_object(text: str, keys: tuple[str, ...]) -> tuple[float, ...] | None:
    """The finite numbers under `keys` of the last JSON object that holds them all."""
    text = text[-20_000:]  # the verdict stands at the end
    decoder = json.JSONDecoder()
    place = len(text)
    for _ in range(200):  # attempts, so that an answer of braces alone stays cheap
        place = text.rfind("{", 0, place)
        if place < 0:
            return None
        try:
            value, _end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and all(_is_figure(value.get(key)) for key in keys):
            return tuple(float(value[key]) for key in keys)
    return None


def _is_figure(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
    )  # nor NaN, nor an integer beyond floats


# ---------------------------------------------------------------- questions


def judge_question(
    messages: Sequence[Message], first: str, second: str, principle: str = ""
) -> tuple[Message, ...]:
    """What a general model is asked when it compares two answers; it sees answers only, never thoughts."""
    ask_for = (
        "Compare two responses to the last request of the conversation. "
        + (
            "Judge by the principle alone. "
            if principle
            else "Judge how helpful, correct and to the point each is; length is no merit. "
        )
        + FENCES
    )
    answer = (
        "End your reply with one JSON object: score_1 and score_2 from 1 (useless) to 5 (excellent), ranking from 1 (response_1 is far "
        'better) to 6 (response_2 is far better), e.g. {"score_1": 4, "score_2": 2, "ranking": 2}.'
    )
    parts = [
        ("conversation", conversation_text(messages)),
        ("principle", principle),
        ("response_1", first),
        ("response_2", second),
    ]
    return (
        Message(
            "user",
            f"{ask_for}\n\n{fenced([part for part in parts if part[0] != 'principle' or principle])}\n\n{answer}",
        ),
    )


def score_question(
    messages: Sequence[Message], response: str, principle: str = ""
) -> tuple[Message, ...]:
    """What a general model is asked when it scores one answer alone, 1 to 5."""
    ask_for = (
        "Score a response to the last request of the conversation. "
        + (
            "Judge by the principle alone. "
            if principle
            else "Judge how helpful, correct and to the point it is; length is no merit. "
        )
        + FENCES
    )
    answer = 'End your reply with one JSON object: score from 1 (useless) to 5 (excellent), e.g. {"score": 2}.'
    parts = [
        ("conversation", conversation_text(messages)),
        ("principle", principle),
        ("response", response),
    ]
    return (
        Message(
            "user",
            f"{ask_for}\n\n{fenced([part for part in parts if part[0] != 'principle' or principle])}\n\n{answer}",
        ),
    )


def genrm_question(
    messages: Sequence[Message], first: str, second: str, principle: str = ""
) -> tuple[Message, ...]:
    """What a generative reward model is shown: the conversation, then the principle and both answers as turns of their own roles."""
    own = [Message("principle", principle)] if principle else []
    return (*history(messages), *own, Message("response_1", first), Message("response_2", second))
