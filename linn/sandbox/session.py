"""A Python interpreter with a memory, for a model's tool calls: isolated, bounded, ended and started anew when it overruns."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from linn.errors import InfrastructureError
from linn.sandbox import isolation
from linn.sandbox.workspace import Ran, Running, Workspace, WorkspaceLimits

_SOURCE = Path(__file__).parent / "inside" / "interpreter.py"
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.25
_LONGEST_CODE = 1 << 20
_DAY = 86_400.0
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-f]{6,16}")
_FOLDER = re.compile(r'(?<=File ")/[^"\n]*/')


@dataclass(frozen=True)
class Answer:
    """What one call gave."""

    status: Literal["ok", "error", "timeout", "memory", "ended"]
    """`ok`; `error`: the code raised; else the interpreter is gone, and the next call starts with an empty one."""
    text: str
    """What the code printed, its last expression's value, the end of its traceback: what the model is told."""


class Session:
    """Python whose state lasts from call to call: no network, a private scratch folder, bounded time, memory, processes and text.

    Starts with the first call. `random` is seeded, so that the same calls give the same texts (unless they read clocks or race).
    A machine that cannot run it raises InfrastructureError. What is not protected against: see `Workspace`; besides, the code runs in
    the interpreter that reports on it, so an answer is the model's own claim: never a reason for a reward.
    """

    def __init__(
        self,
        seconds: float = 120.0,
        memory: int = 1 << 30,
        output: int = 10_000,
        readable: Sequence[Path] = (),
    ) -> None:
        """`seconds`: of one call, by the clock; `memory`: bytes; `output`: characters of one answer; `readable`: folders of further packages."""
        self._seconds, self._output, self._readable = seconds, output, tuple(readable)
        self._limits = WorkspaceLimits(
            cpu=30 * seconds,
            wall=_DAY,
            memory=memory,
            address=max(2 * memory, 1 << 30),
            processes=16,
            disk=32 << 20,
        )
        self._workspace: Workspace | None = None
        self._running: Running | None = None
        self._rest = b""
        self._calls = 0
        self._closed = False
        self._lock = threading.Lock()

    def run(self, code: str) -> Answer:
        """Run a piece of code to its end or its limit."""
        if len(code) > _LONGEST_CODE:
            return Answer(
                "error", f"the code is longer than {_LONGEST_CODE} characters; nothing was run"
            )
        with self._lock:
            if self._closed:
                return Answer("ended", "the interpreter is closed")
            self._calls += 1
            request = json.dumps({"id": self._calls, "code": code}).encode() + b"\n"
            try:
                if self._running is None:
                    self._start()
                return self._answer(request, self._calls, time.monotonic() + self._seconds)
            except _Gone as gone:
                return self._ended(gone.why)

    def close(self) -> None:
        """End the interpreter with all that it started, and remove its folder; a call that runs gives up."""
        self._closed = True
        with self._lock:
            self._kill()
            if self._workspace is not None:
                self._workspace.close()
                self._workspace = None

    # ------------------------------------------------------------ how

    def _start(self) -> None:
        if self._workspace is None:
            self._workspace = Workspace(self._limits, readable=self._readable)
        words = [
            isolation.python(),
            "-s",
            "-S",
            "-P",
            "-B",
            "-c",
            _SOURCE.read_text(),
            str(self._output),
            *self._workspace.readable,
        ]
        self._running = self._workspace.start(words)
        self._rest = b""
        assert self._running.stdin is not None
        os.set_blocking(self._running.stdin.fileno(), False)
        try:
            self._answer(b"", 0, time.monotonic() + _START_SECONDS)
        except _Gone as gone:
            ran = self._kill(wait=gone.why == "ended")
            if self._closed:
                raise
            why = (
                f"exit code {ran.code}; may the sandbox's user read {words[0]}?"
                if ran
                else gone.why
            )
            raise InfrastructureError(
                f"no interpreter started in the sandbox ({self._workspace.kind}): {why}"
            ) from None

    def _answer(self, request: bytes, call: int, until: float) -> Answer:
        """Send a request and wait for its answer; raises _Gone."""
        assert self._running is not None and self._running.stdin is not None
        into, out = self._running.stdin.fileno(), self._running.stdout.fileno()
        most = 12 * self._output + 4096  # JSON writes a character in up to 12 bytes
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                found = _read(line, call)
                if found is not None:
                    return Answer("ok" if found[0] else "error", self._shown(found[1]))
            if len(self._rest) > most:
                raise _Gone("broke its own connection")
            left = until - time.monotonic()
            if self._closed or left <= 0:
                raise _Gone("timeout" if left <= 0 else "was closed")
            readable, writable, _ = select.select(
                [out], [into] if request else [], [], min(left, _LOOK_SECONDS)
            )
            if writable:
                with contextlib.suppress(BlockingIOError):
                    try:
                        request = request[os.write(into, request[: 1 << 16]) :]
                    except BrokenPipeError:
                        request = b""  # it has ended: its stdout says so next
            if readable:
                part = os.read(out, 1 << 16)
                if not part:
                    raise _Gone("ended")
                self._rest += part

    def _shown(self, text: str) -> str:
        text = _FOLDER.sub("", _ADDRESS.sub("0x…", text.encode("utf-8", "replace").decode()))
        return text[: self._output + 100].rstrip("\n") or "(no output)"

    def _ended(self, why: str) -> Answer:
        """What to say of an interpreter that is gone; raises InfrastructureError where the machine is at fault."""
        ran = self._kill(wait=why == "ended")
        lost = "The interpreter was started anew: names and imports from before are lost."
        if why == "timeout" or (ran is not None and ran.status == "timeout"):
            return Answer(
                "timeout",
                f"Time limit: the code did not end within {self._seconds:g} seconds and was stopped. {lost}",
            )
        if ran is not None and ran.status == "memory":
            return Answer(
                "memory",
                f"Memory limit: the code used more than {self._limits.memory >> 20} MB and was stopped. {lost}",
            )
        what = (
            "wrote too much"
            if ran is not None and ran.status == "output"
            else f"ended itself (exit code {ran.code})"
            if ran
            else why
        )
        return Answer("ended", f"The interpreter {what}. {lost}")

    def _kill(self, wait: bool = False) -> Ran | None:
        """End the interpreter. `wait`: it closed its end, so how it ended can be told shortly, if it did."""
        running, self._running = self._running, None
        if running is None:
            return None
        try:
            until = time.monotonic() + 5.0
            while wait and running.alive() and time.monotonic() < until:
                time.sleep(0.01)
            return running.finish() if wait and not running.alive() else None
        finally:
            running.kill()


class _Gone(Exception):
    """The interpreter ended, or must be ended."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _read(line: bytes, call: int) -> tuple[bool, str] | None:
    """(ok, text) of the answer to a call; None for any other line, which the code itself may have written."""
    try:
        told = json.loads(line)
        return (bool(told["ok"]), str(told["text"])) if told["id"] == call else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
