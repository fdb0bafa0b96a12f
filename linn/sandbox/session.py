"""A Python interpreter with a memory, for a model's tool calls: isolated and bounded.

It is ended and started anew when it overruns.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from linn.errors import InfrastructureError
from linn.sandbox import isolation
from linn.sandbox.outcome import Ran, WorkspaceLimits
from linn.sandbox.running import Running
from linn.sandbox.waiting import ready
from linn.sandbox.workspace import Workspace

_SOURCE = Path(__file__).parent / "inside" / "interpreter.py"
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.25
_ENDING_SECONDS = 5.0
_LONGEST_CODE = 1 << 20
_LIFETIME_SECONDS = 86_400.0
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-f]{6,16}")
_FOLDER = re.compile(r'(?<=File ")/[^"\n]*/')
_JSON_BYTES = 12
"""JSON writes a character in up to so many bytes."""
_ENVELOPE_BYTES = 4096
_READY = 0
"""The number of the line by which the interpreter says that it has started."""
_LOST = "The interpreter was started anew: names and imports from before are lost."


@dataclass(frozen=True)
class Answer:
    """What one call gave."""

    status: Literal["ok", "error", "timeout", "memory", "ended"]
    """`ok`; `error`: the code raised; else the interpreter is gone, and the next call starts with
    an empty one."""
    text: str
    """What the model is told: what the code printed, its last expression's value, the end of its
    traceback."""


class Session:
    """Python whose state lasts from call to call.

    It gets no network, a private scratch folder, and bounded time, memory, processes and text. It
    starts with the first call. `random` is seeded, so that the same calls give the same texts
    (unless they read clocks or race). A machine that cannot run it raises InfrastructureError.

    What is not protected against: see `Workspace`. Besides, the code runs in the interpreter that
    reports on it, so an answer is the model's own claim: never a reason for a reward.
    """

    def __init__(
        self,
        seconds: float = 120.0,
        memory: int = 1 << 30,
        output: int = 10_000,
        readable: Sequence[Path] = (),
    ) -> None:
        """`seconds`: of one call, by the clock; `memory`: bytes; `output`: characters of an answer.

        `readable`: folders of further packages.
        """
        self._seconds, self._output, self._readable = seconds, output, tuple(readable)
        self._limits = WorkspaceLimits(
            cpu=30 * seconds,
            wall=_LIFETIME_SECONDS,
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

            # The number tells this call's answer from lines that the code writes itself.
            self._calls += 1
            request = json.dumps({"id": self._calls, "code": code}).encode() + b"\n"
            try:
                if self._running is None:
                    self._start()
                return self._answer(request, self._calls, time.monotonic() + self._seconds)
            except _Gone as gone:
                return self._ended(gone.why)

    def close(self) -> None:
        """End the interpreter with all that it started, and remove its folder.

        A call that runs gives up.
        """
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

        # The interpreter's text goes on the command line: no file of ours need be readable there.
        interpreter = isolation.python()
        flags = ("-s", "-S", "-P", "-B", "-c", _SOURCE.read_text())
        arguments = (str(self._output), *self._workspace.readable)
        self._running = self._workspace.start([interpreter, *flags, *arguments])
        self._rest = b""
        assert self._running.stdin is not None
        os.set_blocking(self._running.stdin.fileno(), False)

        try:
            self._answer(b"", _READY, time.monotonic() + _START_SECONDS)
        except _Gone as gone:
            ran = self._kill(wait=gone.why == "ended")
            if self._closed:
                raise

            why = gone.why
            if ran:
                why = f"exit code {ran.code}; may the sandbox's user read {interpreter}?"
            raise InfrastructureError(
                f"no interpreter started in the sandbox ({self._workspace.kind}): {why}"
            ) from None

    def _answer(self, request: bytes, call: int, until: float) -> Answer:
        """Send a request and wait for its answer; raises _Gone."""
        assert self._running is not None and self._running.stdin is not None
        into, out = self._running.stdin.fileno(), self._running.stdout.fileno()
        while True:
            answer = self._received(call)
            if answer is not None:
                return answer
            left = until - time.monotonic()
            if left <= 0:
                raise _Gone("timeout")
            if self._closed:
                raise _Gone("was closed")

            # A short wait, so that closing from another thread is seen.
            writers = [into] if request else []
            wait = min(left, _LOOK_SECONDS)
            readable, writable = ready([out], writers, wait)

            if writable:
                request = _written(into, request)
            if readable:
                part = os.read(out, 1 << 16)
                if not part:
                    raise _Gone("ended")
                self._rest += part

    def _received(self, call: int) -> Answer | None:
        """The answer to a call, if it was read; raises _Gone where too much was."""
        while b"\n" in self._rest:
            line, _, self._rest = self._rest.partition(b"\n")
            reply = _read(line, call)
            if reply is not None:
                finished, text = reply
                return Answer("ok" if finished else "error", self._cleaned(text))
        if len(self._rest) > _JSON_BYTES * self._output + _ENVELOPE_BYTES:
            raise _Gone("broke its own connection")
        return None

    def _cleaned(self, text: str) -> str:
        """A text as the model sees it: no addresses, no folders, at most the answer's length."""
        text = text.encode("utf-8", "replace").decode()
        text = _FOLDER.sub("", _ADDRESS.sub("0x…", text))
        return text[: self._output + 100].rstrip("\n") or "(no output)"

    def _ended(self, why: str) -> Answer:
        """What to say of an interpreter that is gone.

        Raises InfrastructureError where the machine is at fault.
        """
        # Only what ended by itself, or by a limit of its workspace, can tell how.
        ran = self._kill(wait=why == "ended")
        status = ran.status if ran else ""

        if why == "timeout" or status == "timeout":
            limit = f"the code did not end within {self._seconds:g} seconds"
            return Answer("timeout", f"Time limit: {limit} and was stopped. {_LOST}")
        if status == "memory":
            limit = f"the code used more than {self._limits.memory >> 20} MB"
            return Answer("memory", f"Memory limit: {limit} and was stopped. {_LOST}")

        if status == "output":
            why = "wrote too much"
        elif ran:
            why = f"ended itself (exit code {ran.code})"

        return Answer("ended", f"The interpreter {why}. {_LOST}")

    def _kill(self, wait: bool = False) -> Ran | None:
        """End the interpreter.

        `wait`: it closed its end, so that shortly it can be told how it ended, if it did.
        """
        running, self._running = self._running, None
        if running is None:
            return None
        try:
            until = time.monotonic() + _ENDING_SECONDS
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


def _written(fd: int, request: bytes) -> bytes:
    """Write what fits; what is left of a request."""
    try:
        return request[os.write(fd, request[: 1 << 16]) :]
    except BlockingIOError:
        return request
    except BrokenPipeError:
        return b""  # the interpreter has ended: its stdout says so next


def _read(line: bytes, call: int) -> tuple[bool, str] | None:
    """(ok, text) of the answer to a call.

    None for any other line, which the code itself may have written.
    """
    try:
        reply = json.loads(line)
        if reply["id"] != call:
            return None
        return bool(reply["ok"]), str(reply["text"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
