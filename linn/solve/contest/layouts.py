"""Which layout a problem's folder has, and its reader."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from linn.errors import UserError
from linn.sandbox import Sandbox
from linn.solve.contest.cms import is_cms, read_cms
from linn.solve.contest.folder import is_own, read_own
from linn.solve.contest.ioi import is_ioi, read_ioi
from linn.solve.contest.polygon import is_polygon, read_polygon
from linn.solve.contest.problem import Problem

_READERS: list[tuple[Callable[[Path], bool], Callable[[Path, Sandbox], Problem]]] = [
    (is_own, read_own),
    (is_polygon, read_polygon),
    (is_cms, read_cms),
    (is_ioi, read_ioi),
]
LAYOUTS = (
    "read are linn's own (problem.yaml), Polygon's packages (problem.xml), CMS's folders "
    "(task.yaml) and the IOI's (problem.json)"
)
"""What is read, in words."""


def is_problem(folder: Path) -> bool:
    """Whether a folder holds a problem of a layout that is read."""
    return any(is_of(folder) for is_of, _ in _READERS)


def read_problem(folder: Path, sandbox: Sandbox) -> Problem:
    """The problem of a folder. UserError names the file that is wrong."""
    for is_of, read in _READERS:
        if is_of(folder):
            return read(folder, sandbox)
    raise UserError(f"{folder}: no problem; {LAYOUTS}")
