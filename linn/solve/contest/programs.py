"""A problem's own programs (checkers, interactors) and C++ of several files, in workspaces."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence

from linn.errors import InfrastructureError, UserError
from linn.sandbox import Workspace, WorkspaceLimits, isolation, scrub
from linn.sandbox.compiler import found
from linn.sandbox.outcome import Ran
from linn.solve.contest.problem import Source

_FLAGS = ("-std=gnu++20", "-O2", "-pipe", "-w", "-fmax-errors=3", "-I.")
_COMPILING = WorkspaceLimits(
    cpu=60.0, wall=180.0, memory=2 << 30, processes=16, file=64 << 20, disk=128 << 20
)
_RUNNING = WorkspaceLimits(cpu=20.0, wall=90.0, file=64 << 20, disk=256 << 20)


class Programs:
    """Programs of problems, each compiled once. Thread-safe."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[bytes, str]] = {}
        self._lock = threading.Lock()

    def code(self, source: Source, files: Mapping[str, str]) -> tuple[bytes, str]:
        """(machine code, why there is none) of a C++ program with the files that go with it.

        Those that end in `.cpp` are compiled with it, others are for `#include`.
        """
        everything = repr((source.text, sorted(files.items()))).encode("utf-8", "replace")
        key = hashlib.blake2b(everything, digest_size=16).hexdigest()
        with self._lock:
            if key in self._codes:
                return self._codes[key]
        made = _compiled(source, files)
        with self._lock:
            self._codes[key] = made
        return made

    def run(
        self,
        source: Source,
        files: Mapping[str, str],
        texts: Mapping[str, str],
        words: Sequence[str],
        what: str,
    ) -> Ran:
        """Run a problem's program to its end on files; `words` are its arguments.

        UserError where it does not compile, naming `what` it is.
        """
        with Workspace(_RUNNING) as workspace:
            for name, text in texts.items():
                workspace.write(name, text)
            command = prepare(self, workspace, source, files, what)
            return workspace.run([*command, *words])


def prepare(
    programs: Programs,
    workspace: Workspace,
    source: Source,
    files: Mapping[str, str],
    what: str,
) -> list[str]:
    """Put a program into a workspace; gives the command that runs it there."""
    if source.language == "python":
        workspace.write("program.py", source.text)
        for name, text in files.items():
            workspace.write(name, text)
        return [isolation.python(), "-s", "-S", "-B", "program.py"]
    code, error = programs.code(source, files)
    if error:
        raise UserError(f"{what}: {error}")
    workspace.write("program", code.decode("utf-8", "surrogateescape"))
    (workspace.way / "program").chmod(0o755)
    return ["./program"]


def _compiled(source: Source, files: Mapping[str, str]) -> tuple[bytes, str]:
    """(machine code, why there is none)."""
    if not found():
        raise UserError("C++ needs a compiler: install g++ or clang++")
    with Workspace(_COMPILING) as workspace:
        for name, text in files.items():
            workspace.write(name, text)
        workspace.write("program.cpp", source.text)
        # Headers are found by `-I.`; sources go onto the command line.
        more = [name for name in files if name.endswith((".cpp", ".cc"))]
        command = [found(), *_FLAGS, "program.cpp", *more, "-o", "program"]
        ran = workspace.run(command)
        if ran.status == "ok":
            try:
                return workspace.read("program").encode("utf-8", "surrogateescape"), ""
            except ValueError:
                raise InfrastructureError("the C++ compiler made no program") from None

    # The first mistake is the one to mend.
    if ran.status == "error":
        lines = [line for line in ran.stderr.splitlines() if "error" in line]
        return b"", scrub(f"does not compile: {(lines or ran.stderr.splitlines() or ['?'])[0]}")
    return b"", f"compiling takes too much {ran.status}"
