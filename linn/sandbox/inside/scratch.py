"""The folder that a program may write to: made for it alone, and thrown away after it.

This file runs inside the sandbox, in the fork server; the emptying of folders is used outside too.
"""

from __future__ import annotations

import itertools
import os

from . import mounts

FILES = 4
"""How many files of the largest size a program's folder holds."""
_MOST_FILES = 10_000
"""Files and folders that a program may have in memory, its own folder included."""
_NAME = "work"
"""Name of the folder where it stands on the disk."""


class Scratch:
    """Makes and removes one program's folder after the other.

    Where this process may mount, each is a file system of its own in memory, over `home`. What a
    program did to it, its mode, times and attributes included, goes with the file system. Else it
    is a new folder in `home`, on the disk, whose total size nothing limits.
    """

    def __init__(self, home: str, uid: int, in_memory: bool) -> None:
        """`uid`: whose it is; 0: this process's user."""
        self._home, self._in_memory = home, in_memory
        self._uid = uid or os.geteuid()
        self._is_made = False
        self.path = home if in_memory else os.path.join(home, _NAME)
        """Where programs find it."""

    def make(self, size: int) -> None:
        """An empty folder; `size`: bytes that it holds in memory. Raises OSError."""
        if self._in_memory:
            owner = f"uid={self._uid},gid={self._uid},mode=700"
            mounts.empty_folder(self._home, f"size={size},nr_inodes={_MOST_FILES},{owner}")
        else:
            os.mkdir(self.path, 0o700)
            os.chown(self.path, self._uid, self._uid)
        self._is_made = True

    def clear(self) -> None:
        """Throw it away, whatever a program left in it; raises OSError where that fails."""
        if not self._is_made:
            return
        if self._in_memory:
            mounts.uncover(self._home)
        else:
            # A program that runs as this user may have shut it.
            os.chmod(self.path, 0o700)
            empty(self.path)
            os.rmdir(self.path)
        self._is_made = False


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
