"""The verb `linn solve`: tasks by a strategy of test-time compute, under a budget of tokens.

Heavy imports happen inside the verb, so that help starts in a blink.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linn.cli.filter import MaxFailed, Template, template_choice
from linn.terminal import echo

if TYPE_CHECKING:
    from linn.solve.account import Account
    from linn.solve.curve import Point
    from linn.solve.run import Solved

_PAUSE_S = 30.0
"""Seconds between two lines of progress, without a terminal."""

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="RUN@STAGE[:STEP], a folder, or http(s)://…/v1#MODEL"),
]
Tasks = Annotated[
    list[str],
    typer.Argument(
        metavar="TASKS",
        help="a file of rows ([DOMAIN=]FILE), a domain, or folders of contest problems",
    ),
]
Strategy = Annotated[
    str, typer.Option(help="vote, best, genselect, tir, proof (rows); ioi, icpc (problems)")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="a rule of the strategy (docs/solve.md); may be repeated"
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="an option of the domain; may be repeated"),
]
Judge = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="who rates and verifies; default: the model itself"),
]


Budget = Annotated[
    int | None, typer.Option(min=1, help="sampled tokens per task; default: no limit")
]
Out = Annotated[
    Path | None, typer.Option(help="results, record and curve; default solves/STRATEGY")
]
Limit = Annotated[int | None, typer.Option(min=1, help="tasks at most")]
AtOnce = Annotated[
    int, typer.Option(min=1, help="requests of a task's wave: by so many may it overspend")
]
MaxTokens = Annotated[
    int, typer.Option(min=1, help="sampled tokens a turn at most (paper: 131,072)")
]
Temperature = Annotated[float, typer.Option(min=0, help="sampling temperature")]
TopP = Annotated[float, typer.Option(min=0, max=1, help="nucleus mass")]
Seed = Annotated[int, typer.Option(help="seed of all draws")]
Processes = Annotated[int, typer.Option(min=1, help="worker processes, for a checkpoint")]
Concurrency = Annotated[int, typer.Option(min=1, help="requests at once, at an endpoint")]
PythonTimes = Annotated[
    float, typer.Option(min=0.1, help="contest problems: so many times the seconds for Python")
]
KeyEnv = Annotated[
    str | None, typer.Option(metavar="VARIABLE", help="holds the endpoints' API key")
]
Timeout = Annotated[
    float, typer.Option(min=1, help="seconds that one answer of an endpoint may take")
]
NoMode = Annotated[bool, typer.Option("--no-mode", help="do not tell an endpoint whether to think")]


def solve(
    model: Model,
    tasks: Tasks,
    strategy: Strategy,
    budget: Budget = None,
    out: Out = None,
    changes: Changes = None,
    options: Options = None,
    limit: Limit = None,
    at_once: AtOnce = 64,
    max_tokens: MaxTokens = 131_072,
    temperature: Temperature = 1.0,
    top_p: TopP = 0.95,
    seed: Seed = 0,
    judge: Judge = None,
    processes: Processes = 2,
    concurrency: Concurrency = 64,
    python_times: PythonTimes = 1.0,
    max_failed: MaxFailed = 0.1,
    key_env: KeyEnv = None,
    timeout: Timeout = 1800.0,
    no_mode: NoMode = False,
    template: Template = None,
) -> None:
    """Spend test-time compute: many rollouts on each task. Run again, it goes on."""
    import asyncio
    from functools import partial

    from linn.engine.local.device import say_device
    from linn.recipe.load import domain_config
    from linn.report.solves import build_solve
    from linn.solve.order import Order, fulfil
    from linn.solve.players import Models, check_model
    from linn.solve.rules import rules_from
    from linn.solve.run import Spending
    from linn.solve.strategies import STRATEGIES, check_strategy
    from linn.types import Sampling

    # Everything that can be refused is refused before a model is loaded.
    check_strategy(strategy)
    rules = rules_from(STRATEGIES[strategy].rules, changes or [], strategy)
    for name in (model, judge):
        if name is not None:
            check_model(name)

    how = Sampling(max_tokens, temperature, top_p)
    order = Order(
        models=Models(
            model=model,
            judge=judge,
            template=template_choice(template),
            processes=processes,
            concurrency=concurrency,
            key_env=key_env,
            timeout_s=timeout,
            asks_mode=not no_mode,
        ),
        tasks=tasks,
        strategy=strategy,
        rules=rules,
        spending=Spending(budget, {"model": how, "judge": how}, seed, at_once),
        options=domain_config("tasks", None, options or []).options,
        limit=limit,
        python_times=python_times,
        max_failed=max_failed,
    )
    if not order.models.is_served:
        say_device(partial(echo, err=True))
    folder = out or Path("solves") / strategy
    watch = _Watch()
    try:
        solved, points = asyncio.run(fulfil(order, folder, watch.on_done, watch.on_wave))
    finally:
        watch.show.close()
    _print(solved, points)
    echo(f"report: {build_solve(folder)}")


class _Watch:
    """What a person sees while it goes on: tasks that are over, tokens of those that are not."""

    def __init__(self) -> None:
        from linn.progress import Progress

        self.show = Progress()
        self.done = self.tokens = 0
        self._spent: dict[str, int] = {}
        self._last = time.monotonic()

    def on_done(self, solved: Solved, total: int) -> None:
        """A task is over."""
        self.done += 1
        self.show.step("solve", self.done, total, {"reward": solved.share})

    def on_wave(self, account: Account, total: int) -> None:
        """A wave of requests is back."""
        spent = account.budget.spent
        self.tokens += spent - self._spent.get(account.task, 0)
        self._spent[account.task] = spent
        text = f"{self.tokens:,} tokens sampled; {account.task}: {spent:,}"

        # A bar follows every wave; without a terminal, a line once in a while.
        self.show.note("solve", self.done, total, text)
        now = time.monotonic()
        if now - self._last >= _PAUSE_S and not self.show.console.is_terminal:
            self._last = now
            self.show.say(f"solve          {self.done}/{total} {text}")


def _print(solved: Sequence[Solved], points: Sequence[Point]) -> None:
    """The score with its interval, along the way and at the end, and what it took."""
    tokens = sum(one.budget.spent for one in solved)
    calls = sum(one.budget.calls for one in solved)
    ended = sum(one.budget.is_spent for one in solved)

    # A few places of the curve; the page has them all.
    for point in points[:: max(1, len(points) // 8)]:
        interval = f"[{point.low:.1%}, {point.high:.1%}]"
        echo(f"{point.tokens:>10,} tokens a task  {point.score:7.1%}  {interval}")
    # At the end every task has spent what it wanted to spend.
    last = points[-1]
    echo(f"score {last.score:.1%}  [{last.low:.1%}, {last.high:.1%}]  n {last.n}")
    echo(f"{tokens:,} tokens sampled in {calls:,} rollouts; the budget ended {ended} of {last.n}")
    truncated = sum(one.budget.truncated for one in solved)
    failed = sum(one.budget.failed for one in solved)
    if truncated or failed:
        echo(f"{truncated:,} rollouts reached a limit of tokens, {failed:,} failed")
