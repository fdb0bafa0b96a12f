"""The contest judge as a strategy asks it: verdicts are recorded, and given again after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from linn.solve.account import Account
from linn.solve.contest.judge import Judge
from linn.solve.contest.problem import Problem
from linn.solve.contest.submission import Submission
from linn.solve.contest.verdicts import Judged, judged_from, judged_row


class Referee:
    """One problem's judge for one task."""

    def __init__(self, problem: Problem, judge: Judge, account: Account) -> None:
        self.problem, self.judge, self.account = problem, judge, account

    async def verdict(self, submission: Submission) -> Judged:
        """The official verdict on a submission, on all subtasks."""

        def find() -> object:
            return judged_row(self.judge.judge(self.problem, submission))

        return judged_from(await self.account.find_out(f"verdict\n{submission.text}", find))

    async def right_on_samples(self, submissions: Sequence[Submission]) -> list[bool]:
        """Whether each is right on the statement's samples; all of them where it has none."""
        if not self.problem.samples:
            return [True] * len(submissions)

        def passes(submission: Submission) -> bool:
            return self.judge.passes(self.problem, submission, self.problem.samples)

        def find() -> object:
            with ThreadPoolExecutor(self.judge.sandbox.pool.servers) as threads:
                return list(threads.map(passes, submissions))

        texts = "\n\n".join(each.text for each in submissions)
        found: list[bool] = await self.account.find_out(f"samples\n{texts}", find)
        return found
