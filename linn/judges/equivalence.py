"""Asking a judge whether two answers say the same, and reading its label."""

from __future__ import annotations

from linn.judges.text import FENCES, fenced
from linn.types import Message

EQUAL, DIFFERENT = "[[A=B]]", "[[A!=B]]"
"""The labels with which a judge says whether two answers are equivalent (NeMo-Gym's)."""


def equivalence_question(question: str, first: str, second: str) -> tuple[Message, ...]:
    """Asks whether the first answer says what the second says."""
    # A space within "[[" keeps all texts from holding a label that a judge might quote.
    parts = [
        ("question", question.replace("[[", "[ [")),
        ("answer_a", first.replace("[[", "[ [")),
        ("answer_b", second.replace("[[", "[ [")),
    ]
    texts = fenced(parts)
    request = (
        "Two answers to a question stand below. Decide whether answer_a gives the same answer as "
        "answer_b in content: wording, order and detail beyond the question don't matter; an "
        "answer that is missing, hedged over several candidates, or contradicts the other is not "
        f"the same. {FENCES}\n\n{texts}\n\n"
        f"End your reply with {EQUAL} if they are equivalent, else with {DIFFERENT}."
    )
    return (Message("user", request),)


def read_equivalence(text: str) -> bool | None:
    """Whether the last label in a judge's answer is `EQUAL`; None without a label."""
    equal, different = text.rfind(EQUAL), text.rfind(DIFFERENT)
    if equal == different:  # both -1: `rfind` found neither
        return None
    return equal > different
