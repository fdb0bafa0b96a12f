"""Looking at processes: who descends from whom, who still runs, who has begun its work."""

from __future__ import annotations

import time
from pathlib import Path

WORKING = "import ctypes\nctypes.CDLL(None).prctl(15, b'working', 0, 0, 0)\n"
"""Begins a program that names its process `working`: a test need not guess when it runs."""

_MOST_SECONDS = 60.0


def processes() -> dict[int, tuple[str, int]]:
    """State and parent of every process, in whatever process space."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(path.name)] = (fields[0], int(fields[1]))
    return found


def processes_below(pid: int) -> set[int]:
    """A process and all that descend from it."""
    parent_of = {child: parent for child, (_, parent) in processes().items()}
    family = {pid}
    while children := {child for child, parent in parent_of.items() if parent in family} - family:
        family |= children
    return family


def is_alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and is not yet reaped does not."""
    state, _ = processes().get(pid, ("X", 0))
    return state not in "ZX"


def working_below(pid: int, seen: frozenset[int] = frozenset()) -> int:
    """Wait for a program that begins with `WORKING`, below a process; `seen` ones do not count."""
    deadline = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < deadline:
        for child in processes_below(pid) - seen:
            try:
                if Path(f"/proc/{child}/comm").read_text().strip() == "working":
                    return child
            except OSError:
                continue
        time.sleep(0.01)
    raise AssertionError(f"no program began its work below process {pid}")
