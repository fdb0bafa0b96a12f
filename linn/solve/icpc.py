"""`icpc` (paper §5.3): many generations, filtered by the samples, submitted until one is right.

All problems of a contest stand in one table: solved, then penalty. A problem's time is the number
of generations made for it when its right submission was sent, since a model has no clock of its
own; each wrong submission before it costs `penalty` more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from linn.solve.account import Account
from linn.solve.choosing import distinct
from linn.solve.contest.judge import Judge
from linn.solve.contest.problem import Problem
from linn.solve.contest.submission import Submission, submission_of
from linn.solve.referee import Referee
from linn.solve.result import Result
from linn.solve.rules import check_at_least
from linn.solve.run import Solved
from linn.solve.ungraded import ungraded
from linn.solve.wording import icpc_text
from linn.types import Message


@dataclass(frozen=True)
class IcpcRules:
    """The paper's: at most 1,000 generations per problem."""

    generations: int = 1000
    """Programs generated per problem, at most."""
    wave: int = 50
    """Programs generated before the next ones are submitted."""
    submissions: int = 100
    """Submissions per problem, at most."""
    each_wave: int = 5
    """Submissions after a wave, at most; those left over wait for the next."""
    penalty: float = 20.0
    """Of a wrong submission before the right one."""
    language: Literal["python", "cpp", "any"] = "any"
    """What the prompt asks for."""

    def __post_init__(self) -> None:
        check_at_least(1, generations=self.generations, wave=self.wave)
        check_at_least(1, submissions=self.submissions, each_wave=self.each_wave)
        if self.penalty < 0:
            raise ValueError(f"penalty must be 0 or more, found {self.penalty:g}")


@dataclass
class _State:
    """A problem on the way."""

    parsed: list[Submission] = field(default_factory=list)
    """Every reply's program."""
    right_on_samples: dict[str, bool] = field(default_factory=dict)
    """By program."""
    sent: list[tuple[Submission, str, int]] = field(default_factory=list)
    """(program, verdict, generations by then)."""
    solved: bool = False
    """Whether the last one was right."""


async def icpc(problem: Problem, account: Account, rules: IcpcRules, judge: Judge) -> Result:
    """Solve one problem: 1 where a submission is right on every test, else 0."""
    prompt = ungraded([Message("user", icpc_text(problem, rules.language))])
    state, referee = _State(), Referee(problem, judge, account)
    while not state.solved and len(state.parsed) < rules.generations:
        if account.budget.is_spent or len(state.sent) >= rules.submissions:
            break
        # The last wave may be shorter: never a generation more than is allowed.
        count = min(rules.wave, rules.generations - len(state.parsed))
        attempts = await account.play([prompt] * count)
        state.parsed += [submission_of(each.text, problem, rules.language) for each in attempts]
        await _submit(state, rules, referee)
        account.note(float(state.solved))

    # What passed the samples and still waits.
    while not state.solved and len(state.sent) < rules.submissions:
        if not await _submit(state, rules, referee):
            break
    account.note(float(state.solved))

    passed = sum(state.right_on_samples.values())
    counts = {
        "generated": len(state.parsed),
        "programs": len(state.right_on_samples),
        "right_on_samples": passed,
        "submitted": len(state.sent),
        "time": state.sent[-1][2] if state.solved else 0,
    }
    rows = [{"verdict": word, "generated": at, "code": s.text} for s, word, at in state.sent]
    answer = state.sent[-1][0].text if state.solved else ""
    return Result(answer, float(state.solved), counts, {"submissions": rows})


async def _submit(state: _State, rules: IcpcRules, referee: Referee) -> int:
    """Submit programs that are right on the samples, those given most often first; how many."""
    # Each program meets the samples once, however often replies give it.
    known = state.right_on_samples
    fresh = []
    for each in distinct(state.parsed):
        if each.submission.text not in known:
            fresh.append(each.submission)
    if fresh:
        right = await referee.right_on_samples(fresh)
        known |= {each.text: passes for each, passes in zip(fresh, right, strict=True)}

    sent = [submission for submission, _, _ in state.sent]
    waiting = [each for each in distinct(state.parsed, sent) if known[each.submission.text]]
    # What many replies agree on goes first; the sort keeps the order of generation otherwise.
    waiting.sort(key=lambda each: each.count, reverse=True)
    room = min(rules.each_wave, rules.submissions - len(state.sent))
    for place, each in enumerate(waiting[:room]):
        judged = await referee.verdict(each.submission)
        # A contest of this kind knows right and wrong alone.
        worst = min(judged.words.values(), key=lambda verdict: verdict.share)
        state.sent.append((each.submission, worst.word, len(state.parsed)))
        if worst.share == 1:
            state.solved = True
            return place + 1
    return len(waiting[:room])


# ---------------------------------------------------------------- the contest's table


def contest_table(solved: Sequence[Solved], penalty: float) -> dict[str, Any]:
    """How the contest stands: problems solved, and the penalty of those that are."""
    rows = []
    for each in solved:
        counts = each.result.counts
        is_solved = each.result.score == 1
        wrong = counts["submitted"] - is_solved
        rows.append(
            {
                "problem": each.task.name,
                "solved": is_solved,
                "wrong": wrong,
                "time": counts["time"] if is_solved else None,
                "penalty": counts["time"] + penalty * wrong if is_solved else 0.0,
            }
        )
    return {
        "solved": sum(row["solved"] for row in rows),
        "of": len(rows),
        "penalty": sum(row["penalty"] for row in rows),
        "problems": rows,
    }
