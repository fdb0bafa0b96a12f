"""What processes use, read from /proc: memory, processor time, bytes written, files.

This file runs inside the sandbox, at the start of every command: it imports little.
"""

from __future__ import annotations

import errno
import os
import resource
import stat

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_BLOCK_BYTES = 512
_EMPTY_FILE_BYTES = 4096
"""What an empty file or folder counts as, so that a folder full of them ends too."""

# Fields of /proc/PID/stat, counted from the one after the name (proc(5) counts that one as 3).
_PARENT = 1
_FIRST_TIME, _LAST_TIME = 11, 14
"""utime, stime, cutime, cstime: its own time, and that of the children it waited for."""


def descendants(own_space: bool) -> list[int]:
    """Every process that the command started.

    `own_space`: this process is the first of a process space, where all others are the
    command's. Else they are found by their parents.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    if own_space:
        return [pid for pid in pids if pid != 1]

    # A process may end between two looks: what has gone has no fields.
    parent_of = {}
    for pid in pids:
        fields = _stat_fields(pid)
        if fields:
            parent_of[pid] = int(fields[_PARENT])
    family = {os.getpid()}
    while True:
        children = {pid for pid, parent in parent_of.items() if parent in family}
        if children <= family:
            break
        family |= children
    return sorted(family - {os.getpid()})


def cpu_seconds(pids: list[int]) -> float:
    """CPU seconds of these processes, and of those that have ended and were waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    for pid in pids:
        fields = _stat_fields(pid)
        if len(fields) > _LAST_TIME:
            ticks = map(int, fields[_FIRST_TIME : _LAST_TIME + 1])
            seconds += sum(ticks) / _TICKS_PER_SECOND
    return seconds


def memory_bytes(pids: list[int]) -> tuple[int, int]:
    """Bytes of memory that these processes hold, mapped files left out: private, and shared."""
    private = shared = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/status").splitlines():
            if line.startswith(b"RssAnon:"):
                private += int(line.split()[1]) << 10
            elif line.startswith(b"RssShmem:"):
                shared += int(line.split()[1]) << 10
    return private, shared


def shared_bytes(pids: list[int]) -> int:
    """Bytes of memory that these processes map to share it with each other, touched or not.

    What a process takes from its own view of such memory stays in the others' view.
    """
    sizes: dict[bytes, int] = {}
    for pid in pids:
        for line in _read(f"/proc/{pid}/maps").splitlines():
            # Range, rights, offset, device, inode, and what it is.
            words = line.split(None, 5)
            if len(words) == 6 and words[5] == b"/dev/zero (deleted)":
                begin, _, end = words[0].partition(b"-")
                last = int(words[2], 16) + int(end, 16) - int(begin, 16)
                sizes[words[4]] = max(sizes.get(words[4], 0), last)
    return sum(sizes.values())


def written_bytes(pids: list[int]) -> int:
    """Bytes that were sent to disks by these processes, and by children that have ended.

    What was taken back in time, before it reached a disk, does not count.
    """
    total = 0
    # This process's own counts hold those of the children it has reaped.
    for pid in (os.getpid(), *pids):
        lines = _read(f"/proc/{pid}/io").splitlines()
        counts = dict(line.split(b": ") for line in lines)

        total += int(counts.get(b"write_bytes", 0))
        total -= int(counts.get(b"cancelled_write_bytes", 0))
    return total


def folder_bytes(folder: str, most: int) -> int:
    """Bytes that a folder holds; counting stops above `most`."""
    total = 0
    folders = [folder]
    while folders and total <= most:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    total += max(_EMPTY_FILE_BYTES, status.st_blocks * _BLOCK_BYTES)
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(entry.path)
                    if total > most:
                        break

        except OSError as error:
            # A path this long was made step by step, so that nobody can look into it.
            if error.errno == errno.ENAMETOOLONG:
                return most + 1
    return total


def file_count(mount: str) -> int:
    """Files and folders of a file system in memory."""
    status = os.statvfs(mount)
    return status.f_files - status.f_ffree


def mount_bytes(mount: str) -> int:
    """Bytes that a file system holds, files without a name included."""
    status = os.statvfs(mount)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    return max(used, _EMPTY_FILE_BYTES * (status.f_files - status.f_ffree))


def nameless_bytes(pids: list[int]) -> int:
    """Bytes of files that these processes hold open and that have no name any more."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has ended
        for name in names:
            try:
                status = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            key = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                sizes[key] = status.st_blocks * _BLOCK_BYTES
    return sum(sizes.values())


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat after the name; empty when the process has ended."""
    # The name stands in brackets and may hold any byte, brackets and spaces too.
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _read(path: str) -> bytes:
    """A small file's bytes; empty where it is gone."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
