"""Signs of life of the worker processes: a stopped one is named, however long a step may take.

A thread of each worker counts up in a file of its own, whatever the worker computes. A thread of
the engine's process looks at the counts while a call is under way. It counts looks, not seconds: a
run that was stopped as a whole (Ctrl-Z) finds everybody as it left them.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from linn.terminal import echo

BEAT_S = 1.0
"""Seconds between two signs of life."""
LOOK_S = 5.0
"""Seconds between two looks."""
SILENT_LOOKS = 9
"""Looks in a row without a sign of life, after which a process is taken for stopped."""
STARTING_LOOKS = 180
"""The same for one that has given none yet: it reads its libraries, maybe from a slow disk.

One that a signal has stopped gets no longer than others."""
IDLE_LOOKS = 12
"""Looks in a row in which nobody who owes an answer computed, after which that is told."""
IDLE_SHARE = 0.005
"""Share of a processor below which a process does not compute."""

_LAYOUT = struct.Struct("qd")
"""What a file holds: signs of life so far, CPU seconds so far."""


def prepare(path: Path) -> None:
    """Make the file of a worker that is about to start."""
    # Whole from the start: a disk that is full later must stop no heart.
    path.write_bytes(bytes(_LAYOUT.size))


def beat(path: Path) -> None:
    """In a worker: give signs of life from now on, by a thread of this process."""
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), _LAYOUT.size)

    def count() -> None:
        beats = 0
        while True:
            beats += 1
            _LAYOUT.pack_into(memory, 0, beats, time.process_time())
            time.sleep(BEAT_S)

    threading.Thread(target=count, name="heartbeat", daemon=True).start()


class Watch:
    """Looks after the workers of one engine while a call is under way."""

    def __init__(
        self,
        paths: Sequence[Path],
        pids: Sequence[int],
        names: Sequence[str] = (),
        tells_idle: bool = True,
    ) -> None:
        """The files, the process ids and what to call the workers, in order of rank.

        tells_idle: whether it says so where nobody computes; who waits for others elsewhere, or
        for a GPU, does not.
        """
        self._tells_idle = tells_idle
        self._paths = list(paths)
        self._pids = list(pids)
        self._names = list(names) or [f"engine process {rank}" for rank in range(len(pids))]
        self._call = ""
        """The call under way; empty between calls."""
        self._owing: set[int] = set()
        """Ranks that have not answered it."""
        self._silent: dict[int, int] = {}
        """Looks in a row without a sign of life, by rank."""
        self._halted: dict[int, int] = {}
        """Of those the looks in a row at which a signal had stopped it."""
        self._seen = [(0, 0.0)] * len(self._pids)
        """Signs of life and CPU seconds at the last look."""
        self._idle = 0
        self._verdict: tuple[int, str] | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        threading.Thread(target=self._look_on, name="watch", daemon=True).start()

    def begin(self, call: str) -> None:
        """A call goes out to all workers."""
        with self._lock:
            self._call, self._owing = call, set(range(len(self._pids)))
            self._silent, self._halted, self._idle = {}, {}, 0

    def answered(self, rank: int) -> None:
        """A worker has answered."""
        with self._lock:
            self._owing.discard(rank)

    def end(self) -> None:
        """The call is over."""
        with self._lock:
            self._call, self._owing = "", set()

    def close(self) -> None:
        """The workers end."""
        self._ended.set()

    @property
    def verdict(self) -> tuple[int, str] | None:
        """The rank that was found stopped, and what to say of it; it was killed for it."""
        return self._verdict

    def _look_on(self) -> None:
        while not self._ended.wait(LOOK_S):
            with self._lock:
                if self._call and self._verdict is None:
                    self._look()

    def _look(self) -> None:
        computing = False
        for rank, path in enumerate(self._paths):
            try:
                beats, seconds = _LAYOUT.unpack(path.read_bytes())
            except (OSError, struct.error):
                return  # the engine's folder is going away, and the workers with it
            before, used = self._seen[rank]
            self._seen[rank] = (beats, seconds)
            if rank not in self._owing:
                continue

            computing = computing or seconds - used > IDLE_SHARE * LOOK_S
            silent = 0 if beats != before else self._silent.get(rank, 0) + 1
            halted = 0
            if silent and _is_stopped(self._pids[rank]):
                halted = self._halted.get(rank, 0) + 1
            self._silent[rank], self._halted[rank] = silent, halted
            most = SILENT_LOOKS if beats else STARTING_LOOKS
            if silent >= most or halted >= SILENT_LOOKS:
                self._condemn(rank)
                return
        if self._tells_idle:
            self._tell_idle(computing)

    def _condemn(self, rank: int) -> None:
        """Take a worker for stopped: name it, and end it, so that whoever waits for it wakes up."""
        pid = self._pids[rank]
        seconds = self._silent[rank] * LOOK_S
        said = f"{self._names[rank]} (pid {pid}) has given no sign of life for {seconds:.0f} s"
        self._verdict = rank, f"{said} in `{self._call}`{_state_of(pid)}; it was ended"
        os.kill(pid, signal.SIGKILL)

    def _tell_idle(self, computing: bool) -> None:
        """Say once per call that nobody computes: a worker hangs, or waits for a disk."""
        self._idle = 0 if computing or not self._owing else self._idle + 1
        if self._idle == IDLE_LOOKS:
            ranks = ", ".join(
                f"{self._names[rank]} (pid {self._pids[rank]})" for rank in sorted(self._owing)
            )
            echo(
                f"engine: no process has computed for {IDLE_LOOKS * LOOK_S:.0f} s in "
                f"`{self._call}`; waited for: {ranks}. "
                "They hang, or wait for a disk or a processor",
                err=True,
            )


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process; False where the kernel does not say."""
    return _letter(pid) == "T"


def _letter(pid: int) -> str:
    """The kernel's letter for what a process does; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _state_of(pid: int) -> str:
    """What the kernel says of a process that gives no sign of life."""
    state = _letter(pid)
    words = {"T": "stopped by a signal", "t": "held by a debugger", "D": "waiting for a disk"}
    return f" ({words[state]})" if state in words else ""
