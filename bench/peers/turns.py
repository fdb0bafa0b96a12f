"""Sides that take turns: each is a process of its own, which works when the parent says so.

So threads, allocators and imported packages of two sides never meet, and each side's memory can be
told. While one works the others sleep in a read.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any


class Finished(Exception):
    """The parent wants no further round."""


class SideFailed(Exception):
    """A side ended by itself; the message is its last line."""


class Turns:
    """What a side has of the parent: it waits for its turn, works, and tells what it took."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._start = (0.0, 0.0)
        self.rest_of_cpu: Callable[[], float] = lambda: 0.0
        """CPU seconds of processes that the side started."""

    def begin(self) -> None:
        """Wait for the word. Raises Finished where there is none to come."""
        try:
            word = self._pipe.recv_bytes()
        except EOFError:  # the parent closed the pipe, or is gone
            word = b"stop"
        if word != b"go":
            raise Finished
        self._start = self._clocks()

    def end(self, tokens: int, **more: Any) -> None:
        """Tell what the turn took, how many tokens it made or trained, and what else there is."""
        cpu, wall = (now - then for now, then in zip(self._clocks(), self._start, strict=True))
        told = {"cpu": cpu, "wall": wall, "tokens": tokens, **more}
        self._pipe.send_bytes(json.dumps(told).encode())

    def play(self, turn: Callable[[], int]) -> None:
        """Turn by turn, until there are no more; a turn returns its tokens."""
        while True:
            self.begin()
            self.end(turn())

    def _clocks(self) -> tuple[float, float]:
        return time.process_time() + self.rest_of_cpu(), time.perf_counter()


class Side:
    """A side as the parent has it."""

    def __init__(self, python: Path, task: Mapping[str, Any]) -> None:
        """Start it. python: the interpreter whose environment has its packages.

        task: what it is told (`bench.peers.side`).
        """
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._pipe, theirs = Pipe()
        command = [str(python), "-m", "bench.peers.side", str(theirs.fileno()), json.dumps(task)]
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | dict.fromkeys(threads, "1")
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["CUDA_VISIBLE_DEVICES"] = ""  # also where there is a GPU
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            env=environment,
        )
        theirs.close()  # so that its end is seen as the end of the pipe

    def turn(self) -> dict[str, Any]:
        """Have it work once. Raises SideFailed where it ends instead."""
        try:
            self._pipe.send_bytes(b"go")
            told: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise SideFailed(self.last_line()) from None
        return told

    def last_line(self) -> str:
        """Of what it wrote: for a process that failed, the error."""
        self._process.wait(10)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def peak_bytes(self) -> int | None:
        """The most memory that it and its processes had, each at its own time; Linux alone."""
        return _peak(self._process.pid)

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _peak(pid: int) -> int | None:
    folder = Path(f"/proc/{pid}")
    try:
        status = (folder / "status").read_text()
        children = (folder / f"task/{pid}/children").read_text().split()
    except OSError:
        return None
    peak = 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            peak = int(line.split()[1]) * 1024
    return peak + sum(_peak(int(child)) or 0 for child in children)
