"""Files in a folder that hostile commands write to, reached without following a link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from linn.errors import InfrastructureError

DEEPEST = 50
"""Folders within folders that a file may be reached through."""
_LONGEST_READ = 64 << 20
_LONGEST_NAME = 255
_MOST_FILES = 100_000
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY
_BAD_PLACE = (NotADirectoryError, IsADirectoryError, FileExistsError, PermissionError)
_MACHINE_FAULTS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EROFS,
)


class Folder:
    """A folder whose paths are relative, without `..`, and lead through no symbolic link.

    Every method raises ValueError for a path that is not so, InfrastructureError where the disk
    is at fault.
    """

    def __init__(self, path: Path, uid: int) -> None:
        """`uid`: who owns what is written; 0: this process's user."""
        self.path, self.uid = path, uid

    def write(self, path: str, text: str) -> None:
        """Write a file, making its folders."""
        *parents, name = _parts(path)
        data = bytes_of(text)

        try:
            with self._entered(parents, make=True) as folder:
                # Removed first, so that nothing is written through a link, or into a file that a
                # command holds open.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)

                handle = os.open(name, _NEW_FILE_FLAGS, 0o644, dir_fd=folder)
                with open(handle, "wb") as file:
                    file.write(data)
                    if self.uid:
                        os.fchown(handle, self.uid, self.uid)

        except _BAD_PLACE as error:
            raise ValueError(f"path {path!r}: {error.strerror}") from None
        except OSError as error:
            raise _refused(error, path) from None

    def read(self, path: str) -> str:
        """A regular file's text; ValueError where there is none at that path."""
        *parents, name = _parts(path)
        try:
            with self._entered(parents) as folder:
                handle = os.open(name, _READ_FLAGS, dir_fd=folder)

            # A named pipe or a device could keep us waiting, or never end.
            with open(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise ValueError(f"path {path!r}: not a regular file")
                return file.read(_LONGEST_READ).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise _refused(error, path) from None

    def files(self) -> list[str]:
        """The relative paths of all regular files, sorted.

        Links, and what lies deeper than `DEEPEST` folders, are left out.
        """
        files: list[str] = []
        # Not the library's walk: that one calls itself and holds a descriptor at every depth.
        folders: list[list[str]] = [[]]
        while folders and len(files) <= _MOST_FILES:
            parents = folders.pop()
            # Commands may change the tree meanwhile: what cannot be looked at is left out.
            with contextlib.suppress(OSError), self._entered(parents) as folder:
                for name in os.listdir(folder):
                    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                    if stat.S_ISREG(mode):
                        files.append("/".join([*parents, name]))
                    elif stat.S_ISDIR(mode) and len(parents) < DEEPEST:
                        folders.append([*parents, name])
        return sorted(files)

    @contextlib.contextmanager
    def _entered(self, parents: Sequence[str], make: bool = False) -> Iterator[int]:
        """A descriptor of a folder below, reached without following a link."""
        handle = os.open(self.path, _FOLDER_FLAGS)
        try:
            for name in parents:
                if make:
                    self._make(name, handle)

                # Only one descriptor is held at a time, however deep the path.
                inner = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _make(self, name: str, handle: int) -> None:
        """Make a folder in the folder of this descriptor, unless it is there."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=handle)
            if self.uid:
                os.chown(name, self.uid, self.uid, dir_fd=handle, follow_symlinks=False)


def bytes_of(text: str) -> bytes:
    """A text as bytes; one that came from bytes that are not UTF-8 goes back to them."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if len(parts) > DEEPEST + 1:
        raise ValueError(f"path {path[:200]!r} leads through more than {DEEPEST} folders")

    longest = max(len(part.encode("utf-8", "replace")) for part in parts)
    # An absolute path has an empty first part.
    if "\0" in path or {"", ".", ".."} & set(parts) or longest > _LONGEST_NAME:
        raise ValueError(
            f"path {path[:200]!r} must be relative, "
            f"without empty, `.` or `..` parts, each at most {_LONGEST_NAME} bytes"
        )
    return parts


def _refused(error: OSError, path: str) -> Exception:
    """Whose fault an error of the file system is: the machine's, or the path's."""
    if error.errno in _MACHINE_FAULTS:
        return InfrastructureError(f"the scratch folder fails: {error}")
    return ValueError(f"path {path!r}: {error.strerror}")
