"""Where a run's folder stands: a disk of its own that can be full, and how far the run has come."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.chaos.processes import Process

_DISK_MIB = 96
"""Size of a lane's own disk."""


class Disk:
    """A folder for a run and its temporary files, with an end that can be brought near.

    As root it is a tmpfs of its own, filled by a ballast file: what fails then is the real ENOSPC.
    Elsewhere the processes' own limit of a file's size stands for it, and a write fails by EFBIG.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        size = f"size={_DISK_MIB}m"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "chaos", str(path)], capture_output=True
        )
        self.is_mounted = mounted.returncode == 0
        self._ballast = path / "ballast"

    @property
    def kind(self) -> str:
        """How it becomes full, for a person."""
        return f"a tmpfs of {_DISK_MIB} MiB" if self.is_mounted else "RLIMIT_FSIZE"

    def fill(self, left: int, processes: Sequence[Process]) -> None:
        """Leave so many bytes."""
        if not self.is_mounted:
            for process in processes:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (left, left))
            return
        with open(self._ballast, "wb") as file:
            # The run writes meanwhile, so what is free may be less than it was just now.
            for _ in range(100):
                status = os.statvfs(self.path)
                size = status.f_bavail * status.f_frsize - left
                if size <= 0:
                    return
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)

    def free(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the disk back."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.path)], capture_output=True)
            self.is_mounted = False


def standing(folder: Path) -> str:
    """The stage and the step that a run folder has reached, and what it is about, in words."""
    stages = sorted((folder / "stages").glob("[0-9]*-*"))
    if not stages:
        return "before its folder is there"
    stage = stages[-1]
    # A later stage may have its folder before an earlier one is done: the first that is not.
    for candidate in stages:
        if not (candidate / "DONE").exists() and candidate.name[:2] != "00":
            stage = candidate
            break
    try:
        steps = (stage / "metrics.jsonl").read_text().count("\n")
    except OSError:
        steps = 0
    name = stage.name.partition("-")[2]
    if (stage / "DONE").exists():
        return f"after {name}"
    parts = [path.name for path in stage.glob("**/.*.part")]
    about = ""
    if parts:
        about = f", writing {parts[0].removeprefix('.').removesuffix('.part')}"
    elif any((stage / "evals").glob("*")):
        about = ", measuring"
    return f"{name} step {steps}{about}"
