"""What a worker says of a disk that is full."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linn.errors import DiskFull

_LEAST_FREE = 1 << 16
"""Bytes below which the disk of the temporary files counts as full."""


@contextmanager
def room_for(folder: Path, size: int) -> Iterator[None]:
    """Say which disk is full, and how much is needed, where writing into `folder` fails for that.

    What was there before is intact: it is replaced only by what is whole. `size`: in bytes. Where
    an error does not say of what a write failed, a disk with less room than that says it.
    """
    try:
        yield
    except Exception as error:
        folder = folder.absolute()
        place = next(one for one in (folder, *folder.parents) if one.exists())
        free = shutil.disk_usage(place).free
        if not is_full(error) and free >= size:
            raise
        raise DiskFull(
            f"{os.strerror(errno.ENOSPC)}: {folder} needs about {_megabytes(size)}, its disk "
            f"({_mount_of(place)}) has {_megabytes(free)} free; what was saved before is intact"
        ) from None


def is_full(error: Exception) -> bool:
    """Whether a write failed for want of room."""
    full = (errno.ENOSPC, errno.EDQUOT)
    # The writer of weights has a class of its own, and the kernel's words in it.
    in_words = any(os.strerror(one) in str(error) for one in full)
    return in_words or getattr(error, "errno", None) in full


def full_disk(folder: Path) -> str:
    """Where the temporary files' disk is full, that it is: a process may end without a word.

    There it finds its peers, by a file, and there its last words would be.
    """
    if shutil.disk_usage(folder).free >= _LEAST_FREE:
        return ""
    return f"{os.strerror(errno.ENOSPC)} for temporary files in {folder}: "


def _mount_of(folder: Path) -> Path:
    """Where the disk that holds a folder begins."""
    folder = folder.resolve()
    while not folder.is_mount():
        folder = folder.parent
    return folder


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
