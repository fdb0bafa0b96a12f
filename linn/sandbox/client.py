"""The caller's side of the sandbox: fork servers started on demand, requests bounded in time, outcomes as plain data."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from linn.errors import InfrastructureError, UserError
from linn.sandbox import isolation
from linn.sandbox.inside.plain import NotPlain, decode, encode

Status = Literal["ok", "error", "timeout", "memory", "output"]

_REMEMBERED, _LONGEST_REMEMBERED = 4096, 4096
_START_SECONDS = 30.0
_ANSWER_SLACK = 30.0
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_FOLDER = re.compile(r"(?:/[\w.+-]+)+/(?=[\w.+-]+)")


@dataclass(frozen=True)
class Limits:
    """What one execution may use."""

    cpu: int = 1
    """CPU seconds of a process; what ends a busy loop. CPU, not wall-clock, so that a loaded machine changes no verdict."""
    wall: float = 10.0
    """Seconds for the whole execution; what ends a sleeper."""
    memory: int = 256 << 20
    """Bytes of address space."""
    threads: int = 8
    """Threads; new processes are refused."""
    file: int = 4 << 20
    """Bytes of one written file; the whole scratch folder holds four times as much."""
    output: int = 1 << 18
    """Bytes of each stream, and of all answers together."""


@dataclass(frozen=True)
class Outcome:
    """What came of one call, script or check. Its texts are the same each time for the same program."""

    status: Status
    """`ok`; `error`: it raised, exited or crashed; `timeout`; `memory`; `output`: it said more than allowed."""
    value: Any = None
    """What a call returned, as plain data; True where a check passed."""
    stdout: str = ""
    """What a script printed."""
    error: str = ""
    """Why it is not `ok`, one line, without addresses or folders."""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def scrub(text: str) -> str:
    """A one-line text a model may see: no addresses, no folders, nothing that cannot be written as UTF-8."""
    text = _FOLDER.sub("", _ADDRESS.sub("0x…", text)).encode("utf-8", "replace").decode()
    return " ".join(text.split())[:300]


class _Died(Exception):
    """A server ended or did not answer in time."""


class _Server:
    """One running fork server."""

    def __init__(self, kind: str, index: int, limits: Limits) -> None:
        self.scratch = tempfile.mkdtemp(prefix="linn-sandbox-") if kind == "plain" else ""
        words = isolation.command(kind, index, 4 * limits.file, self.scratch)
        environment = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
        try:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise _Died(str(error)) from None
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        self.rest = b""
        try:
            hello = self._line(time.monotonic() + _START_SECONDS)
            if json.loads(hello) != {"hello": True}:
                raise _Died("no greeting")
        except (_Died, ValueError):
            self.stop()
            said = _text(self.process.stderr.read(2000) or b"").strip().splitlines()
            raise _Died(said[-1] if said else "it ended at once") from None

    def ask(self, header: Mapping[str, Any], jobs: Sequence[bytes], seconds: float) -> tuple[dict[str, Any], list[bytes]]:
        """Send one request and wait for its answer; raises _Died."""
        deadline = time.monotonic() + seconds
        data = json.dumps(header).encode() + b"\n" + b"".join(jobs)
        while data:
            if not select.select([], [self.stdin], [], max(0.0, deadline - time.monotonic()))[1]:
                raise _Died("it does not read")
            try:
                data = data[os.write(self.stdin, data[: 1 << 16]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _Died("it has ended") from None
        answer = json.loads(self._line(deadline))
        return answer, [self._exactly(size, deadline) for size in answer["sizes"]]

    def _more(self, deadline: float) -> None:
        if not select.select([self.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise _Died("it does not answer")
        part = os.read(self.stdout, 1 << 16)
        if not part:
            raise _Died("it has ended")
        self.rest += part

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self.rest:
            self._more(deadline)
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def _exactly(self, size: int, deadline: float) -> bytes:
        while len(self.rest) < size:
            self._more(deadline)
        body, self.rest = self.rest[:size], self.rest[size:]
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
        if self.scratch:
            shutil.rmtree(self.scratch, ignore_errors=True)


class Sandbox:
    """Runs untrusted Python: no network, no files but a private empty folder, no processes, bounded CPU, time, memory and output.

    Thread-safe. Servers (at most `servers`, one request each at a time) start when first needed. Equal requests are answered from memory.
    Raises InfrastructureError when no server can be started, never for a program's fault.

    Not protected against: faults of the kernel; side channels (timing, load); programs that read a clock or their process id, whose
    outcome may differ from run to run. Without bubblewrap: reading the files that this user may read. Without `unshare` too: changing
    them, and the network, other processes and signals are closed by the system-call filter only (x86-64 and ARM64). A check text that
    calls a function of the program for its own judgement (HumanEval has three such) trusts that function.
    """

    def __init__(self, limits: Limits | None = None, servers: int | None = None, kind: str | None = None) -> None:
        """`kind`: `bwrap`, `unshare` or `plain`; None: the strongest that works."""
        self.limits = limits or Limits()
        self.servers = servers or max(1, os.cpu_count() or 1)
        self.kind = kind
        if kind is not None and kind not in isolation.kinds():
            raise UserError(f"sandbox kind {kind!r} is not available here; found: {', '.join(isolation.kinds())}")
        self._free: list[_Server] = []
        self._running = self._started = 0
        self._owner = os.getpid()
        self._change = threading.Condition()
        self._memory: OrderedDict[bytes, tuple[dict[str, Any], list[bytes]]] = OrderedDict()
        _open.add(self)

    # ------------------------------------------------------------ what it does

    def call(self, program: str, fn: str, inputs: Sequence[Sequence[Any]]) -> list[Outcome]:
        """One outcome per argument list, all in one process. `fn` may be `name` or `Class.method`."""
        return self._calls({"program": program}, [(fn, arguments) for arguments in inputs])

    def call_files(self, files: Mapping[str, str], calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Outcome]:
        """Like `call` for a folder of files; each call is (`module:function`, arguments)."""
        return self._calls({"files": _checked(files)}, calls)

    def script(self, program: str, stdin: str = "") -> Outcome:
        """Run a program that reads stdin and prints."""
        answer, (lines, stdout, _) = self._ask("script", {"program": program, "stdin": stdin})
        out = _text(stdout)
        said = _ended(answer) or next((_outcome(line) for line in lines.splitlines() if line), None)
        if said is not None:
            return replace(said if said.status != "ok" else Outcome("error", error="unexpected answer"), stdout=out)
        if answer["code"] != 0:
            return Outcome("error", stdout=out, error=_code(answer["code"]))
        return Outcome("ok", stdout=out)

    def check(self, program: str, test: str, entry_point: str) -> Outcome:
        """Run a HumanEval-like test text, then its `check(entry_point)`. The program answers from another process, by plain data."""
        return self._check({"program": program}, {"test": test, "entry_point": entry_point})

    def check_files(self, files: Mapping[str, str], test: str) -> Outcome:
        """Run every `test…` function of a test text against a folder of files, whose modules it may import.

        The folder's functions answer from another process by plain data; tests that need its classes or objects cannot pass.
        """
        modules = [path[:-3].replace("/", ".").removesuffix(".__init__") for path in _checked(files) if path.endswith(".py")]
        return self._check({"files": dict(files)}, {"test": test, "modules": modules})

    def close(self) -> None:
        """Stop every server; using the sandbox again starts new ones."""
        with self._change:
            free, self._free = self._free, []
            self._running -= len(free)
            self._change.notify_all()
        if self._owner == os.getpid():
            for server in free:
                server.stop()

    # ------------------------------------------------------------ how

    def _calls(self, job: dict[str, Any], calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Outcome]:
        job["calls"] = [(target, encode(list(arguments))) for target, arguments in calls]
        answer, (lines, _, _) = self._ask("call", job)
        found = [_outcome(line) for line in lines.split(b"\n")[:-1]]  # what follows the last line end was cut off
        if len(found) == 1 < len(calls) and found[0].status in ("error", "memory") and answer["ending"] == "ended":
            found *= len(calls)
        missing = _ended(answer) or Outcome("error", error=f"the program ended before it answered ({_code(answer['code'])})")
        return [*found[: len(calls)], *[missing] * (len(calls) - len(found))]

    def _check(self, job: dict[str, Any], judge: dict[str, Any]) -> Outcome:
        answer, (lines, _, _) = self._ask("check", job, judge)
        found = _ended(answer) or next((_outcome(line) for line in lines.split(b"\n")[:-1]), None)
        return found or Outcome("error", error="the test ended before it judged")

    def _ask(self, kind: str, *jobs: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        data = [json.dumps(job).encode() for job in jobs]
        key = hashlib.blake2b(repr((kind, data)).encode(), digest_size=16).digest()
        with self._change:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        header = {"kind": kind, "size": len(data[0]), "judge_size": len(data[-1]), **asdict(self.limits)}
        answer = self._run(header, data)
        if sum(map(len, answer[1])) <= _LONGEST_REMEMBERED:
            with self._change:
                self._memory[key] = answer
                if len(self._memory) > _REMEMBERED:
                    self._memory.popitem(last=False)
        return answer

    def _run(self, header: Mapping[str, Any], data: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        for attempt in range(2):
            server = self._take(fresh=attempt > 0)
            try:
                answer, said = server.ask(header, data, self.limits.wall + _ANSWER_SLACK)
            except (_Died, ValueError, KeyError):
                self._give(server, broken=True)
                continue
            except BaseException:
                self._give(server, broken=True)
                raise
            self._give(server, broken=answer["last"])
            return answer, said
        # Twice, and the second time with a fresh server: the program's own doing, if a fresh server still starts.
        self._give(self._take(fresh=True), broken=False)
        return {"ending": "crash", "code": 0}, [b"", b"", b""]

    def _take(self, fresh: bool = False) -> _Server:
        """A free server, or a new one. `fresh`: a new one in any case, since a free one may have died unseen."""
        if fresh:
            self.close()
        with self._change:
            if self._owner != os.getpid():  # a fork of this process must not talk to its parent's servers
                self._free, self._running, self._owner = [], 0, os.getpid()
            while not self._free and self._running >= self.servers:
                self._change.wait()
            if self._free:
                return self._free.pop()
            self._running += 1
            self._started += 1
            index = self._started
        try:
            return isolation.starter.submit(self._start, index).result()
        except BaseException:
            with self._change:
                self._running -= 1
                self._change.notify()
            raise

    def _give(self, server: _Server, broken: bool) -> None:
        if broken:
            server.stop()
        with self._change:
            if broken:
                self._running -= 1
            else:
                self._free.append(server)
            self._change.notify()

    def _start(self, index: int) -> _Server:
        causes = []
        for kind in [self.kind] if self.kind else isolation.kinds():
            try:
                server = _Server(kind, index, self.limits)
            except _Died as error:
                causes.append(f"{kind}: {error}")
                continue
            if self.kind is None and kind == "plain":
                isolation.warn_plain(causes)
            self.kind = kind
            return server
        why = "; ".join(causes)
        raise InfrastructureError(f"no sandbox could be started ({why}); install bubblewrap, or check memory and process limits")


_open: weakref.WeakSet[Sandbox] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for sandbox in list(_open):
        sandbox.close()


def _checked(files: Mapping[str, str]) -> dict[str, str]:
    for path in files:
        parts = path.split("/")
        if not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
            raise UserError(f"file path {path!r} must be relative and stay inside its folder")
    return dict(files)


def _outcome(line: bytes) -> Outcome:
    """An outcome from a line a child wrote; the child may be hostile."""
    if line.startswith(b'{"value": '):
        try:
            return Outcome("ok", value=decode(line[len(b'{"value": ') : -1]))
        except NotPlain as error:
            return Outcome("error", error=scrub(str(error)))
    try:
        ((status, text),) = json.loads(line).items()
        return Outcome("memory" if status == "memory" else "error", error=scrub(str(text)))
    except (ValueError, AttributeError, RecursionError, TypeError):
        return Outcome("error", error="unexpected answer")


def _code(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def _ended(answer: Mapping[str, Any]) -> Outcome | None:
    """The outcome that an execution's ending alone decides, if it does."""
    if answer["ending"] == "timeout":
        return Outcome("timeout", error="time limit exceeded")
    if answer["ending"] == "output":
        return Outcome("output", error="output limit exceeded")
    if answer["ending"] == "crash":
        return Outcome("error", error="the program broke its sandbox")
    return None
