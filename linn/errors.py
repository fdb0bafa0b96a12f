"""The errors a person can meet, each with what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class LinnError(Exception):
    """Something failed that is neither a bug nor the user's mistake: exit code 1, one line."""

    exit_code = 1


class UserError(LinnError):
    """The user's input is wrong. Exit code 2, one line.

    The line says where, what was found, what is allowed, and what to do.
    """

    exit_code = 2


class RunFailed(LinnError):
    """A run stopped by itself: loss not finite, mismatch over its gate, disk full.

    The last good checkpoint is kept.
    """


class InfrastructureError(LinnError):
    """The machine failed, not the model: no sandbox, fork refused, disk full.

    It never counts as reward 0.
    """


class EngineLost(InfrastructureError):
    """A process of the engine is gone, and all others ended with it.

    Loaded again, the engine goes on from the last saved state.
    """


class DiskFull(InfrastructureError):
    """A disk has no room for what is to be written: which one, and how much is missing."""


def is_final(error: BaseException) -> bool:
    """Whether the same work ends in the same error again, also in an engine that starts anew."""
    return isinstance(error, UserError | RunFailed | DiskFull)


def nearest(word: str, among: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a misspelt word, or the list of what is allowed."""
    names = list(among)
    close = difflib.get_close_matches(word, names, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; allowed: {', '.join(names)}"


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """An `asyncio.TaskGroup` whose first error is raised as itself, not within an ExceptionGroup.

    The error of one task cancels the others, and all have ended when it is raised.
    """
    import asyncio

    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
