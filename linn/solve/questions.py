"""What strategies ask a model about its own answers, and how what it says is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from linn.domains.common.boxes import flat_boxes
from linn.judges.pairwise import read_score, score_question
from linn.judges.text import FENCES, conversation_text, fenced, shown
from linn.solve.account import JUDGE, Account
from linn.solve.budget import Attempt
from linn.solve.ungraded import ungraded
from linn.types import Message, Prompt

_SELECT = """\
Below are a task and {count} candidate answers to it. Some may be wrong. Compare them, check their \
reasoning and results, and find the best one. {fences}

{texts}

End your reply with the number of the best candidate, 1 to {count}, in \\boxed{{}}."""
_CHOICE = re.compile(r"\s*(?:candidate)?[\s_#]*(\d{1,6})\s*", re.IGNORECASE)


def rating_prompt(prompt: Prompt, answer: str) -> Prompt:
    """Asks a verifier for a score of 1 to 5 of one answer."""
    return ungraded(score_question(prompt.messages, shown(answer)))


def rating_of(text: str) -> float | None:
    """The score that a verifier gave, from 0 to 1; None where it cannot be read."""
    score = read_score(text)
    return None if score is None else (score - 1) / 4


def selection_prompt(prompt: Prompt, answers: Sequence[str]) -> Prompt:
    """Asks the model which of these answers is the best."""
    parts = [("task", conversation_text(prompt.messages))]
    for number, answer in enumerate(answers, 1):
        parts.append((f"candidate_{number}", shown(answer)))
    text = _SELECT.format(count=len(answers), fences=FENCES, texts=fenced(parts))
    return replace(ungraded([Message("user", text)]), thinking=prompt.thinking)


def selection_of(text: str, count: int) -> int | None:
    """The index of the candidate that was chosen; None where none can be read."""
    boxes = flat_boxes(text, spaced=True)
    match = _CHOICE.fullmatch(boxes[-1].inner) if boxes else None
    if match is None or not 1 <= int(match[1]) <= count:
        return None
    return int(match[1]) - 1


async def rated_values(
    prompt: Prompt, texts: list[str], account: Account, ratings: int
) -> tuple[list[float | None], list[int]]:
    """(mean rating, tokens it took) of each text by the judge; None where none could be read."""
    questions = []
    for text in texts:
        questions += [rating_prompt(prompt, text)] * ratings
    answers = await account.play(questions, JUDGE)

    # Where the budget ended, the last texts have fewer answers, or none.
    values: list[float | None] = []
    costs = []
    for place in range(len(texts)):
        own = answers[place * ratings : (place + 1) * ratings]
        values.append(_mean_rating(own))
        costs.append(sum(answer.tokens for answer in own))
    return values, costs


def _mean_rating(answers: Sequence[Attempt]) -> float | None:
    """The mean of the ratings that can be read; None where there is none."""
    scores = []
    for answer in answers:
        score = rating_of(answer.text)
        if score is not None:
            scores.append(score)
    return sum(scores) / len(scores) if scores else None
