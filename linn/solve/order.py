"""What a command orders: models, tasks, strategy and budget; and its execution in one folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from linn.domains.base import Domain
from linn.domains.proof import Proof
from linn.errors import UserError
from linn.files import write_json
from linn.solve.account import Account
from linn.solve.contest.judge import Judge
from linn.solve.curve import Point
from linn.solve.icpc import IcpcRules, contest_table
from linn.solve.players import Models, table_for, weights_of
from linn.solve.proof import ProofRules
from linn.solve.record import Record
from linn.solve.run import Solved, Spending, Task, solve_tasks, write_results
from linn.solve.strategies import STRATEGIES
from linn.solve.tasks import domain_of, problem_tasks, problems_of, prompts_of, row_tasks
from linn.solve.tir import TirRules, WithPython
from linn.solve.ungraded import Ungraded


@dataclass(frozen=True)
class Order:
    """One command."""

    models: Models
    """Who answers."""
    tasks: Sequence[str]
    """What is solved, as the command line names it."""
    strategy: str
    """Which strategy."""
    rules: Any
    """Its rules."""
    spending: Spending
    """What each task may spend."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the domain."""
    limit: int | None = None
    """Tasks at most."""
    max_failed: float = 0.1
    """Share of rollouts that may fail, grader or environment broken; above it RunFailed."""
    python_times: float = 1.0
    """Contest problems: Python gets so many times the seconds, which are made for C++."""

    def settings(self) -> dict[str, Any]:
        """All that decides the results: a record made under other settings is refused."""
        rules = {f"set {key}": value for key, value in asdict(self.rules).items()}
        sampled = {key: value for key, value in asdict(self.spending.how["model"]).items()}
        return {
            "model": self.models.model,
            "judge": self.models.judge,
            "weights": [weights_of(name) for name in self.models.names],
            "template": self.models.template,
            "tasks": list(self.tasks),
            "strategy": self.strategy,
            **rules,
            "budget": self.spending.budget,
            "at_once": self.spending.at_once,
            "sampling": sampled,
            "seed": self.spending.seed,
            "options": dict(self.options),
            "limit": self.limit,
            "python_times": self.python_times,
        }


async def fulfil(
    order: Order,
    out: Path,
    on_done: Callable[[Solved, int], None] = lambda solved, total: None,
    on_wave: Callable[[Account, int], None] = lambda account, total: None,
) -> tuple[list[Solved], list[Point]]:
    """Solve everything; results, record and curve go to `out`.

    Given again after a kill, it goes on and ends with the same results. `on_done` hears of every
    task that is over, and how many there are; `on_wave` of every wave of requests that is back.
    """
    with ExitStack() as stack:
        tasks, domains = _prepared(order, stack)
        out.mkdir(parents=True, exist_ok=True)
        record = Record(out / "record.jsonl", order.settings())
        async with table_for(order.models, domains, record, order.max_failed) as table:
            solved = await solve_tasks(
                tasks,
                table,
                order.spending,
                lambda one: on_done(one, len(tasks)),
                together=not order.models.is_served,
                on_wave=lambda account: on_wave(account, len(tasks)),
            )
    if isinstance(order.rules, IcpcRules):
        write_json(out / "contest.json", contest_table(solved, order.rules.penalty))
    return solved, write_results(out, solved)


def _prepared(order: Order, stack: ExitStack) -> tuple[list[Task], dict[str, Domain]]:
    """The tasks, and the domains that grade their rollouts; all closed by `stack`."""
    strategy = STRATEGIES[order.strategy]
    domains: dict[str, Domain] = {Ungraded.name: Ungraded()}
    # Problems bring their own judge; what the model writes of them is not graded by a domain.
    if strategy.kind == "contest":
        judge = Judge(order.python_times)
        stack.callback(judge.close)
        problems = problems_of(order.tasks, order.limit, judge)
        return problem_tasks(problems, strategy, order.rules, judge), domains

    tasks: list[Task] = []
    for name in order.tasks:
        domain = _domain(order, name)
        stack.callback(domain.close)
        domains[domain.name] = domain
        prompts = prompts_of(domain, order.limit)
        if isinstance(order.rules, TirRules):
            # Same name, same grader: only the tool and the number of turns are new.
            equipped = WithPython(domain, order.rules)
            domains[domain.name] = equipped
            prompts = [equipped.equipped(prompt) for prompt in prompts]
        tasks += row_tasks(prompts, strategy.solve, order.rules)
    return _named_apart(tasks), domains


def _domain(order: Order, name: str) -> Domain:
    """The domain that TASKS names; UserError where the strategy does not solve its rows."""
    domain = domain_of(name, order.options)
    if not isinstance(order.rules, ProofRules):
        return domain
    if domain.name != Proof.name:
        raise UserError(f"--strategy proof solves rows of domain proof, found {domain.name}")
    if order.options.get("formal"):
        return domain
    # The loop verifies by itself: rows in words need no judge besides.
    return domain_of(name, {**order.options, "judged": True})


def _named_apart(tasks: Sequence[Task]) -> list[Task]:
    """The tasks with names of their own, where two files share one."""
    seen: dict[str, int] = {}
    apart = []
    for task in tasks:
        count = seen.get(task.name, 0) + 1
        seen[task.name] = count
        if count > 1:
            task = replace(task, name=f"{task.name}.{count}")
        apart.append(task)
    return apart
