"""`genselect`: the model reads its own candidates and picks one, group by group to the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from linn.solve.account import Account
from linn.solve.answers import answer_key
from linn.solve.budget import Attempt
from linn.solve.questions import selection_of, selection_prompt
from linn.solve.result import Result
from linn.solve.rules import check_at_least
from linn.types import Prompt


@dataclass(frozen=True)
class GenSelectRules:
    """How `genselect` goes from many candidates to one."""

    samples: int = 32
    """Candidates sampled."""
    group: int = 8
    """Candidates that one question compares; the winners of groups meet again."""
    selections: int = 1
    """Times each question is asked; the candidate chosen most often wins it."""

    def __post_init__(self) -> None:
        check_at_least(1, samples=self.samples, selections=self.selections)
        check_at_least(2, group=self.group)


async def genselect(prompt: Prompt, account: Account, rules: GenSelectRules) -> Result:
    """Sample candidates, then knock them out. Replies without an answer do not take part."""
    attempts = await account.play([prompt] * rules.samples)

    # An empty reply would only take a candidate's place in a question.
    left = [attempt for attempt in attempts if answer_key(attempt.reply.text)]
    if not left:
        account.note(0.0)
        return Result("", 0.0, {"replies": len(attempts)})
    account.note(left[0].verdict.reward)

    # Winners meet again until one is left, or the budget ends: then the first of them is given.
    rounds = unread = 0
    while len(left) > 1 and not account.budget.is_spent:
        groups = []
        for at in range(0, len(left), rules.group):
            groups.append(left[at : at + rules.group])
        left, missed = await _winners(prompt, groups, account, rules.selections)

        rounds += 1
        unread += missed
        account.note(left[0].verdict.reward)

    counts = {"replies": len(attempts), "rounds": rounds, "unread": unread}
    return Result(left[0].reply.text, left[0].verdict.reward, counts)


async def _winners(
    prompt: Prompt, groups: Sequence[Sequence[Attempt]], account: Account, times: int
) -> tuple[list[Attempt], int]:
    """(the winner of each group, selections that could not be read).

    A group of one wins as it is. One whose selections cannot be read, or that the budget did not
    reach, gives its first candidate.
    """
    # All groups of a round are asked at once.
    questions = []
    for group in groups:
        if len(group) == 1:
            continue
        question = selection_prompt(prompt, [attempt.reply.text for attempt in group])
        questions += [question] * times
    answers = iter(await account.play(questions))

    winners = []
    unread = 0
    for group in groups:
        if len(group) == 1:
            winners.append(group[0])
            continue
        own = [answer.text for answer, _ in zip(answers, range(times), strict=False)]
        choices = [selection_of(text, len(group)) for text in own]
        readable = Counter(choice for choice in choices if choice is not None)
        unread += len(choices) - readable.total()

        # Of choices made equally often, the one made first.
        place = 0
        if readable:
            ((place, _),) = readable.most_common(1)
        winners.append(group[place])
    return winners, unread
