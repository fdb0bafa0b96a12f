"""Verdicts between keyed marks: what a judge quotes from a text is not its verdict.

A general model that judges may repeat what it reads, and what it reads may hold anything that a
verdict looks like. So a question asks for its verdict between marks whose key is a hash of all that
the question shows: no shown text can hold the hash of itself. Whatever stands elsewhere in the
answer is no verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from linn.judges.text import FENCES, Question, fenced, key_of
from linn.types import Message

VERDICT = "verdict"
"""The name of the mark."""

_END_OF_ANSWER = 20_000
"""Characters at the end of an answer in which the verdict is looked for."""
_LONGEST_VERDICT = 4_000
"""Characters of what stands between the marks; reasons belong before them."""
_DRESS = re.compile(r"\A(?:\s|\*|```(?:json)?)*(.*?)(?:\s|\*|```)*\Z", re.DOTALL)
"""What models put around a verdict: white space, bold face, a fence."""


def keyed_question(
    task: str,
    parts: Sequence[tuple[str, str]],
    form: str,
    read: Callable[[str], Any],
    replies: tuple[int, ...],
    label: str = "",
) -> Question:
    """A question to a general model about texts, each a (name, text) pair.

    `task`: what to judge and by what. `form`: what stands between the marks, with an example.
    `read`: the verdict in that; None for none. `replies` and `label`: see `Question`.
    """
    key = key_of(parts, size=8)
    texts = fenced(parts, key, also=(VERDICT,))
    # No mark around the example: whoever repeats this text has given no verdict.
    ask = (
        f"Think first. Then end your reply with your verdict, between the marks <{VERDICT} {key}> "
        f"and </{VERDICT} {key}>: {form} Nothing else stands between them."
    )
    text = f"{task}\n{FENCES}\n\n{texts}\n\n{ask}"

    def verdict(answer: str) -> Any:
        inner = marked(answer, key)
        return None if inner is None else read(inner)

    return Question((Message("user", text),), verdict, replies, label)


def marked(answer: str, key: str) -> str | None:
    """What stands between the last marks of that key; None where there are none.

    A judge may change its mind, so the last word counts. The closing mark may be missing where the
    answer ends.
    """
    end = answer[-_END_OF_ANSWER:]
    _, opening, rest = end.rpartition(f"<{VERDICT} {key}>")
    if not opening:
        return None
    inner, closing, _ = rest.partition(f"</{VERDICT}")
    # A closing mark with another key belongs to somebody else.
    if closing and not re.match(rf"(?: {key})?>", rest[len(inner) + len(closing) :]):
        return None
    # Whoever argues between the marks has not given a verdict there.
    if len(inner) > _LONGEST_VERDICT:
        return None
    dressed = _DRESS.match(inner)
    assert dressed is not None
    return dressed[1]


def numbers_in(verdict: str, keys: Sequence[str]) -> tuple[float, ...] | None:
    """The numbers under `keys` of a verdict that is one JSON object and nothing else.

    Further keys are the judge's own business; one that stands twice makes it no verdict.
    """
    try:
        value = json.loads(verdict, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    numbers = [value.get(key) for key in keys]
    if not all(is_number(number) for number in numbers):
        return None
    return tuple(float(value[key]) for key in keys)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def is_number(value: object) -> bool:
    """A finite number: not NaN, which compares with nothing, nor an integer beyond floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9
