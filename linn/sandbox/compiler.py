"""C++ sources to machine code, inside a workspace: bounded, cached by source, and refused by name where no compiler is."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from linn.errors import InfrastructureError, UserError
from linn.sandbox.outcome import scrub
from linn.sandbox.pool import Pool
from linn.sandbox.workspace import Workspace, WorkspaceLimits

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
_CACHED = 256 << 20
_ERROR = re.compile(r"^(?:[^\s:]+:)?(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", re.MULTILINE)
_PROOF = "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x + 1; }\n"


@dataclass(frozen=True)
class Compiled:
    """What came of a source."""

    code: bytes = b""
    """Machine code for `Sandbox.run`; empty where it does not compile."""
    error: str = ""
    """Why it does not compile, one line."""


def found() -> str:
    """The path of the C++ compiler here, or nothing."""
    return next((path for name in _COMPILERS if (path := shutil.which(name))), "")


class Compiler:
    """Compiles in the pool's kind of isolation; at most as many at once as the pool has servers."""

    def __init__(self, pool: Pool) -> None:
        self.limits = _LIMITS
        """What one compilation may use."""
        self._pool = pool
        self._slots = threading.BoundedSemaphore(pool.servers)
        self._lock = threading.Lock()
        self._proof = threading.Lock()
        self._proven = False
        self._cache: OrderedDict[bytes, Compiled] = OrderedDict()
        self._bytes = 0

    def compile(self, source: str) -> Compiled:
        """The source's machine code, or why there is none. Raises UserError without a compiler, InfrastructureError where it does not work."""
        with self._proof:
            if not self._proven:
                self._prove()
                self._proven = True
        key = hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        with self._slots:
            made = self._compile(source)
        with self._lock:
            if key not in self._cache:
                self._cache[key] = made
                self._bytes += len(made.code)
                while self._bytes > _CACHED and len(self._cache) > 1:
                    self._bytes -= len(self._cache.popitem(last=False)[1].code)
        return made

    def need(self, where: str) -> None:
        """Refuse at `where` to go on without a compiler."""
        if not found():
            raise UserError(
                f"{where}: C++ needs a compiler; install g++ (Debian, Ubuntu: apt-get install g++) or clang++"
            )

    def _prove(self) -> None:
        """A compiler that cannot compile or whose code cannot run must not cost programs their reward."""
        self.need("compiling")
        made = self._compile(_PROOF)
        if not made.code:
            raise InfrastructureError(
                f"the C++ compiler {found()} does not work in the sandbox: {made.error}"
            )
        header = {
            "kind": "binary",
            "sizes": [len(made.code), 2],
            "answers": 1,
            "cpu": 5.0,
            "wall": 20.0,
            "memory": 1 << 28,
        }
        header |= {"threads": 1, "file": 1 << 16, "output": 1 << 16, "prelude": False}
        answer, (_, printed, _) = self._pool.ask(header, [made.code, b"41"])
        if printed != b"42":
            raise InfrastructureError(f"compiled programs do not run in the sandbox ({answer})")

    def _compile(self, source: str) -> Compiled:
        compiler = Path(found())
        with Workspace(self.limits, kind=self._pool.kind) as workspace:
            workspace.write("program.cpp", source)
            ran = workspace.run([str(compiler), *_FLAGS, "program.cpp", "-o", "program"])
            if ran.status == "ok":
                try:
                    return Compiled(workspace.read("program").encode("utf-8", "surrogateescape"))
                except ValueError:
                    return Compiled(error="the compiler made no program")
        if ran.status == "timeout":
            return Compiled(error="compile time limit exceeded")
        if ran.status in ("memory", "output"):
            return Compiled(error=f"compiling takes too much {ran.status}")
        first = _ERROR.search(ran.stderr)
        if first:
            return Compiled(error=scrub(f"does not compile: {first[2]} (line {first[1]})"))
        return Compiled(error=scrub(f"does not compile: {(ran.stderr.splitlines() or ['?'])[-1]}"))
