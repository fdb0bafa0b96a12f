"""Every task by its strategy: one coroutine each, results and the curve in one folder."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from linn.errors import task_group
from linn.files import write_json, write_jsonl
from linn.solve.account import Account, Standing, Table
from linn.solve.budget import Budget
from linn.solve.curve import Point, curve
from linn.solve.result import Result
from linn.types import Sampling

_HELD = 512
"""Requests of a local sampler's batch, about: so many tasks play together."""


@dataclass(frozen=True)
class Task:
    """One thing to solve."""

    name: str
    """Unique among the tasks."""
    solve: Callable[[Account], Awaitable[Result]]
    """The strategy on it."""
    highest: float = 1.0
    """The most that its score can be."""


@dataclass(frozen=True)
class Spending:
    """What every task may spend, and how its requests are sampled."""

    budget: int | None
    """Sampled tokens per task."""
    how: Mapping[str, Sampling]
    """By who is asked."""
    seed: int = 0
    """Of all draws."""
    at_once: int = 64
    """Requests of one task's wave."""


@dataclass(frozen=True)
class Solved:
    """A task that is done."""

    task: Task
    """Which."""
    result: Result
    """What came of it."""
    budget: Budget
    """What it spent."""
    standings: Sequence[Standing] = field(default=())
    """Its score along the way."""

    @property
    def share(self) -> float:
        """Its score, of the highest possible."""
        return self.result.score / self.task.highest


async def solve_tasks(
    tasks: Sequence[Task],
    table: Table,
    spending: Spending,
    on_done: Callable[[Solved], None] = lambda solved: None,
    together: bool = True,
    on_wave: Callable[[Account], None] = lambda account: None,
) -> list[Solved]:
    """Solve them all; in order, whatever was first.

    `on_done` hears of every task that is over, `on_wave` of every wave that is back.

    `together`: as many at a time as fill a local sampler's batch, chunk after chunk, so that
    batches stay those of an unbroken run. Otherwise all at once, and the table bounds them.
    """
    size = max(1, _HELD // spending.at_once) if together else len(tasks)
    rest = iter(tasks)
    solved: list[Solved] = []

    async def work(task: Task) -> Solved:
        budget = Budget(spending.budget)
        account = Account(
            task=task.name,
            table=table,
            budget=budget,
            how=spending.how,
            seed=spending.seed,
            at_once=spending.at_once,
            on_wave=on_wave,
        )
        result = await task.solve(account)
        # From here on the others no longer wait for it.
        await table.leave(task.name)
        # A strategy that noted nothing has one standing, its last.
        if not account.standings:
            account.note(result.score)
        done = Solved(task, result, budget, account.standings)
        on_done(done)
        return done

    while chunk := list(islice(rest, size)):
        for task in chunk:
            await table.enter(task.name)
        async with task_group() as group:
            works = [group.create_task(work(task)) for task in chunk]
        solved += [each.result() for each in works]
    return solved


def write_results(out: Path, solved: Sequence[Solved]) -> list[Point]:
    """Write `results.jsonl` and `curve.json`; gives the curve's points."""
    rows = []
    for each in solved:
        rows.append(
            {
                "task": each.task.name,
                "score": each.result.score,
                "highest": each.task.highest,
                "tokens": each.budget.spent,
                "read": each.budget.read,
                "calls": each.budget.calls,
                "truncated": each.budget.truncated,
                "failed": each.budget.failed,
                "budget_ended": each.budget.is_spent,
                **each.result.counts,
                "answer": each.result.answer,
                **each.result.table,
            }
        )
    write_jsonl(out / "results.jsonl", rows)
    points = curve([each.standings for each in solved], [each.task.highest for each in solved])
    write_json(out / "curve.json", [asdict(point) for point in points])
    return points
