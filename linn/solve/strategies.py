"""The strategies by name, with their rules and what they take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from linn.errors import UserError, nearest
from linn.solve.best import BestRules, best
from linn.solve.genselect import GenSelectRules, genselect
from linn.solve.result import Result
from linn.solve.vote import VoteRules, vote

Solve = Callable[..., Awaitable[Result]]
Kind = Literal["rows", "contest"]
"""What a strategy solves: rows of a domain, or contest problems."""

STRATEGIES: dict[str, tuple[Kind, type[Any], Solve]] = {
    "vote": ("rows", VoteRules, vote),
    "best": ("rows", BestRules, best),
    "genselect": ("rows", GenSelectRules, genselect),
}
"""(what it takes, its rules, the coroutine of (task, account, rules))."""


def check_strategy(name: str) -> None:
    """Refuse a name that is no strategy."""
    if name not in STRATEGIES:
        raise UserError(f"--strategy {name!r} is unknown{nearest(name, STRATEGIES)}")
