"""The strategies by name, with their rules and what they take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from linn.errors import UserError, nearest
from linn.solve.best import BestRules, best
from linn.solve.genselect import GenSelectRules, genselect
from linn.solve.icpc import IcpcRules, icpc
from linn.solve.ioi import IoiRules, ioi
from linn.solve.proof import ProofRules, proof
from linn.solve.result import Result
from linn.solve.tir import TirRules, tir
from linn.solve.vote import VoteRules, vote

Solve = Callable[..., Awaitable[Result]]
"""A coroutine of (prompt, account, rules), or of (problem, account, rules, judge)."""
Kind = Literal["rows", "contest"]
"""What a strategy solves: rows of a domain, or contest problems."""


@dataclass(frozen=True)
class Strategy:
    """What `--strategy` names."""

    kind: Kind
    """What it takes."""
    rules: type[Any]
    """Its rules: a dataclass."""
    solve: Solve
    """Itself."""
    in_points: bool = False
    """Whether its score is in a problem's points."""


STRATEGIES = {
    "vote": Strategy("rows", VoteRules, vote),
    "best": Strategy("rows", BestRules, best),
    "genselect": Strategy("rows", GenSelectRules, genselect),
    "tir": Strategy("rows", TirRules, tir),
    "proof": Strategy("rows", ProofRules, proof),
    "ioi": Strategy("contest", IoiRules, ioi, in_points=True),
    "icpc": Strategy("contest", IcpcRules, icpc),
}


def check_strategy(name: str) -> None:
    """Refuse a name that is no strategy."""
    if name not in STRATEGIES:
        raise UserError(f"--strategy {name!r} is unknown{nearest(name, STRATEGIES)}")
