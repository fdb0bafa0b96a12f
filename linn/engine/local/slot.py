"""A place for one model beside the policy: a teacher, a judge or a reference at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

M = TypeVar("M")


class Slot(Generic[M]):
    """Holds what was made of the checkpoint that was asked for last."""

    def __init__(self, read: Callable[[Path], M]) -> None:
        """read: makes it of a Hugging Face folder."""
        self._read = read
        self._held: M | None = None
        self._key: tuple[object, ...] = ()
        """Which checkpoint it is of."""

    def take(self, folder: Path) -> M:
        """What the checkpoint in `folder` gives; read anew where the folder has changed."""
        # A run may write a new checkpoint under an old name.
        key = (folder, *_identity(folder))
        if self._held is None or self._key != key:
            self._held = None  # never two at once
            self._held = self._read(folder)
            self._key = key
        return self._held


def _identity(folder: Path) -> tuple[int, ...]:
    """Changes when another checkpoint takes the folder's name; empty for no folder."""
    try:
        status = folder.stat()
    except OSError:
        return ()  # whoever reads the checkpoint reports it
    return status.st_ino, status.st_mtime_ns
