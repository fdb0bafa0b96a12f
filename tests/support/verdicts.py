"""What judges of tests read and say: texts and verdicts between keyed marks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from linn.judges.text import Question
from linn.types import Message

_ASKED = re.compile(r"between the marks <verdict ([0-9a-f]{16})> and </verdict \1>: ")


def key_in(text: str) -> str:
    """The key that a question names for its verdict, by its last words."""
    return _ASKED.findall(text)[-1]


def parts_in(text: str) -> dict[str, str]:
    """What a reader finds in a question who trusts only marks with the question's own key."""
    key = key_in(text)
    shown, *_ = text.rpartition("Think first. Then end your reply")
    found = re.findall(rf"^<(\w+) {key}>\n(.*?)\n</\1 {key}>$", shown, re.M | re.S)
    assert len(found) == len(dict(found)) == len(re.findall(key, shown)) / 2, text
    return dict(found)


def verdict_to(messages: Sequence[Message], verdict: str) -> str:
    """The answer of a judge that keeps to its question: its verdict in its marks."""
    text = messages[-1].content
    if not _ASKED.search(text):  # a generative reward model is asked for none
        return f"I think {verdict}"
    key = key_in(text)
    return f"I think so.\n<verdict {key}>{verdict}</verdict {key}>"


def answered(questions: Sequence[Question], verdicts: Sequence[str]) -> list[tuple[Question, str]]:
    """The questions with answers that keep to them, as a domain gets them."""
    return [
        (question, verdict_to(question.messages, verdict))
        for question, verdict in zip(questions, verdicts, strict=True)
    ]
