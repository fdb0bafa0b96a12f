"""Pairwise judging for RLHF (paper §4.4): which pairs, what is asked, and one reward per reply."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from linn.errors import UserError
from linn.judges.marks import is_number, keyed_question, numbers_in
from linn.judges.text import Question, conversation_text, history
from linn.types import Message, seed_of

Pairs = Literal["all", "circular"]
Order = Literal["random", "both", "given"]

_END_OF_ANSWER = 20_000
"""Characters at the end of a judge's answer in which its verdict is looked for."""
_MOST_OBJECTS = 200
"""Opening braces that are tried, so that an answer of braces alone stays cheap."""
_AFTER = 40
"""Characters that may follow a verdict of the released format."""
_OWN_KEYS = re.compile(r"(\"(?:score_1|score_2|ranking))(\")")
"""The keys of a verdict, as a text may hold them to be quoted."""


@dataclass(frozen=True)
class Comparison:
    """What a judge said of two replies shown as `response_1` and `response_2`."""

    score_1: float
    """How good the first is, 1 to 5."""
    score_2: float
    """How good the second is, 1 to 5."""
    ranking: float
    """1: the first is far better … 6: the second is far better."""


@dataclass(frozen=True)
class Shaping:
    """Weights of the length terms (paper §4.4).

    Lengths are characters of the stripped text, relative to the group.
    """

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


# ---------------------------------------------------------------- rewards


def pairs_of(
    count: int, pairs: Pairs = "all", order: Order = "random", seed: int | str = 0
) -> list[tuple[int, int]]:
    """Which replies are compared, as (shown first, shown second).

    `all`: every pair. `circular`: each reply with the next, so that each is shown once in each
    place; `order` does not apply. `random` turns each pair by `seed`; `both` judges it twice,
    once each way; `given` keeps the lower index first.
    """
    if pairs not in ("all", "circular") or order not in ("random", "both", "given"):
        raise UserError(
            f"pairs is {pairs!r}, order is {order!r}; "
            "allowed: pairs all, circular; order random, both, given"
        )
    if count < 2:
        return []
    if pairs == "circular":
        return [(i, (i + 1) % count) for i in range(count)]

    # Each pair has its own seed, so a longer group does not turn the pairs of a shorter one.
    chosen = []
    for i in range(count):
        for j in range(i + 1, count):
            if order == "both":
                chosen += [(i, j), (j, i)]
            elif order == "random" and _turned(seed, i, j):
                chosen.append((j, i))
            else:
                chosen.append((i, j))
    return chosen


def _turned(seed: int | str, i: int, j: int) -> bool:
    """Whether a pair is shown the other way round: half of all pairs, by their own seed."""
    return random.Random(seed_of("order", seed, i, j)).random() >= 0.5


def base_rewards(
    count: int, compared: Sequence[tuple[int, int]], comparisons: Sequence[Comparison]
) -> list[float]:
    """Mean score of each of `count` replies over its comparisons.

    Equal scores are parted by the ranking. A reply that was never compared gets 3.
    """
    assert len(compared) == len(comparisons), (len(compared), len(comparisons))

    totals = [0.0] * count
    times = [0] * count
    for (first, second), comparison in zip(compared, comparisons, strict=True):
        # What the winner of a tie gains, the other loses: 3.5 stands between the two.
        edge = 0.0
        if comparison.score_1 == comparison.score_2:
            edge = 3.5 - comparison.ranking
        totals[first] += comparison.score_1 + edge
        totals[second] += comparison.score_2 - edge
        times[first] += 1
        times[second] += 1

    means = []
    for total, count_of_own in zip(totals, times, strict=True):
        means.append(total / count_of_own if count_of_own else 3.0)
    return means


def length_terms(lengths: Sequence[int]) -> list[float]:
    """Zero-sum weights, the shortest highest; 0 for all if all lengths are equal.

    1 - (len - min) / (max - min), less the group's mean.
    """
    if not lengths or max(lengths) == min(lengths):
        return [0.0] * len(lengths)

    # Less the mean, so that a group gains nothing by all of its replies being short.
    low, span = min(lengths), max(lengths) - min(lengths)
    weights = [1.0 - (length - low) / span for length in lengths]
    mean = sum(weights) / len(weights)
    return [weight - mean for weight in weights]


def bonus_winner(lengths: Sequence[int], base: Sequence[float], top: float = 0.2) -> int | None:
    """The first of the shortest texts that are not empty, if its base reward is among the best."""
    # Saying nothing at all is not brevity.
    filled = [i for i, length in enumerate(lengths) if length > 0]
    if len(base) < 2 or not filled:
        return None
    shortest = min(filled, key=lambda i: lengths[i])
    rank = max(1, int(len(base) * top))
    threshold = sorted(base, reverse=True)[rank - 1]
    return shortest if base[shortest] >= threshold else None


def group_rewards(
    base: Sequence[float],
    thoughts: Sequence[str],
    answers: Sequence[str],
    shaping: Shaping | None = None,
) -> list[float]:
    """Base rewards plus length terms and bonuses, one per reply.

    The bonus goes by base rewards alone.
    """
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


# ---------------------------------------------------------------- reading verdicts

_KEYS = ("score_1", "score_2", "ranking")
"""What a comparison holds."""


def read_comparison(text: str) -> Comparison | None:
    """The verdict that ends an answer in the released format, which knows no marks.

    It is the last JSON object that holds `score_1`, `score_2` (1 to 5) and `ranking` (1 to 6),
    their keys written out, with no more than 40 characters behind it. None where there is none,
    or a number is out of range.
    """
    numbers = _last_object(text, _KEYS)
    return None if numbers is None else _comparison(numbers)


def comparison_in(verdict: str) -> Comparison | None:
    """The comparison that a verdict between marks is, and nothing else; None where it is none."""
    numbers = numbers_in(verdict, _KEYS)
    return None if numbers is None else _comparison(numbers)


def score_in(verdict: str, low: float = 1.0, high: float = 5.0) -> float | None:
    """`score` of a verdict that is one JSON object and nothing else; None if out of range."""
    numbers = numbers_in(verdict, ("score",))
    if numbers is None or not low <= numbers[0] <= high:
        return None
    return numbers[0]


def _comparison(numbers: tuple[float, ...]) -> Comparison | None:
    score_1, score_2, ranking = numbers
    # Out of range is unreadable rather than cut back: such a judge did not follow its task.
    if not (1 <= score_1 <= 5 and 1 <= score_2 <= 5 and 1 <= ranking <= 6):
        return None
    return Comparison(score_1, score_2, ranking)


def _last_object(text: str, keys: tuple[str, ...]) -> tuple[float, ...] | None:
    """The numbers under `keys` of the last JSON object that holds them all, if it ends the text."""
    text = text[-_END_OF_ANSWER:].rstrip()
    decoder = json.JSONDecoder()
    place = len(text)

    # From the last opening brace to the first: each may begin an object.
    for _ in range(_MOST_OBJECTS):
        place = text.rfind("{", 0, place)
        if place < 0:
            return None
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict):
            continue
        if not all(is_number(value.get(key)) for key in keys):
            continue

        # What goes on for long was quoted in passing; a key in escapes is no judge's own.
        written = all(f'"{key}"' in text[place:end] for key in keys)
        if len(text) - end > _AFTER or not written:
            return None
        return tuple(float(value[key]) for key in keys)
    return None


# ---------------------------------------------------------------- questions


def comparison_question(
    messages: Sequence[Message],
    first: str,
    second: str,
    replies: tuple[int, ...],
    principle: str = "",
    label: str = "",
) -> Question:
    """What a general model is asked when it compares two answers; it never sees thoughts."""
    task = f"Compare two responses to the last request of the conversation. {_criterion(principle)}"
    form = (
        "one JSON object, with score_1 and score_2 from 1 (useless) to 5 "
        "(excellent), and ranking from 1 (response_1 is far better) to 6 (response_2 is far "
        'better), e.g. {"score_1": 4, "score_2": 2, "ranking": 2}.'
    )
    parts = _parts(messages, principle)
    parts += [("response_1", first), ("response_2", second)]
    return keyed_question(task, parts, form, comparison_in, replies, label)


def score_question(
    messages: Sequence[Message],
    response: str,
    replies: tuple[int, ...],
    principle: str = "",
    label: str = "",
) -> Question:
    """What a general model is asked when it scores one answer alone, 1 to 5."""
    task = f"Score a response to the last request of the conversation. {_criterion(principle)}"
    form = 'one JSON object, with score from 1 (useless) to 5 (excellent), e.g. {"score": 2}.'
    parts = [*_parts(messages, principle), ("response", response)]
    return keyed_question(task, parts, form, score_in, replies, label)


def _criterion(principle: str) -> str:
    if principle:
        return "Judge by the principle alone."
    return "Judge how helpful, correct and to the point it is; length is no merit."


def _parts(messages: Sequence[Message], principle: str) -> list[tuple[str, str]]:
    parts = [("conversation", conversation_text(messages))]
    if principle:
        parts.append(("principle", principle))
    return parts


def genrm_question(
    messages: Sequence[Message],
    first: str,
    second: str,
    replies: tuple[int, ...],
    principle: str = "",
    label: str = "",
) -> Question:
    """What a generative reward model is asked, which knows the released format alone."""
    turns = genrm_turns(messages, first, second, principle)
    return Question(turns, read_comparison, replies, label)


def genrm_turns(
    messages: Sequence[Message], first: str, second: str, principle: str = ""
) -> tuple[Message, ...]:
    """What a generative reward model is shown.

    The conversation, then the principle, if any, and both answers as turns of their own roles. In
    all of them the keys of a verdict are broken by a space, so that a quotation is none.
    """
    turns = history(messages)
    if principle:
        turns.append(Message("principle", principle))
    turns += [Message("response_1", first), Message("response_2", second)]
    return tuple(replace(turn, content=_OWN_KEYS.sub(r"\1 \2", turn.content)) for turn in turns)
