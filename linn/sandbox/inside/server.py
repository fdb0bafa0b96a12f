"""The fork server: waits for requests on stdin, forks one child (or two, for a check) for each, bounds it, kills it, answers on stdout.

A request is a header line of JSON, then bodies of the sizes it names. The server reads the header only; each child reads its own bodies
straight from stdin before any untrusted code runs, and what a child says is kept outside the heap, so no later program inherits memory that
holds an earlier program, input, test or output. An answer is a header line of JSON, then the child's lines, its stdout and its stderr. An
answer with `failed` says that the machine, and not the program, is at fault; the server then ends, since bodies may be left unread.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import itertools
import json
import os
import random
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from . import kernel, program
from .scratch import empty
from .watch import Watch

Work = Callable[[list[bytes]], None]

_FILES, _LAST = 64, 1024
_IMAGE = 900
"""Where a compiled program waits to be executed: above the limit of open files, so that a program cannot put another there."""
_FAILED = b'{"ending": "failed", "failed": '
_STACK = 256 << 20
_SETTLE_SECONDS = 20.0
_HELD = "/proc/self/fd/"
_ADD_SEALS, _SEALS = 1033, 0xF
_LIMIT_SIGNALS = (signal.SIGXCPU, signal.SIGKILL)


class Failed(Exception):
    """The machine is at fault: no fork, no memory, no disk."""


class Server:
    """One server in one isolation; one request at a time."""

    def __init__(self, kind: str, uid: int, scratch: str) -> None:
        self.kind, self.uid, self.scratch = kind, uid, scratch
        self.alone = (
            os.getpid() == 1
        )  # first process of an own process space: every other process in it is a program's
        self.filters = {False: kernel.program_filter(), True: kernel.program_filter(image=_IMAGE)}
        self.rules = kernel.confinement(
            [*kernel.SYSTEM, *sys.path], [scratch, *kernel.DEVICES], kernel.loaders()
        )
        self.pid = os.getpid()
        self.library = [int(path.rpartition("/")[2]) for path in sys.path if path.startswith(_HELD)]
        self.dirty = False

    # ------------------------------------------------------------ the children

    def _settle(self, header: dict[str, Any], keep: dict[int, int], ready: int) -> None:
        """Give up everything a program must not have. `keep` maps wanted descriptor numbers to present ones (all above 20)."""
        others = 0 if self.uid or self.alone else _threads_of(os.geteuid())
        os.setsid()
        kernel.confine(self.rules)
        for wanted, present in keep.items():
            os.dup2(present, wanted, inheritable=wanted != _IMAGE)
        os.chdir(self.scratch)
        os.umask(0o077)
        for low, high in itertools.pairwise(sorted({-1, *keep, *self.library, ready, _LAST})):
            if low + 1 < high:
                os.closerange(low + 1, high)
        memory, answers = int(header["memory"]), int(header["answers"])
        limits = (
            (resource.RLIMIT_CPU, int(float(header["cpu"]) * answers) + 2),
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_STACK, min(memory // 2, _STACK)),
            (resource.RLIMIT_FSIZE, int(header["file"])),
            (resource.RLIMIT_NOFILE, _FILES),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, int(header["threads"]) + 1 + others),
        )
        for what, limit in limits:
            resource.setrlimit(what, (limit, limit))
        if self.uid:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)  # all capabilities go with it
        else:
            kernel.drop_capabilities()
        kernel.die_with_parent()  # now, since a change of user takes it back
        if os.getppid() != self.pid:
            os._exit(70)
        kernel.hide_memory()
        kernel.install_filter(self.filters[_IMAGE in keep])

    def _fork(
        self,
        header: dict[str, Any],
        sizes: list[int],
        keep: dict[int, int],
        files: dict[int, int],
        work: Work,
    ) -> int:
        """Start a child that reads its bodies, settles and works; it never comes back. Returns once it has settled; raises Failed.

        `keep`: wanted descriptor numbers and present ones; `files`: wanted numbers and which body is the file's content.
        """
        told, ready = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            raise Failed(f"fork: {error}") from None
        if pid:
            os.close(ready)
            try:
                if not select.select([told], [], [], _SETTLE_SECONDS)[0]:
                    raise Failed("a child did not start in time")
                said = os.read(told, 1000)
            finally:
                os.close(told)
            if said != b"r":
                raise Failed(said.decode("utf-8", "replace") or "a child ended before it started")
            return pid
        code = 70
        try:
            try:
                bodies = [_exactly(0, size) for size in sizes]
                null = os.open("/dev/null", os.O_RDWR)
                held = {
                    0: null,
                    1: null,
                    2: null,
                    **keep,
                    **{wanted: _held(bodies[index]) for wanted, index in files.items()},
                }
                for index in files.values():
                    bodies[index] = b""
                ready = _above(ready)
                self._settle(
                    header, {wanted: _above(present) for wanted, present in held.items()}, ready
                )
            except Exception as error:
                os.write(ready, f"{type(error).__name__}: {error}"[:900].encode("utf-8", "replace"))
                raise
            os.write(ready, b"r")
            os.close(ready)
            code = 71
            random.seed(
                0
            )  # a fork seeds anew; the outcome must be a function of the program's text
            work(bodies)
            code = 0
        finally:
            os._exit(code)

    def _children(self, header: dict[str, Any], streams: dict[str, tuple[int, int]]) -> list[int]:
        """Start what a request asks for; process ids, the one that answers last."""
        kind, sizes, cap = header["kind"], header["sizes"], int(header["output"])
        lines = streams["lines"][1]
        if kind == "check":
            with _pipe() as calls, _pipe() as answers:
                work = functools.partial(_serve, cap=cap)
                first = self._fork(header, sizes[:1], {3: calls[0], 4: answers[1]}, {}, work)
                work = functools.partial(_judge, cap=cap)
                return [
                    first,
                    self._fork(header, sizes[1:], {3: lines, 4: calls[1], 5: answers[0]}, {}, work),
                ]
        if kind == "call":
            return [self._fork(header, sizes, {3: lines}, {}, _call)]
        keep = {1: streams["stdout"][1], 2: streams["stderr"][1]}
        if kind == "binary":
            return [self._fork(header, sizes, keep, {_IMAGE: 0, 0: 1}, _execute)]
        work = functools.partial(_script, prelude=bool(header["prelude"]))
        return [self._fork(header, sizes, {**keep, 3: lines}, {0: 1}, work)]

    # ------------------------------------------------------------ one request

    def answer(self, header: dict[str, Any]) -> list[bytes | memoryview]:
        """Run one request to its end; nothing of it lives on afterwards, once the answer's parts are let go."""
        names = (
            ["lines", "stdout", "stderr"] if header["kind"] in ("script", "binary") else ["lines"]
        )
        with contextlib.ExitStack() as stack:
            streams = {name: stack.enter_context(_pipe()) for name in names}
            pids: list[int] = []
            try:
                self._check_disk(4 * int(header["file"]))
                pids += self._children(header, streams)
            except (Failed, OSError) as error:
                self._kill_all(pids)
                return [
                    _FAILED + json.dumps(str(error)).encode() + b', "last": true, "sizes": []}\n'
                ]
            for pipe in streams.values():
                os.close(pipe[1])
            watch = Watch(
                pids,
                {name: pipe[0] for name, pipe in streams.items()},
                header,
                self.scratch if self.kind != "plain" else "",
            )
            ending = watch.run()
            statuses = self._kill_all(pids)
        self._clean()
        if ending == "unwanted":
            self.leave()
        limit = float(header["cpu"])
        killed = [
            used
            for status, used in statuses.values()
            if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _LIMIT_SIGNALS
        ]
        code = os.waitstatus_to_exitcode(statuses[pids[-1]][0]) if ending == "ended" else 0
        if any(used >= limit for used in killed):
            ending = "timeout"
        elif code == -signal.SIGKILL:
            ending = "killed"
        said = [watch.text(name) for name in ("lines", "stdout", "stderr")]
        reply = {
            "ending": ending,
            "code": code,
            "last": self.dirty,
            "sizes": [len(text) for text in said],
        }
        return [json.dumps(reply).encode() + b"\n", *said]

    def _check_disk(self, size: int) -> None:
        """A program must not fail because someone else has filled the disk; in an own memory folder it is alone."""
        if self.kind == "plain":
            found = os.statvfs(self.scratch)
            if found.f_bavail * found.f_frsize < size:
                raise Failed("the scratch disk is full")

    def _kill_all(self, pids: list[int]) -> dict[int, tuple[int, float]]:
        """Kill and reap every process a request left; wait status and CPU seconds of each."""
        statuses: dict[int, tuple[int, float]] = {}
        while True:
            for pid in (
                [-1]
                if self.alone
                else [pid for pid in [*pids, *_children()] if pid not in statuses]
            ):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                while True:
                    pid, status, usage = os.wait4(-1, 0)
                    statuses[pid] = (status, usage.ru_utime + usage.ru_stime)
            except ChildProcessError:
                return statuses

    def leave(self) -> NoReturn:
        """End, since our owner has; nothing of ours stays."""
        if self.kind == "plain":
            with contextlib.suppress(OSError):
                os.rmdir(self.scratch)
        os._exit(0)

    def _clean(self) -> None:
        """Empty the scratch folder; where that fails, this server asks to be replaced."""
        try:
            empty(self.scratch)
        except OSError:
            self.dirty = True


def _children() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                        found.append(int(name))
            except (OSError, ValueError, IndexError):
                continue
    return found


def _threads_of(uid: int) -> int:
    """How many threads a user has, where programs run as that user: the system counts them all together."""
    count = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


def _above(fd: int) -> int:
    """A copy of `fd` numbered 30 or more, so that putting descriptors in place overwrites none still needed."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD, 30)


def _held(data: bytes) -> int:
    """A descriptor of a file in memory that nobody can change any more, at its start."""
    fd = os.memfd_create("", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
    return fd


def _exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _serve(bodies: list[bytes], cap: int) -> None:
    program.serve_program(json.loads(bodies[0]), 3, 4, cap)


def _judge(bodies: list[bytes], cap: int) -> None:
    program.run_check(json.loads(bodies[0]), 3, 4, 5, cap)


def _call(bodies: list[bytes]) -> None:
    program.run_calls(json.loads(bodies[0]), 3)


def _script(bodies: list[bytes], prelude: bool) -> None:
    program.run_script(bodies[0].decode("utf-8", "surrogateescape"), 3, prelude)


def _execute(bodies: list[bytes]) -> None:
    os.execve(_IMAGE, ["program"], {})


def _hold_library() -> None:
    """Reach the standard library through descriptors, where its path leads through folders that the programs' user may not enter."""
    for number, path in enumerate(list(sys.path), _IMAGE + 1):
        handle = os.open(path, os.O_PATH | os.O_DIRECTORY)
        os.dup2(handle, number, inheritable=False)
        os.close(handle)
        sys.path[sys.path.index(path)] = f"{_HELD}{number}"
        for module in list(sys.modules.values()):
            for index, part in enumerate(getattr(module, "__path__", ())):
                if part.startswith(path + "/"):
                    module.__path__[index] = f"{_HELD}{number}{part.removeprefix(path)}"


def _shut(path: str) -> bool:
    """Whether a folder on the way to a path can be entered by its owner only."""
    parts = path.split("/")
    return not all(
        os.stat("/".join(parts[:count])).st_mode & 1 for count in range(2, len(parts) + 1)
    )


def main(kind: str, uid: str, scratch: str, size: str) -> NoReturn:
    """Set the process up, say hello, serve until stdin closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGPIPE else signal.SIG_IGN)
    if kind != "plain":  # there it lives on to clean up, and hears of its owner's end by its stdin
        kernel.die_with_parent()
    sys.path[:] = [
        path
        for path in sys.path
        if os.path.isdir(path) and path.startswith((sys.base_prefix, sys.base_exec_prefix))
    ]
    hidden = kind == "unshare" and sys.base_prefix.startswith(scratch + "/")
    if hidden or (int(uid) and _shut(sys.base_prefix)):
        _hold_library()
    if kind == "unshare":
        kernel.private_tmp(scratch, int(size))
    kernel.hide_memory()
    kernel.adopt_orphans()
    program.load_prelude()
    os.chdir("/")
    server = Server(kind, int(uid), scratch)
    gc.collect()
    gc.freeze()
    os.write(1, b'{"hello": true}\n')
    while True:
        line = bytearray()
        while not line.endswith(b"\n"):
            byte = os.read(0, 1)
            if not byte:
                server.leave()
            line += byte
        _reply(server, json.loads(line))


def _reply(server: Server, header: dict[str, Any]) -> None:
    answer = server.answer(header)
    for part in answer:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(1, rest) :]
    if bytes(answer[0][: len(_FAILED)]) == _FAILED:
        os._exit(0)
