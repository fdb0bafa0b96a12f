"""Strategies over a scripted sampler: what is asked is known, and so is what is answered."""

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from linn.domains.arithmetic import Arithmetic, Sum
from linn.errors import InfrastructureError
from linn.play.rollout import play
from linn.solve.account import JUDGE, MODEL, Apart, Together
from linn.solve.record import Record
from linn.solve.run import Solved, Spending, Task, solve_tasks
from linn.solve.ungraded import Ungraded
from linn.types import Message, Prompt, Sampling
from support.codec import END, Letters
from support.scripted import Scripted

HOW = Sampling(10_000)
SUM = Prompt(
    "arithmetic",
    "p0",
    (Message("user", "what is 12 + 30?"),),
    thinking=False,
    hidden=Sum(12, "+", 30),
)
"""42."""

Reply = Callable[[str, int], str]
"""(what the model reads, seed) -> what it says."""


def in_order(texts: Iterable[str]) -> Reply:
    """Answers one text after the other, whatever is asked."""
    rest = iter(texts)
    return lambda asked, seed: next(rest) + END


class Killed(Exception):
    """What ends a run from outside."""


class Mortal(Scripted):
    """A scripted sampler that dies before its batch number `dies`, if there is one."""

    dies: int | None = None

    def flush(self) -> None:
        if self.dies is not None and len(self.batches) >= self.dies:
            for *_, future in self.queue:
                future.cancel()
            raise Killed
        super().flush()


def solving(
    tasks: Sequence[Task],
    reply: Reply,
    out: Path,
    *,
    budget: int | None = None,
    at_once: int = 4,
    judge: Reply | None = None,
    domains: Sequence = (),
    dies: int | None = None,
    apart: bool = False,
    settings: dict | None = None,
) -> tuple[list[Solved], Mortal]:
    """Solve over a scripted model, and a scripted judge where there is one."""
    known = {domain.name: domain for domain in (Ungraded(), Arithmetic(), *domains)}
    sampler = Mortal(Letters(), reply)
    sampler.dies = dies
    player = functools.partial(play, domains=known, sampler=sampler, codec=Letters())
    other = player
    if judge is not None:
        rater = Scripted(Letters(), judge)
        other = functools.partial(play, domains=known, sampler=rater, codec=Letters())

    record = Record(out / "record.jsonl", settings or {"script": 1})
    table = (Apart if apart else Together)({MODEL: player, JUDGE: other}, record)
    spending = Spending(budget, {MODEL: HOW, JUDGE: HOW}, seed=5, at_once=at_once)
    return asyncio.run(solve_tasks(tasks, table, spending, together=not apart)), sampler


def one(strategy, what, rules, **more) -> Task:
    """A task of this strategy."""
    return Task("p0", functools.partial(strategy, what, rules=rules, **more))


def outcome(solved: Sequence[Solved]) -> list:
    """Everything of a solve that must not depend on kills."""
    return [(s.task.name, s.result, vars(s.budget), s.standings) for s in solved]


def assert_kills_change_nothing(
    tasks: Callable[[], Sequence[Task]], reply: Callable[[], Reply], tmp_path: Path, **how
) -> int:
    """Kill before every batch of the sampler in turn; each time the end is the same.

    `reply` must be a function of what is asked and of the seed. Gives the number of batches.
    """
    whole, sampler = solving(tasks(), reply(), tmp_path / "whole", **how)
    batches = sampler.batches
    assert batches, "nothing was sampled"
    for dies in range(len(batches)):
        out = tmp_path / f"killed-{dies}"
        try:
            solving(tasks(), reply(), out, dies=dies, **how)
        except (Killed, InfrastructureError):
            pass
        else:
            raise AssertionError(f"it was to die before batch {dies}")
        again, sampler = solving(tasks(), reply(), out, **how)
        assert outcome(again) == outcome(whole), dies
        assert sampler.batches == batches[dies:], "what came back is not asked again"
    return len(batches)
