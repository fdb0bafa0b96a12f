"""One worker process that answers requests over a pipe, each within a limit of processor time.

For library code that may hang, fill the memory or crash on what a model wrote. `LimitedWorker` is
the caller's side. Run as a module this file is the worker's side:
`python -m linn.domains.common.limited_worker MODULE:FUNCTION`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linn.errors import InfrastructureError
from linn.sandbox.waiting import ready

_MEMORY_BYTES = 2 << 30
"""Address space of a worker."""
_READY = b"ready\n"
"""The worker's first line."""
_END_SECONDS = 0.2
"""How long a worker whose pipes were closed may take to end by itself."""
_DYING_SECONDS = 10.0
"""How long one that closed its pipe may take: on a busy machine, a crash takes its time."""


class WorkerEnded(Exception):
    """A worker gave no answer: it met a limit, crashed, was killed, or was silent too long."""

    def __init__(self, exit_code: int, silent: bool) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code
        """As `Popen.returncode`: negative where a signal ended it."""
        self.silent = silent
        """Whether it was alive, but silent longer than the limit of wall time."""

    @property
    def over_cpu_limit(self) -> bool:
        """Whether the request took more processor time than it was given."""
        return self.exit_code == -signal.SIGPROF


class LimitedWorker:
    """A worker process: started when first needed, reused, replaced when it ended.

    Answers one request at a time; threads wait for each other. A copy in another process (forked or
    unpickled) starts a worker of its own.
    """

    def __init__(self, target: str, name: str, wall_seconds: float) -> None:
        """`target`: MODULE:FUNCTION. The worker calls the function once, without arguments, at its
        start; it loads what is slow to load, and returns the function that answers a request.

        `name`: what a person calls the process, for error messages. `wall_seconds`: a worker that
        neither answers nor uses up its processor time in this long is a fault of the machine.
        """
        self._target = target
        self._name = name
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._is_ready = False

    def __reduce__(self) -> tuple[type[LimitedWorker], tuple[str, str, float]]:
        return LimitedWorker, (self._target, self._name, self._wall_seconds)

    @property
    def pid(self) -> int | None:
        """The process that would answer now; None where none was started."""
        if self._process is None or self._owner != os.getpid():
            return None
        return self._process.pid

    def call(self, arguments: Sequence[Any], cpu_seconds: float) -> Any:
        """The answer to one request; arguments and answer are JSON values.

        `cpu_seconds` is processor time, not wall time, so that load changes no answer. Raises
        WorkerEnded where there is no answer, InfrastructureError where no worker can be started.
        """
        request = json.dumps([cpu_seconds, list(arguments)]).encode() + b"\n"
        with self._lock:
            process = self._running()
            line, silent = _exchange(process, request, self._wall_seconds)
            if line:
                return json.loads(line)

            exit_code = self._end(_END_SECONDS if silent else _DYING_SECONDS)
            self._start()  # its slow imports run while the caller goes on
            raise WorkerEnded(exit_code, silent)

    def close(self) -> None:
        """End the process; a later call starts another."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        """A process of our own that has finished its start."""
        process = self._process
        if process is None or self._owner != os.getpid() or process.poll() is not None:
            process = self._start()
        if self._is_ready:
            return process

        line, _ = _exchange(process, b"", self._wall_seconds)
        if not line:
            self._end()
            command = f"python -m linn.domains.common.limited_worker {self._target}"
            raise InfrastructureError(
                f"the {self._name} did not start; to see why, run: {command} < /dev/null"
            )
        self._is_ready = True
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        self._end()

        # The worker imports linn from where this process has it.
        root = str(Path(__file__).resolve().parents[3])
        search_path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "linn.domains.common.limited_worker", self._target],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": search_path},
                bufsize=0,
                start_new_session=True,  # the terminal's Ctrl-C is not for it
            )
        except OSError as error:
            raise InfrastructureError(f"the {self._name} cannot be started: {error}") from error
        self._process = process
        self._owner = os.getpid()
        self._is_ready = False
        return process

    def _end(self, patience: float = _END_SECONDS) -> int:
        """End our process and return its exit code; 0 where there is none."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0

        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        try:
            # One that is about to end by itself must not be killed: its exit code tells why.
            return process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _exchange(
    process: subprocess.Popen[bytes], request: bytes, wall_seconds: float
) -> tuple[bytes, bool]:
    """Send a line and read one: (the line, whether the process was silent too long).

    The line is empty where the process ended or was silent.
    """
    assert process.stdin is not None and process.stdout is not None
    try:
        unsent = memoryview(request)
        while unsent:
            unsent = unsent[process.stdin.write(unsent) :]
    except OSError:
        return b"", False

    line = b""
    deadline = time.monotonic() + wall_seconds
    while not line.endswith(b"\n"):
        remaining = max(0.0, deadline - time.monotonic())
        readable, _ = ready([process.stdout.fileno()], [], remaining)
        if not readable:
            return b"", True
        part = os.read(process.stdout.fileno(), 1 << 16)
        if not part:
            return b"", False
        line += part
    return line, False


# ---------------------------------------------------------------- the worker's side


def _serve(target: str) -> None:
    """Answer requests line by line until stdin is closed."""
    import resource

    # Nothing that a library prints may reach the pipe.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What asks a run to end lets the step come to its end: a grader that died of it would count
    # as one that the reply broke. This process ends with its standard input.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The default action of SIGPROF ends the process, even inside C code.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)

    module, _, function = target.partition(":")
    # What a library makes while it is loaded stays: no garbage collection needs to look through it.
    gc.disable()
    load = getattr(importlib.import_module(module), function)
    answer = load()
    gc.freeze()
    gc.enable()

    out.write(_READY)
    for line in sys.stdin.buffer:
        cpu_seconds, arguments = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        result = answer(*arguments)
        signal.setitimer(signal.ITIMER_PROF, 0)

        text = json.dumps(result)
        out.write(text.encode() + b"\n")


if __name__ == "__main__":
    _serve(sys.argv[1])
