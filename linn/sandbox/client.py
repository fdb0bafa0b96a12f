"""The sandbox as its users see it: untrusted programs called, run, compiled and checked, outcomes as plain data."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from linn.errors import UserError
from linn.sandbox import isolation
from linn.sandbox.compiler import Compiled, Compiler
from linn.sandbox.inside.plain import encode
from linn.sandbox.outcome import Limits, Outcome, ended, exit_of, outcome_of, text_of
from linn.sandbox.pool import Answer, Pool

_REMEMBERED, _LONGEST_REMEMBERED = 4096, 4096


class Sandbox:
    """Runs untrusted programs: no network, no files but a private empty folder, no processes, bounded CPU, time, memory and output.

    Thread-safe. Servers (at most `servers`, one request each at a time) start when first needed. Equal requests are answered from memory.
    Raises InfrastructureError when the machine fails (no sandbox, no fork, no memory, a full disk), never for a program's fault.

    Not protected against: faults of the kernel; side channels (timing, load); programs that read a clock or their process id, whose
    outcome may differ from run to run. Without Landlock and bubblewrap: reading the files that this user may read, without `unshare`
    too: changing them. `plain`: filling the disk for a moment; the network, other processes and signals are closed by the system-call
    filter only (x86-64 and ARM64). A check text that calls a function of the program for its own judgement trusts that function.
    """

    def __init__(
        self, limits: Limits | None = None, servers: int | None = None, kind: str | None = None
    ) -> None:
        """`servers`: executions at once, None: one for each core we may use. `kind`: `bwrap`, `unshare` or `plain`; None: the strongest that works."""
        if kind is not None and kind not in isolation.kinds():
            raise UserError(
                f"sandbox kind {kind!r} is not available here; found: {', '.join(isolation.kinds())}"
            )
        self.limits = limits or Limits()
        self.pool = Pool(servers or len(os.sched_getaffinity(0)), kind, 4 * self.limits.file)
        self.compiler = Compiler(self.pool)
        self._memory: OrderedDict[bytes, Answer] = OrderedDict()
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
        """One outcome per argument list, all in one process. `fn` may be `name` or `Class.method`; `prelude` as for `script`."""
        return self._calls(
            {"program": program, "prelude": prelude},
            [(fn, arguments) for arguments in inputs],
            limits,
        )

    def call_files(
        self, files: Mapping[str, str], calls: Sequence[tuple[str, Sequence[Any]]]
    ) -> list[Outcome]:
        """Like `call` for a folder of files; each call is (`module:function`, arguments)."""
        return self._calls({"files": _checked(files)}, calls, None)

    def script(
        self, program: str, stdin: str = "", limits: Limits | None = None, prelude: bool = False
    ) -> Outcome:
        """Run a program that reads stdin and prints. `prelude`: the names that graders of contest problems import for every program."""
        return _printed(
            *self._ask(
                "script",
                (program.encode("utf-8", "surrogatepass"), _bytes(stdin)),
                limits,
                prelude=prelude,
            )
        )

    def compile(self, source: str) -> Compiled:
        """A C++ program as machine code that `run` takes; raises UserError where no compiler is installed."""
        return self.compiler.compile(source)

    def run(self, code: bytes, stdin: str = "", limits: Limits | None = None) -> Outcome:
        """Run machine code that reads stdin and prints."""
        return _printed(*self._ask("binary", (code, _bytes(stdin)), limits))

    def check(
        self, program: str, test: str, entry_point: str, limits: Limits | None = None
    ) -> Outcome:
        """Run a HumanEval-like test text, then its `check(entry_point)`. The program answers from another process, by plain data."""
        return self._check({"program": program}, {"test": test, "entry_point": entry_point}, limits)

    def check_files(self, files: Mapping[str, str], test: str) -> Outcome:
        """Run every `test…` function of a test text against a folder of files, whose modules it may import.

        The folder's functions answer from another process by plain data; tests that need its classes or objects cannot pass.
        """
        modules = [
            path[:-3].replace("/", ".").removesuffix(".__init__")
            for path in _checked(files)
            if path.endswith(".py")
        ]
        return self._check({"files": dict(files)}, {"test": test, "modules": modules}, None)

    def totals(self) -> dict[str, float]:
        """Sums so far: those of the pool, and `remembered`: requests that were answered from memory."""
        return {**self.pool.totals(), "remembered": float(self._remembered)}

    def close(self) -> None:
        """Stop every server; using the sandbox again starts new ones."""
        self.pool.close()

    # ------------------------------------------------------------ how

    def _calls(
        self, job: dict[str, Any], calls: Sequence[tuple[str, Sequence[Any]]], limits: Limits | None
    ) -> list[Outcome]:
        job["calls"] = [(target, encode(list(arguments))) for target, arguments in calls]
        answer, (lines, _, _) = self._ask("call", (_json(job),), limits, answers=max(1, len(calls)))
        said = lines.split(b"\n", max(1, len(calls)))[
            :-1
        ]  # what follows was cut off, or not asked for
        found = [outcome_of(line) for line in said]
        if (
            len(found) == 1 < len(calls)
            and found[0].status in ("error", "memory")
            and answer["ending"] == "ended"
        ):
            found *= len(calls)
        missing = ended(answer) or Outcome(
            "error", error=f"the program ended before it answered ({exit_of(answer['code'])})"
        )
        return [*found[: len(calls)], *[missing] * (len(calls) - len(found))]

    def _check(self, job: dict[str, Any], judge: dict[str, Any], limits: Limits | None) -> Outcome:
        answer, (lines, _, _) = self._ask("check", (_json(job), _json(judge)), limits)
        found = ended(answer) or next((outcome_of(line) for line in lines.split(b"\n")[:-1]), None)
        return found or Outcome("error", error="the test ended before it judged")

    def _ask(
        self,
        kind: str,
        bodies: Sequence[bytes],
        limits: Limits | None,
        answers: int = 1,
        prelude: bool = False,
    ) -> Answer:
        header = {
            "kind": kind,
            "sizes": list(map(len, bodies)),
            "answers": answers,
            "prelude": prelude,
            **asdict(limits or self.limits),
        }
        digest = hashlib.blake2b(repr(header).encode(), digest_size=16)
        for body in bodies:
            digest.update(body)
        key = digest.digest()
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                self._remembered += 1
                return self._memory[key]
        answer = self.pool.ask(header, bodies)
        if sum(map(len, answer[1])) <= _LONGEST_REMEMBERED:
            with self._lock:
                self._memory[key] = answer
                if len(self._memory) > _REMEMBERED:
                    self._memory.popitem(last=False)
        return answer


def _json(job: Mapping[str, Any]) -> bytes:
    return json.dumps(job).encode()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _printed(answer: Mapping[str, Any], said: Sequence[bytes]) -> Outcome:
    """The outcome of a program that prints: what it printed, and how it ended."""
    lines, stdout, _ = said
    out = text_of(stdout)
    found = ended(answer) or next((outcome_of(line) for line in lines.splitlines() if line), None)
    if found is not None:
        return replace(
            found if found.status != "ok" else Outcome("error", error="unexpected answer"),
            stdout=out,
        )
    if answer["code"] != 0:
        return Outcome("error", stdout=out, error=exit_of(answer["code"]))
    return Outcome("ok", stdout=out)


def _checked(files: Mapping[str, str]) -> dict[str, str]:
    for path in files:
        parts = path.split("/")
        if (
            not path
            or path.startswith("/")
            or "\0" in path
            or any(part in ("", ".", "..") for part in parts)
        ):
            raise UserError(f"file path {path!r} must be relative and stay inside its folder")
    return dict(files)
