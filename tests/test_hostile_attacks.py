"""Attacks of every kind, as `bench.hostile` runs and measures them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.hostile.attacks import ATTACKS

from bench import hostile
from linn.sandbox import groups, isolation

pytestmark = pytest.mark.skipif(groups._place() is None, reason="nothing counts what is used")
KINDS = isolation.kinds()
QUICK = ("daemons", "nameless files", "many files", "kernel objects", "files of Python")
_SLACK = 1.2
_COUNTED_TOO = 16
"""MiB of the sandbox's own processes that the bench counts."""
_ALSO_WORKED = 1.0
"""CPU seconds of the sandbox itself, and of the next program, at most."""


def attack(kind: str, user: str, names: Sequence[str], folder: Path) -> list[hostile.Row]:
    """Run these attacks; asserts that none passed a limit, left a thing or touched the next."""
    for place in (folder, *folder.parents[:3]):
        place.chmod(0o755)
    paths = []
    for name in names:
        path = folder / f"{name.replace(' ', '-')}.py"
        path.write_text(ATTACKS[name])
        path.chmod(0o644)
        paths.append(path)

    rows = []
    for row, (memory, _, seconds) in hostile.measure(kind, user, paths):
        limits = hostile.SCRIPT if row.how == "script" else hostile.COMMAND
        assert memory < _SLACK * (limits.memory >> 20) + _COUNTED_TOO, row
        assert seconds < _SLACK * limits.cpu + _ALSO_WORKED, row
        assert row.left == [] and row.successor == "right", row
        rows.append(row)
    assert len(rows) == 2 * len(names)
    return rows


@pytest.mark.slow
def test_attacks_pass_no_limit_and_leave_nothing(tmp_path: Path) -> None:
    rows = attack(KINDS[0], "root", QUICK, tmp_path)
    verdicts = {(row.program, row.how): row.verdict for row in rows}
    assert verdicts["nameless-files.py", "command"] == "output"


@pytest.mark.long
@pytest.mark.parametrize("user", ["root", "nobody"])
@pytest.mark.parametrize("kind", KINDS)
def test_attacks_of_every_kind(kind: str, user: str, tmp_path: Path) -> None:
    # Without a group of its own, a plain user's command is not stopped in time: docs/sandbox.md
    # gives the numbers.
    uncounted: tuple[str, ...] = ()
    if user != "root":
        uncounted = ("memory in sockets", "time of the unwaited", "forks without end")
    attack(kind, user, [name for name in ATTACKS if name not in uncounted], tmp_path)
