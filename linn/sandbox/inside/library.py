"""Reaching Python's standard library where its path leads through folders shut to programs.

This file runs inside the sandbox, at the start of the fork server.
"""

from __future__ import annotations

import os
import stat
import sys

_HELD = "/proc/self/fd/"


def prepare(scratch: str, kind: str, uid: int, first_descriptor: int) -> None:
    """Leave the interpreter's own folders on the path, within reach of the programs' user."""
    prefixes = (sys.base_prefix, sys.base_exec_prefix)
    own = [path for path in sys.path if os.path.isdir(path) and path.startswith(prefixes)]
    sys.path[:] = own
    # Under `unshare` an empty folder will be put over `scratch`.
    is_hidden = kind == "unshare" and sys.base_prefix.startswith(scratch + "/")
    if is_hidden or (uid and _is_shut(sys.base_prefix)):
        _hold(first_descriptor)


def descriptors() -> list[int]:
    """The descriptors by which the library is held open; none where its path can be used."""
    return [int(path.removeprefix(_HELD)) for path in sys.path if path.startswith(_HELD)]


def _hold(first_descriptor: int) -> None:
    """Reach the library through descriptors, from this number on."""
    for number, path in enumerate(list(sys.path), first_descriptor):
        handle = os.open(path, os.O_PATH | os.O_DIRECTORY)
        os.dup2(handle, number, inheritable=False)
        os.close(handle)

        by_descriptor = f"{_HELD}{number}"
        sys.path[sys.path.index(path)] = by_descriptor

        # Packages that are imported already look for their modules by a path of their own.
        for module in list(sys.modules.values()):
            for index, part in enumerate(getattr(module, "__path__", ())):
                if part.startswith(path + "/"):
                    below = part.removeprefix(path)
                    module.__path__[index] = by_descriptor + below


def _is_shut(path: str) -> bool:
    """Whether a folder on the way to a path can be entered by its owner only."""
    parts = path.split("/")
    folders = ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]
    return not all(os.stat(folder).st_mode & stat.S_IXOTH for folder in folders)
