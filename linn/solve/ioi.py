"""`ioi` (paper §5.1): rounds of generate, select, submit, subtask by subtask.

Each open subtask gets `candidates` programs a round. One of them is chosen and submitted, and its
official verdict goes into the subtask's next prompts, with the accepted code of its sibling
subtasks. A submission is judged on the whole problem, as at the IOI: each subtask keeps its best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from linn.solve.account import Account
from linn.solve.budget import Attempt
from linn.solve.choosing import chosen, distinct
from linn.solve.contest.judge import Judge
from linn.solve.contest.problem import Problem, Subtask
from linn.solve.contest.submission import Submission, submission_of
from linn.solve.contest.verdicts import Judged
from linn.solve.questions import asked
from linn.solve.referee import Referee
from linn.solve.result import Result
from linn.solve.rules import check_at_least
from linn.solve.wording import ioi_text
from linn.types import Message, Prompt


@dataclass(frozen=True)
class IoiRules:
    """The paper's: at most 50 rounds of 40 candidates, per subtask."""

    rounds: int = 50
    """Rounds per subtask; each may end in one submission."""
    candidates: int = 40
    """Programs generated per subtask and round."""
    submissions: int = 50
    """Submissions per problem, all subtasks together (the IOI's own limit)."""
    select: Literal["samples", "model"] = "samples"
    """Who is submitted: the first that is right on the statement's samples and agrees with most
    others there; or the one that the model picks among those, read in groups."""
    group: int = 8
    """`model`: candidates that one question compares."""
    history: int = 8
    """Submissions of a subtask that its prompt shows, the best and then the latest ones."""
    language: Literal["python", "cpp", "any"] = "python"
    """What the prompt asks for (the paper's template: Python)."""

    def __post_init__(self) -> None:
        check_at_least(1, rounds=self.rounds, candidates=self.candidates)
        check_at_least(1, submissions=self.submissions, history=self.history)
        check_at_least(2, group=self.group)


@dataclass(frozen=True)
class Submitted:
    """A submission with its verdict."""

    subtask: str
    """For which it was made."""
    round: int
    """In which, from 1."""
    submission: Submission
    """What was submitted."""
    judged: Judged
    """The official verdict, on all subtasks."""

    def share(self, subtask: str) -> float:
        """What it earned of a subtask."""
        return self.judged.shares[subtask]


@dataclass
class State:
    """A problem on the way."""

    problem: Problem
    """Which."""
    submitted: list[Submitted] = field(default_factory=list)
    """In order."""

    def best(self, subtask: str) -> Submitted | None:
        """The first submission that earned the most of a subtask, if any earned something."""
        earned = [one for one in self.submitted if one.share(subtask) > 0]
        return max(earned, key=lambda one: one.share(subtask), default=None)

    def share(self, subtask: str) -> float:
        """The best share of a subtask so far."""
        best = self.best(subtask)
        return 0.0 if best is None else best.share(subtask)

    def open(self) -> list[Subtask]:
        """Subtasks that are not solved yet."""
        return [each for each in self.problem.subtasks if self.share(each.name) < 1]

    @property
    def points(self) -> float:
        """The problem's score: each subtask by its best submission."""
        return sum(each.points * self.share(each.name) for each in self.problem.subtasks)


async def ioi(problem: Problem, account: Account, rules: IoiRules, judge: Judge) -> Result:
    """Solve a problem; its score is in points."""
    state, referee = State(problem), Referee(problem, judge, account)
    rounds = generated = 0
    while rounds < rules.rounds and _may_go_on(state, account, rules):
        rounds += 1
        # All open subtasks generate in one go, from what is known at the round's beginning.
        subtasks = state.open()
        by_subtask = await _generate(state, subtasks, account, rules)
        generated += sum(map(len, by_subtask))

        for subtask, attempts in zip(subtasks, by_subtask, strict=True):
            # A sibling's submission of this round may have solved it.
            if state.share(subtask.name) == 1 or len(state.submitted) >= rules.submissions:
                continue
            await _submit_one(state, subtask, attempts, rounds, rules, referee)
        account.note(state.points)

    # The one program that earns most alone; the score is that of all of them together.
    points = [one.judged.points(problem) for one in state.submitted]
    answer = ""
    if points:
        answer = state.submitted[points.index(max(points))].submission.text
    counts = {
        "rounds": rounds,
        "generated": generated,
        "submitted": len(state.submitted),
    }
    table = {"submissions": [_row(one) for one in state.submitted]}
    return Result(answer, state.points, counts, table)


def _may_go_on(state: State, account: Account, rules: IoiRules) -> bool:
    is_left = len(state.submitted) < rules.submissions
    return is_left and bool(state.open()) and not account.budget.is_spent


async def _generate(
    state: State, subtasks: Sequence[Subtask], account: Account, rules: IoiRules
) -> list[list[Attempt]]:
    """Each subtask's candidates; those that the budget did not reach are missing at the end."""
    prompts = []
    for subtask in subtasks:
        prompts += [_prompt(state, subtask, rules)] * rules.candidates
    attempts = await account.play(prompts)
    count = rules.candidates
    return [attempts[at * count : (at + 1) * count] for at in range(len(subtasks))]


def _prompt(state: State, subtask: Subtask, rules: IoiRules) -> Prompt:
    """Statement, accepted code of sibling subtasks, and this subtask's history (App. C.1)."""
    # Code that earned a part of a sibling's points carries insight too.
    siblings = []
    for other in state.problem.subtasks:
        best = state.best(other.name)
        if other.name != subtask.name and best is not None:
            share = best.share(other.name)
            siblings.append((other, best.submission, share))

    history = []
    for one in _shown(state, subtask, rules.history):
        verdict = one.judged.words[subtask.name]
        history.append((one.submission, verdict))
    text = ioi_text(state.problem, subtask, siblings, history, rules.language)
    return asked([Message("user", text)])


def _shown(state: State, subtask: Subtask, most: int) -> list[Submitted]:
    """The subtask's own submissions that its prompt shows, in the order of their rounds."""
    own = [one for one in state.submitted if one.subtask == subtask.name]

    # A history of fifty programs would fill the context: the best stay, then the latest.
    own.sort(key=lambda one: one.round, reverse=True)
    own.sort(key=lambda one: one.share(subtask.name), reverse=True)
    return sorted(own[:most], key=lambda one: one.round)


async def _submit_one(
    state: State,
    subtask: Subtask,
    attempts: Sequence[Attempt],
    number: int,
    rules: IoiRules,
    referee: Referee,
) -> None:
    """Choose a candidate and submit it; none where no candidate is new."""
    parsed = [submission_of(each.text, state.problem, rules.language) for each in attempts]
    before = [one.submission for one in state.submitted]
    candidates = distinct(parsed, before)
    one = await chosen(candidates, subtask, rules, referee)
    if one is None:
        return
    judged = await referee.verdict(one.submission)
    state.submitted.append(Submitted(subtask.name, number, one.submission, judged))


def _row(one: Submitted) -> dict[str, object]:
    """A submission as results show it."""
    return {
        "subtask": one.subtask,
        "round": one.round,
        "shares": dict(one.judged.shares),
        "verdict": one.judged.words[one.subtask].word,
        "language": one.submission.language,
        "code": one.submission.text,
    }
