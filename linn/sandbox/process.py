"""One running fork server, seen from outside: started, asked, stopped."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from linn.sandbox import isolation
from linn.sandbox.groups import new_group
from linn.sandbox.inside.scratch import FILES, empty
from linn.sandbox.inside.watch import HEADER_BLOCK
from linn.sandbox.outcome import text_of
from linn.sandbox.waiting import ready

_START_SECONDS = 30.0
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
_PIPE_BYTES = 1 << 16
_SERVER_BYTES = 32 << 20
"""Memory that a server itself may hold."""
_PROCESSES_OF_A_CHECK = 2
_PROCESSES_BESIDE = 8
"""The server, and who was killed a moment ago."""
_STREAMS = 3
_NEAR = 1.1
_numbers = itertools.count(1)

Header = Mapping[str, Any]
"""What a request to a server begins with: see `inside/server.py`."""


class Died(Exception):
    """A server ended, or did not answer in time."""


class ServerProcess:
    """A fork server in its isolation; one request at a time."""

    def __init__(self, kind: str, size: int) -> None:
        """`size`: bytes of its scratch folder. Raises Died where it does not start."""
        self.number = next(_numbers)
        """No other server of this process has it."""
        self.unwatched = 0
        """Programs that it ran since the sentinel looked at it."""
        self.scratch = ""
        self.group = new_group()
        self._limited = (0, 0)
        try:
            if kind == "plain":
                self.scratch = tempfile.mkdtemp(prefix="linn-sandbox-")
            with contextlib.ExitStack() as stack:
                doors: list[int] = []
                if self.group:
                    doors = stack.enter_context(self.group.doors())
                self.process = self._started(kind, size, doors)
        except OSError as error:
            self._remove_traces()
            raise Died(str(error)) from None

        assert self.process.stdin and self.process.stdout
        self.stdin = self.process.stdin.fileno()
        self.stdout = self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        self.rest = bytearray()
        self._greet()

    def _started(self, kind: str, size: int, doors: list[int]) -> subprocess.Popen[bytes]:
        """The server's process. Nothing of this process's environment goes inside."""
        return subprocess.Popen(
            isolation.command(kind, size, self.scratch, doors),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=doors,
            env=_ENVIRONMENT,
            bufsize=0,
            start_new_session=True,
        )

    def _limit(self, header: Header) -> None:
        """Have the kernel hold the limits of a request; raises Died where it refuses."""
        if self.group is None:
            return
        # A check has two processes. What a program has in files is memory, and so are its bodies,
        # the server itself, and what the server reads of the program.
        most = _PROCESSES_OF_A_CHECK if header["kind"] == "check" else 1
        memory = most * int(header["memory"]) + _SERVER_BYTES + 2 * sum(header["sizes"])
        memory += FILES * int(header["file"]) + _STREAMS * int(header["output"])
        limits = (memory, most * (int(header["threads"]) + 1) + _PROCESSES_BESIDE)
        # To lower a limit by little is not worth what it costs.
        is_near = limits[0] <= self._limited[0] <= _NEAR * limits[0]
        if not is_near or limits[1] != self._limited[1]:
            try:
                self.group.limit(*limits)
            except OSError as error:
                raise Died(str(error)) from None
            self._limited = limits

    def _greet(self) -> None:
        """Wait for the server's first line; raises Died with the last line it said on stderr."""
        assert self.process.stderr
        try:
            deadline = time.monotonic() + _START_SECONDS
            greeting = self._line(deadline)
            if json.loads(greeting) == {"hello": True}:
                return
        except (Died, ValueError):
            pass

        # The isolation's own tool says on stderr why it cannot work here.
        self.stop()
        errors = text_of(self.process.stderr.read(2000) or b"").strip().splitlines()
        raise Died(errors[-1] if errors else "it ended at once")

    def ask(
        self, header: Header, bodies: Sequence[bytes], seconds: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        """Send one request and wait for its answer: header and parts. Raises Died."""
        deadline = time.monotonic() + seconds
        self._limit(header)
        for part in (_block_of(header), *bodies):
            self._send(memoryview(part), deadline)
        answer = json.loads(self._line(deadline))
        parts = [self._exactly(size, deadline) for size in answer["sizes"]]
        return answer, parts

    def _send(self, data: memoryview, deadline: float) -> None:
        while data:
            # It may answer before it has read everything: it could not start, and says why.
            left = max(0.0, deadline - time.monotonic())
            answers, free = ready([self.stdout], [self.stdin], left)
            if answers:
                return
            if not free:
                raise Died("it does not read")

            try:
                data = data[os.write(self.stdin, data[:_PIPE_BYTES]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise Died("it has ended") from None

    def _more(self, deadline: float) -> None:
        left = max(0.0, deadline - time.monotonic())
        if not ready([self.stdout], [], left)[0]:
            raise Died("it does not answer")
        part = os.read(self.stdout, _PIPE_BYTES)
        if not part:
            raise Died("it has ended")
        self.rest += part

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self.rest:
            self._more(deadline)
        return self._cut(self.rest.index(b"\n") + 1)

    def _exactly(self, size: int, deadline: float) -> bytes:
        while len(self.rest) < size:
            self._more(deadline)
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        body = bytes(self.rest[:size])
        del self.rest[:size]
        return body

    def stop(self) -> None:
        """Kill the server, and with it everything inside; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, 9)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream:
                stream.close()
        self._remove_traces()

    def _remove_traces(self) -> None:
        """Of the file system, and of the control groups."""
        if self.group:
            self.group.remove()
        if self.scratch:
            with contextlib.suppress(OSError):
                empty(self.scratch)
                os.rmdir(self.scratch)


def _block_of(header: Header) -> bytes:
    """A header as it is sent."""
    text = json.dumps(header).encode()
    fill = -(len(text) + 1) % HEADER_BLOCK
    return text + b" " * fill + b"\n"
