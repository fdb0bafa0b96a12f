"""Emptying a folder that a hostile program has filled."""

from __future__ import annotations

import itertools
import os


def empty(folder: str) -> None:
    """Remove everything in `folder`; raises OSError where that fails.

    Folders are moved up before they are removed, so that their depth costs nothing. Locked ones
    are opened; links are not followed.
    """
    names_to_try = (f".linn-{number}" for number in itertools.count())
    names = sorted(os.listdir(folder))
    while names:
        path = os.path.join(folder, names.pop())
        if os.path.islink(path) or not os.path.isdir(path):
            os.unlink(path)
            continue

        os.chmod(path, 0o700)
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue

                name = next(
                    name for name in names_to_try if not os.path.lexists(os.path.join(folder, name))
                )
                os.chmod(entry.path, 0o700)
                os.rename(entry.path, os.path.join(folder, name))
                names.append(name)
        os.rmdir(path)
