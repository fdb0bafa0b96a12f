"""What the machine has. No torch here."""

from __future__ import annotations

import os


def machine_bytes() -> int:
    """Memory of this machine, or of the container that it gives us."""
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max") as file:
            has = min(has, int(file.read()))
    except (OSError, ValueError):
        pass  # no container, or one without a limit ("max")
    return has
