"""The processes of a run as /proc shows them: who they are, and what they have computed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_ENDED = ("Z", "X")
"""States of processes that are no more, though nobody has asked for their exit code."""


@dataclass(frozen=True)
class Process:
    """One process; its start tells it from a later one of the same number."""

    pid: int
    began: int
    """Its start, in ticks since the machine's."""
    role: str
    """`command`, `worker`, `server` (of the sandbox) or `other`."""

    @property
    def is_there(self) -> bool:
        """Whether it still runs."""
        fields = _fields(self.pid)
        return bool(fields) and int(fields[19]) == self.began and fields[0] not in _ENDED

    def send(self, number: signal.Signals) -> None:
        """A signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.is_there:
                os.kill(self.pid, number)


def tree_of(pid: int) -> list[Process]:
    """A command and everything that it started, itself first."""
    found = []
    for number in _descendants(pid):
        fields = _fields(number)
        if fields and fields[0] not in _ENDED:
            found.append(Process(number, int(fields[19]), _role(number, pid)))
    return found


def cpu_seconds(processes: Iterable[Process]) -> float:
    """Processor seconds of these processes so far; of one that has ended, none."""
    ticks = 0
    for process in processes:
        fields = _fields(process.pid)
        if fields:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def left_of(processes: Iterable[Process], patience_s: float = 120.0) -> list[Process]:
    """Those that still run after some time."""
    left = list(processes)
    deadline = time.monotonic() + patience_s
    while left and time.monotonic() < deadline:
        left = [process for process in left if process.is_there]
        if left:
            time.sleep(0.05)
    return left


def _descendants(pid: int) -> Iterator[int]:
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _descendants(int(child))


def _fields(pid: int) -> list[str]:
    """What /proc says of a process from its state on; empty where it is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _role(pid: int, command: int) -> str:
    if pid == command:
        return "command"
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "other"
    if b"linn.engine.local.start" in words:
        return "worker"
    # The tool of isolation and the server that it starts both hold these words.
    return "server" if b"inside.server" in words else "other"
