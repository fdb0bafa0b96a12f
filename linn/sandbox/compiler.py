"""C++ sources to machine code, inside a workspace: bounded, and cached by source."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from linn.errors import InfrastructureError, UserError
from linn.sandbox.outcome import Limits, Ran, WorkspaceLimits, scrub
from linn.sandbox.pool import ServerPool, header_of
from linn.sandbox.workspace import Workspace

_COMPILERS = ("g++", "clang++")
_FLAGS = (
    "-std=gnu++20",
    "-O2",
    "-pipe",
    "-w",
    "-fmax-errors=3",
    "-fno-diagnostics-show-caret",
    "-x",
    "c++",
)
_LIMITS = WorkspaceLimits(
    cpu=30.0, wall=90.0, memory=2 << 30, processes=16, file=32 << 20, disk=64 << 20, output=1 << 16
)
_CACHED_BYTES = 256 << 20
_ERROR = re.compile(r"^(?:[^\s:]+:)?(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", re.MULTILINE)
"""A compiler's first words on a mistake: line, message."""

_PROOF = "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x + 1; }\n"
_PROOF_LIMITS = Limits(cpu=5.0, wall=20.0, memory=1 << 28, threads=1, file=1 << 16, output=1 << 16)


@dataclass(frozen=True)
class Compiled:
    """What came of a source."""

    code: bytes = b""
    """Machine code for `Sandbox.run`; empty where it does not compile."""
    error: str = ""
    """Why it does not compile, one line."""


def found() -> str:
    """The path of the C++ compiler here, or nothing."""
    for name in _COMPILERS:
        path = shutil.which(name)
        if path:
            return path
    return ""


class Compiler:
    """Compiles in the pool's kind of isolation; as many at once as the pool has servers."""

    def __init__(self, pool: ServerPool) -> None:
        self.limits = _LIMITS
        """What one compilation may use."""
        self._pool = pool
        self._slots = threading.BoundedSemaphore(pool.servers)
        self._lock = threading.Lock()
        self._proof = threading.Lock()
        self._is_proven = False
        self._cache: OrderedDict[bytes, Compiled] = OrderedDict()
        self._bytes = 0

    def compile(self, source: str) -> Compiled:
        """The source's machine code, or why there is none.

        Raises UserError without a compiler, InfrastructureError where it does not work.
        """
        with self._proof:
            if not self._is_proven:
                self._prove()
                self._is_proven = True

        data = source.encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(data, digest_size=16).digest()
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]

        with self._slots:
            compiled = self._compile(source)

        # Another thread may have compiled the same source meanwhile.
        with self._lock:
            if key not in self._cache:
                self._cache[key] = compiled
                self._bytes += len(compiled.code)
                while self._bytes > _CACHED_BYTES and len(self._cache) > 1:
                    _, oldest = self._cache.popitem(last=False)
                    self._bytes -= len(oldest.code)
        return compiled

    def need(self, where: str) -> None:
        """Refuse at `where` to go on without a compiler."""
        if not found():
            raise UserError(
                f"{where}: C++ needs a compiler; "
                "install g++ (Debian, Ubuntu: apt-get install g++) or clang++"
            )

    def _prove(self) -> None:
        """Raise InfrastructureError unless a known program compiles and runs.

        A compiler that does not work must not cost programs their reward.
        """
        self.need("compiling")
        proof = self._compile(_PROOF)
        if not proof.code:
            raise InfrastructureError(
                f"the C++ compiler {found()} does not work in the sandbox: {proof.error}"
            )
        bodies = [proof.code, b"41"]
        execution = self._pool.ask(header_of("binary", bodies, _PROOF_LIMITS), bodies)
        if execution.stdout != b"42":
            raise InfrastructureError(f"compiled programs do not run in the sandbox ({execution})")

    def _compile(self, source: str) -> Compiled:
        command = [str(Path(found())), *_FLAGS, "program.cpp", "-o", "program"]
        with Workspace(self.limits, kind=self._pool.kind) as workspace:
            workspace.write("program.cpp", source)
            ran = workspace.run(command)

            # The workspace is gone with this block, so the program is read within it.
            if ran.status == "ok":
                try:
                    program = workspace.read("program")
                except ValueError:
                    return Compiled(error="the compiler made no program")
                return Compiled(program.encode("utf-8", "surrogateescape"))
        return Compiled(error=_error_of(ran))


def _error_of(ran: Ran) -> str:
    """Why a source does not compile, in one line."""
    if ran.status == "timeout":
        return "compile time limit exceeded"
    if ran.status in ("memory", "output"):
        return f"compiling takes too much {ran.status}"

    # The first mistake is the one to mend; the others often follow from it.
    first = _ERROR.search(ran.stderr)
    if first:
        line, message = first.groups()
        return scrub(f"does not compile: {message} (line {line})")
    last = (ran.stderr.splitlines() or ["?"])[-1]
    return scrub(f"does not compile: {last}")
