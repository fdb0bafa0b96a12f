"""Which of many programs is submitted: by the samples, by agreement, or by the model's choice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from linn.solve.contest.problem import Subtask
from linn.solve.contest.submission import Submission
from linn.solve.questions import asked, selection_of
from linn.solve.referee import Referee
from linn.solve.wording import choice_text
from linn.types import Message


@dataclass(frozen=True)
class Candidate:
    """A program that may be submitted."""

    submission: Submission
    """What would be."""
    count: int
    """How many replies gave it."""


class Selection(Protocol):
    """The rules that choosing reads."""

    @property
    def select(self) -> Literal["samples", "model"]:
        """Who chooses."""
        ...

    @property
    def group(self) -> int:
        """Candidates that one question compares."""
        ...


def distinct(parsed: Sequence[Submission], submitted: Sequence[Submission] = ()) -> list[Candidate]:
    """The different programs among replies, those submitted before left out, in order."""
    counts = Counter(each.text.strip() for each in parsed)
    old = {each.text.strip() for each in submitted}
    candidates = []
    for each in parsed:
        text = each.text.strip()
        if text and text not in old:
            candidates.append(Candidate(each, counts[text]))
            old.add(text)
    return candidates


async def chosen(
    candidates: Sequence[Candidate], subtask: Subtask, rules: Selection, referee: Referee
) -> Candidate | None:
    """The candidate to submit; None where there is none.

    Those that are right on the samples go before all others: if none is, any may be right on this
    subtask. Among equals goes the one that most replies gave, then the first; or the model picks.
    """
    if not candidates:
        return None
    right = await referee.right_on_samples([each.submission for each in candidates])
    passing = [each for each, passes in zip(candidates, right, strict=True) if passes]
    left = passing or list(candidates)

    # The sort keeps the order of generation among equals.
    left = sorted(left, key=lambda each: each.count, reverse=True)
    while rules.select == "model" and len(left) > 1 and not referee.account.budget.is_spent:
        left = await _picked(left, subtask, referee, rules.group)
    return left[0]


async def _picked(
    left: Sequence[Candidate], subtask: Subtask, referee: Referee, size: int
) -> list[Candidate]:
    """The winner of each group; a group whose choice cannot be read gives its first."""
    groups = []
    for at in range(0, len(left), size):
        groups.append(left[at : at + size])

    # All groups are asked at once; a group of one wins as it is.
    prompts = []
    for group in groups:
        if len(group) == 1:
            continue
        text = choice_text(referee.problem, subtask, [each.submission for each in group])
        prompts.append(asked([Message("user", text)]))
    answers = iter(await referee.account.play(prompts))

    winners = []
    for group in groups:
        choice = None
        if len(group) > 1:
            # None where the budget did not reach the question.
            answer = next(answers, None)
            if answer is not None:
                choice = selection_of(answer.text, len(group))
        winners.append(group[choice or 0])
    return winners
