"""Memory that a run may count on. No torch here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where Linux shows control groups: containers and jobs of a cluster have their limits there."""
MEMBERSHIPS = Path("/proc/self/cgroup")
"""Which of them this process is in."""


def machine_bytes() -> int:
    """Memory of this machine, or what its container or job gives us of it."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        memberships = MEMBERSHIPS.read_text()
    except OSError:  # not Linux
        return has
    return min([has, *limits(GROUPS, memberships)])


def limits(groups: Path, memberships: str) -> Iterator[int]:
    """Limits in bytes of the groups that a process is in, and of those around them.

    memberships: lines `number:controllers:path`; version 2 has no controllers there.
    """
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A container may be told the path that the host sees: only its root is there then.
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(root):
                yield from _limit(folder / name)


def _limit(file: Path) -> Iterator[int]:
    """The number in a file, if there is one: `max` is none."""
    try:
        yield int(file.read_text())
    except (OSError, ValueError):
        return
