"""What strategies ask a model about its own answers, and how what it says is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from linn.domains.common.boxes import flat_boxes
from linn.judges.pairwise import score_question
from linn.judges.text import FENCES, Question, conversation_text, fenced, inert, shown
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


def rating_question(prompt: Prompt, answer: str) -> Question:
    """Asks a judge for a score of 1 to 5 of one answer.

    Its verdict stands between marks whose key no answer can hold, so that none rates itself.
    """
    return score_question(prompt.messages, shown(answer), replies=(0,))


def rating_of(question: Question, text: str) -> float | None:
    """The score that a judge gave, from 0 to 1; None where it cannot be read."""
    score = question.read(text)
    return None if score is None else (score - 1) / 4


def asked(messages: Sequence[Message], thinking: bool = True) -> Prompt:
    """A prompt that quotes a model: marks of chat templates in it are broken."""
    quoted = [replace(message, content=inert(message.content)) for message in messages]
    return ungraded(quoted, thinking)


def selection_prompt(prompt: Prompt, answers: Sequence[str]) -> Prompt:
    """Asks the model which of these answers is the best."""
    parts = [("task", conversation_text(prompt.messages))]
    for number, answer in enumerate(answers, 1):
        parts.append((f"candidate_{number}", shown(answer)))
    text = _SELECT.format(count=len(answers), fences=FENCES, texts=fenced(parts))
    return asked([Message("user", text)], prompt.thinking)


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
    questions = [rating_question(prompt, text) for text in texts]
    prompts = []
    for question in questions:
        prompts += [asked(question.messages)] * ratings
    answers = await account.play(prompts, JUDGE)

    # Where the budget ended, the last texts have fewer answers, or none.
    values: list[float | None] = []
    costs = []
    for place, question in enumerate(questions):
        own = answers[place * ratings : (place + 1) * ratings]
        values.append(_mean_rating(question, own))
        costs.append(sum(answer.tokens for answer in own))
    return values, costs


def _mean_rating(question: Question, answers: Sequence[Attempt]) -> float | None:
    """The mean of the ratings that can be read; None where there is none."""
    scores = []
    for answer in answers:
        score = rating_of(question, answer.text)
        if score is not None:
            scores.append(score)
    return sum(scores) / len(scores) if scores else None
