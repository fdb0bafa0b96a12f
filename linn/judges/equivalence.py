"""Asking a judge whether two answers say the same, and reading its label."""

from __future__ import annotations

from linn.judges.marks import keyed_question
from linn.judges.text import Question

EQUAL, DIFFERENT = "[[A=B]]", "[[A!=B]]"
"""The labels with which a judge says whether two answers are equivalent (NeMo-Gym's)."""

_TASK = (
    "Two answers to a question stand below. Decide whether answer_a gives the same answer as "
    "answer_b in content: wording, order and detail beyond the question don't matter; an "
    "answer that is missing, hedged over several candidates, or contradicts the other is not "
    "the same."
)


def equivalence_question(
    question: str, first: str, second: str, replies: tuple[int, ...], label: str = ""
) -> Question:
    """Asks whether the first answer says what the second says; True, False or None is read."""
    # A space within "[[" keeps the texts from holding a label, whoever asks for one elsewhere.
    parts = [
        ("question", question.replace("[[", "[ [")),
        ("answer_a", first.replace("[[", "[ [")),
        ("answer_b", second.replace("[[", "[ [")),
    ]
    form = f"{EQUAL} if they are equivalent, else {DIFFERENT}."
    return keyed_question(_TASK, parts, form, label_in, replies, label)


def label_in(verdict: str) -> bool | None:
    """Whether a verdict that is one label and nothing else is `EQUAL`; None where it is none."""
    if verdict not in (EQUAL, DIFFERENT):
        return None
    return verdict == EQUAL


def read_equivalence(text: str) -> bool | None:
    """Whether the last label in an answer without keyed marks is `EQUAL`; None without a label.

    So NeMo-Gym's judges are read; linn's own questions ask for marks.
    """
    equal, different = text.rfind(EQUAL), text.rfind(DIFFERENT)
    if equal == different:  # both -1: `rfind` found neither
        return None
    return equal > different
