"""Which layout a problem's folder has, and its reader."""

from __future__ import annotations

from pathlib import Path

from linn.errors import UserError
from linn.sandbox import Sandbox
from linn.solve.contest.folder import is_own, read_own
from linn.solve.contest.problem import Problem

LAYOUTS = "read are linn's own (problem.yaml)"
"""What is read, in words."""


def is_problem(folder: Path) -> bool:
    """Whether a folder holds a problem of a layout that is read."""
    return is_own(folder)


def read_problem(folder: Path, sandbox: Sandbox) -> Problem:
    """The problem of a folder. UserError names the file that is wrong."""
    if is_own(folder):
        return read_own(folder, sandbox)
    raise UserError(f"{folder}: no problem; {LAYOUTS}")
