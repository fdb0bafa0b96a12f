"""Two questions after each other, each answer scored 1 to 10 by a judge model: MT-Bench.

The judge's words are the benchmark's own, from its package; they are not kept with linn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from linn.domains.base import Domain
from linn.errors import UserError
from linn.judges.text import Question, shown
from linn.types import Message, Prompt, Reply, Verdict

_RATING = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]|\[(\d+(?:\.\d+)?)\]")
_WITH_REFERENCE = ("math", "reasoning", "coding", "arena-hard-200")
"""Categories whose answers are judged beside a reference."""
_FIRST, _SECOND = "first turn", "second turn"
_MOST = 10.0


@dataclass(frozen=True)
class Questions:
    """What the grader knows of a row: the prompt's `hidden`."""

    turns: tuple[str, ...]
    """The user's turns."""
    references: tuple[str, ...]
    """Reference answers to them; empty where the category has none."""
    category: str
    """The row's category."""


class TwoTurns(Domain):
    """The mean of the judge's two scores over 10."""

    name: ClassVar[str] = "two_turns"
    max_turns = 2

    def __init__(self, judged: bool = False, prompts_file: str = "") -> None:
        """`prompts_file`: the judge's prompts, as the package has them (a path in it)."""
        super().__init__()
        self.judged = judged
        self.questions_per_reply = 2
        self._prompts_file = prompts_file

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`turns` (one or two texts), `category`; optional `choices[0].turns`, the reference."""
        turns = row.get("turns")
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise UserError(f"row {index}: turns must be a list of one or two texts")
        references: tuple[str, ...] = ()
        choices = row.get("choices")
        if isinstance(choices, list) and choices and row.get("category") in _WITH_REFERENCE:
            references = tuple(choices[0].get("turns") or ())
        hidden = Questions(tuple(turns[:2]), references, str(row.get("category", "")))
        return Prompt(self.name, str(index), (Message("user", turns[0]),), hidden=hidden)

    def env(self, prompt: Prompt) -> _Second:
        """Asks the second question."""
        return _Second(_hidden(prompt).turns[1:])

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Nobody but the judge tells; a reply without an answer earns nothing."""
        return Verdict(0.0, "judged by a model")

    def gold(self, prompt: Prompt) -> Reply:
        """There is none."""
        raise UserError("benchmark grader two_turns: rows hold no replies")

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """One about each of the two answers."""
        hidden = _hidden(prompt)
        asked = []
        for place, reply in enumerate(replies):
            answers = [m.content for m in reply.messages if m.role == "assistant"]
            for number, label in enumerate((_FIRST, _SECOND)[: len(hidden.turns)]):
                # The judge would be asked to rate nothing.
                if number < len(answers) and answers[number].strip():
                    messages = self._question(hidden, answers[: number + 1])
                    asked.append(Question(messages, _rating, (place,), label))
        return asked

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """The mean of the scores of both turns; a turn without an answer scores 1, the lowest."""
        turns = len(_hidden(prompt).turns)
        verdicts = []
        for place in range(len(replies)):
            own = [(question, text) for question, text in answers if place in question.replies]
            ratings = [_rating(text) for _, text in own]
            if any(rating is None for rating in ratings):
                verdicts.append(Verdict(0.1, "the judge's rating is unreadable", undecided=True))
                continue
            scores = [rating for rating in ratings if rating is not None]
            # A turn that was never answered is no reason to count fewer turns.
            scores += [1.0] * (turns - len(scores))
            note = " and ".join(f"{score:g}" for score in scores) + " of 10"
            verdicts.append(Verdict(sum(scores) / turns / _MOST, note))
        return verdicts

    def _question(self, hidden: Questions, answers: Sequence[str]) -> tuple[Message, ...]:
        """What the judge is asked about the last of these answers."""
        name = "single-math-v1" if hidden.references else "single-v1"
        if len(answers) > 1:
            name += "-multi-turn"
        prompt = judge_prompts(self._prompts_file)[name]
        values = {"question": hidden.turns[0], "answer": shown(answers[0])}
        for number, answer in enumerate(answers, 1):
            values[f"question_{number}"] = hidden.turns[number - 1]
            values[f"answer_{number}"] = shown(answer)
        for number, reference in enumerate(hidden.references, 1):
            values[f"ref_answer_{number}"] = reference
        # Filled in one pass: an answer may hold braces of its own.
        text = re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), prompt["prompt_template"])
        system = (prompt.get("system_prompt") or "").strip()
        turns = [Message("system", system)] if system else []
        return (*turns, Message("user", text))


GRADER = TwoTurns


class _Second:
    """The user, who has a second question."""

    def __init__(self, further: Sequence[str]) -> None:
        self.further = list(further)

    def step(self, message: Message) -> tuple[Message, ...] | None:
        """The next question, or the end."""
        if not self.further:
            return None
        return (Message("user", self.further.pop(0)),)

    def close(self) -> None:
        """Nothing is held."""


@cache
def judge_prompts(file: str) -> Mapping[str, Mapping[str, str]]:
    """The benchmark's judge prompts by name."""
    from linn.evals.benchmarks.places import file_of_package

    path: Path = file_of_package(file)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {row["name"]: row for row in rows}


def _hidden(prompt: Prompt) -> Questions:
    assert isinstance(prompt.hidden, Questions), prompt.hidden
    return prompt.hidden


def _rating(answer: str) -> float | None:
    """The judge's score, 1 to 10: the first in double brackets, else in single ones."""
    match = _RATING.search(answer)
    if match is None:
        return None
    score = float(match[1] or match[2])
    return score if 1 <= score <= _MOST else None
