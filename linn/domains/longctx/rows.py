"""What a row of `longctx` hides from the model, read from the released layout or from RULER's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from linn.errors import UserError

_LONGEST_QUESTION = 2_000
"""Characters; of a longer question, its end."""


@dataclass(frozen=True)
class Accepted:
    """A row with `expected_answer`."""

    answers: tuple[str, ...]
    """Each of them is right."""
    question: str
    """What is asked, for the judge."""


@dataclass(frozen=True)
class Outputs:
    """A row of RULER's own layout."""

    outputs: tuple[str, ...]
    """Texts that the answer must hold."""
    any_counts: bool
    """Whether one of them is enough (`subset: qa_…`)."""


def outputs_of(row: Mapping[str, Any], index: int) -> Outputs:
    """`outputs` and `subset`; UserError names the field that is wrong."""
    outputs = row["outputs"]
    if not _are_texts(outputs) or not all(text.strip() for text in outputs):
        raise UserError(
            f"row {index}: outputs is {str(outputs)[:40]}; allowed: a list of texts, at least one"
        )
    any_counts = str(row.get("subset")).startswith("qa_")
    return Outputs(tuple(outputs), any_counts)


def accepted_answers(row: Mapping[str, Any], index: int) -> tuple[str, ...]:
    """`expected_answer`, a text or a list of them; UserError where that is not what it holds."""
    expected = row.get("expected_answer")
    answers = expected
    if isinstance(expected, str):
        answers = [expected]
    if not _are_texts(answers) or not all(normal(text) for text in answers):
        raise UserError(
            f"row {index}: expected_answer is {expected!r}; allowed: text or a list of texts"
        )
    return tuple(answers)


def _are_texts(value: object) -> TypeGuard[list[str]]:
    """Whether it is a list of texts, at least one."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(item, str) for item in value)


def question_of(row: Mapping[str, Any], index: int, last_turn: str) -> str:
    """The row's `question`, else what its last turn seems to ask."""
    question = row.get("question")
    if question is not None and not isinstance(question, str):
        raise UserError(f"row {index}: question is {type(question).__name__}; allowed: text")
    return question or _last_question(last_turn)


def _last_question(text: str) -> str:
    """What a long user turn asks.

    The line that begins with QUESTION:, else what follows its `</text>`, else its last paragraph.
    """
    # The shapes that long-context data sets use, from the most explicit to the least.
    labelled: list[str] = re.findall(r"^QUESTION:[ \t]*(.+)$", text, re.MULTILINE)
    if labelled:
        question = labelled[-1]
    elif "</text>" in text:
        question = text.rpartition("</text>")[2]
    else:
        question = text.rstrip().rpartition("\n\n")[2]
    return question.strip()[-_LONGEST_QUESTION:]


def normal(text: str) -> str:
    """A short answer without case, spare white space, emphasis marks, quotes and a full stop."""
    text = re.sub(r"\s+", " ", text).strip().lower()
    return text.strip("*_`\"' ").removesuffix(".").strip("*_`\"' ")
