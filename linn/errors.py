"""The errors a person can meet, each with what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LinnError(Exception):
    """Something failed that is neither a bug nor the user's mistake: exit code 1, one line."""

    exit_code = 1


class UserError(LinnError):
    """The user's input is wrong: where, what was found, what is allowed, what to do. Exit code 2, one line."""

    exit_code = 2


class RunFailed(LinnError):
    """A run stopped by itself (loss not finite, mismatch over its gate, disk full); the last good checkpoint is kept."""


class InfrastructureError(LinnError):
    """The machine failed, not the model (no sandbox, fork refused, disk full). Never to be counted as reward 0."""


def nearest(word: str, among: Iterable[str]) -> str:
    """`; did you mean 'x'?` for a misspelt word, or the list of what is allowed."""
    names = list(among)
    close = difflib.get_close_matches(word, names, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; allowed: {', '.join(names)}"
