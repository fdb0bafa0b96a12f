"""Folders in memory with a size that the kernel holds, for the commands of a workspace.

One thread of this process has a mount namespace for itself. There a file system is mounted over a
workspace's folder, and there its commands start. The machine's own tree never shows it, this
process reaches it by a descriptor, and nothing of it stays however this process ends. Only root
may do that; for others folders stand on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from linn.sandbox.inside import mounts

_ROOM = 1.1
"""How much more than its limit a folder holds, so that passing the limit can be seen."""
_PAGE_BYTES = 4096

keeper = ThreadPoolExecutor(1, "linn-folders")
"""The thread that mounts, and that starts what must see what is mounted."""
_has_own_space: list[bool] = []
"""Of that thread: empty until it was tried."""


def cover(folder: Path, size: int, uid: int) -> int:
    """Put a file system of `size` bytes over a folder; a descriptor of its root.

    `uid`: its owner. Returns -1 where this process may not.
    """
    if os.geteuid() != 0:
        return -1
    return keeper.submit(_cover, folder, size, uid).result()


def resize(folder: Path, size: int) -> None:
    """Let what covers a folder hold another size; at least what is in it already."""
    try:
        keeper.submit(mounts.resize, str(folder), _options(size)).result()
    except OSError as error:
        # The kernel refuses a size below what the files take. Then the size before stays, which the
        # command before was held to.
        if error.errno != errno.EINVAL:
            raise


def uncover(folder: Path, descriptor: int) -> None:
    """Throw away what covers a folder."""
    os.close(descriptor)
    # Where this process ends, the thread has ended before, and its mounts with it.
    with contextlib.suppress(RuntimeError):
        keeper.submit(mounts.uncover, str(folder)).result()


def _cover(folder: Path, size: int, uid: int) -> int:
    if not _has_own_space:
        _has_own_space.append(mounts.own_space())
    if not _has_own_space[0]:
        return -1
    try:
        owner = f"uid={uid},gid={uid},mode=755"
        mounts.empty_folder(str(folder), f"{_options(size)},{owner}")
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1  # a disk that was mounted later than this thread looked


def _options(size: int) -> str:
    files = size // _PAGE_BYTES + 1
    return f"size={int(_ROOM * size)},nr_inodes={files}"
