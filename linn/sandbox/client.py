"""The sandbox as its users see it: untrusted programs called, run, compiled and checked."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from linn.errors import UserError
from linn.sandbox import isolation
from linn.sandbox.compiler import Compiled, Compiler
from linn.sandbox.inside.plain import encode
from linn.sandbox.outcome import (
    Execution,
    Limits,
    Outcome,
    exit_text,
    first_outcome,
    outcome_of,
    outcome_of_ending,
    text_of,
)
from linn.sandbox.pool import ServerPool, header_of

_MOST_REMEMBERED = 4096
"""Requests whose answers are remembered."""
_LONGEST_REMEMBERED = 4096
"""Bytes of an answer that is remembered."""

Call = tuple[str, Sequence[Any]]
"""What to call, and its arguments."""


class Sandbox:
    """Runs untrusted programs.

    They get no network, no files but a private empty folder, no processes, and bounded CPU, time,
    memory and output.

    Thread-safe. Servers (at most `servers`, one request each at a time) start when first needed.
    Equal requests are answered from memory. Raises InfrastructureError when the machine fails (no
    sandbox, no fork, no memory, a full disk), never for a program's fault.

    Not protected against: faults of the kernel; side channels (timing, load); programs that read a
    clock or their process id, whose outcome may differ from run to run. Without Landlock and
    bubblewrap: reading the files that this user may read, without `unshare` too: changing them.
    `plain` as a plain user: filling the disk for a moment; the network, other processes and signals
    are closed by the system-call filter only (x86-64 and ARM64). A check text that calls a function
    of the program for its own judgement trusts that function.
    """

    def __init__(
        self, limits: Limits | None = None, servers: int | None = None, kind: str | None = None
    ) -> None:
        """`servers`: executions at once, None: one for each core we may use.

        `kind`: `bwrap`, `unshare` or `plain`; None: the strongest that works.
        """
        kinds = isolation.kinds()
        if kind is not None and kind not in kinds:
            raise UserError(
                f"sandbox kind {kind!r} is not available here; found: {', '.join(kinds)}"
            )

        self.limits = limits or Limits()
        count = servers or len(os.sched_getaffinity(0))
        self.pool = ServerPool(count, kind, scratch=4 * self.limits.file)
        self.compiler = Compiler(self.pool)

        self._memory: OrderedDict[bytes, Execution] = OrderedDict()
        self._remembered = 0
        self._lock = threading.Lock()

    # ------------------------------------------------------------ what it does

    def call(
        self,
        program: str,
        fn: str,
        inputs: Sequence[Sequence[Any]],
        limits: Limits | None = None,
        prelude: bool = False,
    ) -> list[Outcome]:
        """One outcome per argument list, all in one process.

        `fn` may be `name` or `Class.method`; `prelude` as for `script`.
        """
        job = {"program": program, "prelude": prelude}
        return self._calls(job, [(fn, arguments) for arguments in inputs], limits)

    def call_files(self, files: Mapping[str, str], calls: Sequence[Call]) -> list[Outcome]:
        """Like `call` for a folder of files; each call is (`module:function`, arguments)."""
        return self._calls({"files": _require_inside(files)}, calls, None)

    def script(
        self, program: str, stdin: str = "", limits: Limits | None = None, prelude: bool = False
    ) -> Outcome:
        """Run a program that reads stdin and prints.

        `prelude`: the names that graders of contest problems import for every program.
        """
        bodies = (program.encode("utf-8", "surrogatepass"), _bytes_of(stdin))
        return _printed(self._ask("script", bodies, limits, prelude=prelude))

    def compile(self, source: str) -> Compiled:
        """A C++ program as machine code for `run`; raises UserError without a compiler."""
        return self.compiler.compile(source)

    def run(self, code: bytes, stdin: str = "", limits: Limits | None = None) -> Outcome:
        """Run machine code that reads stdin and prints."""
        return _printed(self._ask("binary", (code, _bytes_of(stdin)), limits))

    def check(
        self, program: str, test: str, entry_point: str, limits: Limits | None = None
    ) -> Outcome:
        """Run a HumanEval-like test text, then its `check(entry_point)`.

        The program answers from another process, by plain data.
        """
        judge = {"test": test, "entry_point": entry_point}
        return self._check({"program": program}, judge, limits)

    def check_files(
        self, files: Mapping[str, str], test: str, library: Sequence[str] | None = None
    ) -> Outcome:
        """Run every `test…` function of a test text against a folder of files.

        The text may import the folder's modules. Their functions answer from another process by
        plain data; tests that need its classes or objects cannot pass.

        `library`: the modules that a text of unknown origin may use besides. Such a text must not
        tell the files by how they are written: their modules are loaded from memory, what they
        raise names no line, and the text runs where no file can be opened.
        """
        # Stand-ins for these modules are what the test text imports.
        modules = []
        for path in _require_inside(files):
            if path.endswith(".py"):
                module = path.removesuffix(".py").replace("/", ".")
                modules.append(module.removesuffix(".__init__"))
        program = {"files": dict(files), "unseen": library is not None}
        judge = {"test": test, "modules": modules, "library": library}
        return self._check(program, judge, None)

    def totals(self) -> dict[str, float]:
        """Sums so far: the pool's, and `remembered`: requests that were answered from memory."""
        return {**self.pool.totals(), "remembered": float(self._remembered)}

    def close(self) -> None:
        """Stop every server; using the sandbox again starts new ones."""
        self.pool.close()

    # ------------------------------------------------------------ how

    def _calls(
        self, job: Mapping[str, Any], calls: Sequence[Call], limits: Limits | None
    ) -> list[Outcome]:
        encoded = []
        for target, arguments in calls:
            encoded.append((target, encode(list(arguments))))
        body = _json_of({**job, "calls": encoded})
        count = len(calls)
        most = max(1, count)
        execution = self._ask("call", (body,), limits, answers=most)

        # What follows the last line was cut off, or not asked for.
        lines = execution.lines.split(b"\n", most)[:-1]
        outcomes = [outcome_of(line) for line in lines]

        # A program that does not load says so in one line for all calls.
        is_one_for_all = len(outcomes) == 1 and execution.ending == "ended"
        if is_one_for_all and outcomes[0].status in ("error", "memory"):
            outcomes *= count

        # The calls that were not answered share the reason why it ended.
        why = f"the program ended before it answered ({exit_text(execution.code)})"
        missing = outcome_of_ending(execution) or Outcome("error", error=why)
        outcomes += [missing] * (count - len(outcomes))
        return outcomes[:count]

    def _check(
        self, job: Mapping[str, Any], judge: Mapping[str, Any], limits: Limits | None
    ) -> Outcome:
        execution = self._ask("check", (_json_of(job), _json_of(judge)), limits)
        lines = execution.lines.split(b"\n")[:-1]
        outcome = outcome_of_ending(execution) or first_outcome(lines)
        return outcome or Outcome("error", error="the test ended before it judged")

    def _ask(
        self,
        kind: str,
        bodies: Sequence[bytes],
        limits: Limits | None,
        answers: int = 1,
        prelude: bool = False,
    ) -> Execution:
        """One request, answered from memory where an equal one was answered before."""
        header = header_of(kind, bodies, limits or self.limits, answers, prelude)
        # Everything that an answer depends on.
        digest = hashlib.blake2b(repr(header).encode(), digest_size=16)
        for body in bodies:
            digest.update(body)
        key = digest.digest()

        with self._lock:
            remembered = self._memory.get(key)
            # What a server said before it was found to be sick is worth nothing.
            if remembered is not None and remembered.server not in self.pool.sick:
                self._memory.move_to_end(key)
                self._remembered += 1
                return remembered

        execution = self.pool.ask(header, bodies)
        # Long answers would fill linn's own memory.
        size = len(execution.lines) + len(execution.stdout) + len(execution.stderr)
        if size <= _LONGEST_REMEMBERED:
            with self._lock:
                self._memory[key] = execution
                if len(self._memory) > _MOST_REMEMBERED:
                    self._memory.popitem(last=False)

        return execution


def _json_of(job: Mapping[str, Any]) -> bytes:
    return json.dumps(job).encode()


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _printed(execution: Execution) -> Outcome:
    """The outcome of a program that prints: what it printed, and how it ended."""
    stdout = text_of(execution.stdout)
    # A script that ends well reports nothing, and it has no value to report.
    lines = [line for line in execution.lines.splitlines() if line]
    outcome = outcome_of_ending(execution) or first_outcome(lines)
    if outcome is not None and outcome.status == "ok":
        outcome = Outcome("error", error="unexpected answer")

    if outcome is not None:
        return replace(outcome, stdout=stdout)
    if execution.code != 0:
        return Outcome("error", stdout=stdout, error=exit_text(execution.code))
    return Outcome("ok", stdout=stdout)


def _require_inside(files: Mapping[str, str]) -> dict[str, str]:
    """The files; raises UserError for a path that leaves their folder."""
    for path in files:
        # An absolute path has an empty first part.
        if "\0" in path or {"", ".", ".."} & set(path.split("/")):
            raise UserError(f"file path {path!r} must be relative and stay inside its folder")
    return dict(files)
