"""Whether two mathematical answers are equal, by `math-verify` in a process of its own that can be killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from linn.errors import InfrastructureError

_WALL_SECONDS = 120.0
"""A worker that neither answers nor uses its processor time in this long is a fault of the machine."""
_MEMORY = 2 << 30


class Comparer:
    """A process that compares answers with `math-verify`: started when first needed, kept, ended when it overruns.

    Its import is slow and a formula can hang or fill the memory; here neither touches the caller. One comparison at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._greeted = False

    def __reduce__(self) -> tuple[type[Comparer], tuple[()]]:
        return (Comparer, ())  # a copy in another process starts a worker of its own

    def equal(self, expected: str, text: str, seconds: float) -> bool:
        """Whether `text` gives the expected answer; False when it needs more processor time than `seconds`, or crashes the library twice.

        Not wall time, so load changes no verdict.
        """
        request = json.dumps([expected, text, seconds]).encode() + b"\n"
        with self._lock:
            for _ in range(2):
                answer = _exchange(self._ready(), request)
                if answer:
                    return answer == b"1\n"
                code = self._end()
                self._start()  # its slow import runs while the caller goes on
                if code == -signal.SIGPROF:
                    return False
        if code == -signal.SIGKILL:
            raise InfrastructureError(
                "the math-verify process was killed or silent twice; look at this machine's memory and load"
            )
        return False

    def stop(self) -> None:
        """End the process; a later comparison starts a new one."""
        with self._lock:
            self._end()

    def _ready(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        if not self._greeted and _exchange(self._process, b"") != b"ready\n":
            self._end()
            raise InfrastructureError(
                "the math-verify process did not start; is `math-verify` installed?"
            )
        self._greeted = True
        return self._process

    def _start(self) -> None:
        package = str(Path(__file__).resolve().parents[3])
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "linn.domains.math.equality"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
                bufsize=0,
            )
        except OSError as error:
            raise InfrastructureError(f"cannot start the math-verify process: {error}") from error
        self._owner, self._greeted = os.getpid(), False

    def _end(self) -> int:
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return 0
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        try:
            code = process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return code


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> bytes:
    """Send a line and read one; empty when the process died or is silent for too long."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(request)
    except OSError:
        return b""
    answer, until = b"", time.monotonic() + _WALL_SECONDS
    while not answer.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
        part = os.read(process.stdout.fileno(), 64) if readable else b""
        if not part:
            return b""
        answer += part
    return answer


def _serve() -> None:
    """The worker's side: a line [expected, text] in, `1` or `0` out; the kernel ends it when a comparison overruns."""
    import resource

    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    from linn.sandbox.inside import kernel

    def equal(expected: str, text: str) -> bool:
        try:
            gold = parse(f"\\boxed{{{expected}}}", [LatexExtractionConfig()], parsing_timeout=None)
            found = parse(
                text, [ExprExtractionConfig(), LatexExtractionConfig()], parsing_timeout=None
            )
            return bool(gold and found and verify(gold, found, timeout_seconds=None))
        except Exception:  # whatever a formula breaks inside the library, it is not the answer (MemoryError and RecursionError too)
            return False

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # nothing that the library prints reaches the pipe
    equal("\\frac{1}{2}", "\\boxed{0.5}")  # builds the library's tables, outside any limit
    # The library parses what a model wrote, in part by evaluating it: whatever got through could not write, execute or connect.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    kernel.install_filter(kernel.program_filter())
    out.write(b"ready\n")
    for line in sys.stdin.buffer:
        expected, text, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        result = equal(expected, text)
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write(b"1\n" if result else b"0\n")


if __name__ == "__main__":
    _serve()
