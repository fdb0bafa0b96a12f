"""The fork server: waits for requests on stdin, forks one child (or two, for a check) for each, bounds it, kills it, answers on stdout.

A request is a header line of JSON, then the bytes of a job, then (for a check) those of the judge's job. The server reads the header only;
the children read their own job straight from stdin before any untrusted code runs, so no later program inherits memory that holds an
earlier program or a test. An answer is a header line of JSON, then the child's lines, its stdout and its stderr.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
from typing import Any, NoReturn

from . import kernel, program

_COMMON_MODULES = ("bisect", "collections", "copy", "functools", "heapq", "itertools", "math", "operator", "re", "string", "typing")
_LIMIT_SIGNALS = (signal.SIGXCPU, signal.SIGKILL)


class Server:
    """One server in one isolation; one request at a time."""

    def __init__(self, kind: str, uid: int, scratch: str) -> None:
        self.kind, self.uid, self.scratch = kind, uid, scratch
        self.alone = os.getpid() == 1  # first process of an own process space: every other process in it is a program's
        self.filter = kernel.program_filter()
        self.dirty = False

    # ------------------------------------------------------------ the children

    def _settle(self, header: dict[str, Any], keep: dict[int, int]) -> None:
        """Give up everything a program must not have. `keep` maps wanted descriptor numbers to present ones (all above 20)."""
        kernel.die_with_parent()
        os.setsid()
        for wanted, present in keep.items():
            os.dup2(present, wanted)
        os.closerange(max([2, *keep]) + 1, 1024)
        os.chdir(self.scratch)
        os.umask(0o077)
        cpu, memory = int(header["cpu"]), int(header["memory"])
        limits = (
            (resource.RLIMIT_CPU, cpu),
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_FSIZE, int(header["file"])),
            (resource.RLIMIT_NOFILE, 64),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, int(header["threads"]) + 1),
        )
        for what, limit in limits:
            resource.setrlimit(what, (limit, limit))
        if self.uid:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)  # all capabilities go with it
        elif self.kind != "bwrap":
            kernel.drop_capabilities()
        kernel.hide_memory()
        kernel.install_filter(self.filter)

    def _fork(self, header: dict[str, Any], size: int, keep: dict[int, int], ready: int, work: Any) -> int:
        """Fork a child that reads its job, tells `ready`, settles and works; it never comes back."""
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            job = json.loads(_exactly(0, size))
            os.write(ready, b"r")
            null = os.open("/dev/null", os.O_RDWR)
            high = {wanted: _above(present) for wanted, present in {0: null, 1: null, 2: null, **keep}.items()}
            if "stdin" in job:
                high[0] = self._stdin(job.pop("stdin"))
            self._settle(header, high)
            code = 71
            random.seed(0)  # a fork seeds anew; the outcome must be a function of the program's text
            work(job)
            code = 0
        finally:
            os._exit(code)

    def _stdin(self, text: str) -> int:
        path = os.path.join(self.scratch, "stdin")
        with open(path, "w+", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.unlink(path)
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            return _above(os.dup(file.fileno()))

    # ------------------------------------------------------------ one request

    def answer(self, header: dict[str, Any]) -> bytes:
        """Run one request to its end; nothing of it lives on afterwards."""
        cap = int(header["output"])
        lines, ready = _pipe(), _pipe()
        streams = {"lines": lines}
        started = time.monotonic()
        pids = []
        if header["kind"] == "check":
            calls, answers = _pipe(), _pipe()
            keep = {3: calls[0], 4: answers[1]}
            pids.append(self._fork(header, header["size"], keep, ready[1], lambda job: program.serve_program(job, 3, 4, cap)))
            _await(ready[0])
            keep = {3: lines[1], 4: calls[1], 5: answers[0]}
            pids.append(self._fork(header, header["judge_size"], keep, ready[1], lambda job: program.run_check(job, 3, 4, 5, cap)))
            _await(ready[0])
            for fd in (*calls, *answers):
                os.close(fd)
        elif header["kind"] == "script":
            streams = {"lines": lines, "stdout": _pipe(), "stderr": _pipe()}
            keep = {1: streams["stdout"][1], 2: streams["stderr"][1], 3: lines[1]}
            pids.append(self._fork(header, header["size"], keep, ready[1], lambda job: program.run_script(job, 3)))
            _await(ready[0])
        else:
            pids.append(self._fork(header, header["size"], {3: lines[1]}, ready[1], lambda job: program.run_calls(job, 3)))
            _await(ready[0])
        for fd in (*ready, *(pipe[1] for pipe in streams.values())):
            os.close(fd)
        said, ending = _watch(pids[-1], {name: pipe[0] for name, pipe in streams.items()}, cap, started + float(header["wall"]))
        statuses = self._kill_all(pids)
        for pipe in streams.values():
            os.close(pipe[0])
        self._clean()
        limit = float(header["cpu"]) - 0.2
        killed = [used for status, used in statuses.values() if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _LIMIT_SIGNALS]
        if any(used >= limit for used in killed):
            ending = "timeout"
        code = os.waitstatus_to_exitcode(statuses[pids[-1]][0]) if ending == "ended" else 0
        reply = {"ending": ending, "code": code, "seconds": time.monotonic() - started, "last": self.dirty}
        reply["sizes"] = [len(said.get(name, b"")) for name in ("lines", "stdout", "stderr")]
        return json.dumps(reply).encode() + b"\n" + b"".join(said.get(name, b"") for name in ("lines", "stdout", "stderr"))

    def _kill_all(self, pids: list[int]) -> dict[int, tuple[int, float]]:
        """Kill and reap every process a request left; wait status and CPU seconds of each."""
        statuses: dict[int, tuple[int, float]] = {}
        while True:
            for pid in [-1] if self.alone else [pid for pid in [*pids, *_children()] if pid not in statuses]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                while True:
                    pid, status, usage = os.wait4(-1, 0)
                    statuses[pid] = (status, usage.ru_utime + usage.ru_stime)
            except ChildProcessError:
                return statuses

    def _clean(self) -> None:
        """Empty the scratch folder; where that fails or takes long, this server asks to be replaced."""
        try:
            for entry in os.scandir(self.scratch):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        except (OSError, RecursionError):
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


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]


def _pipe() -> tuple[int, int]:
    return os.pipe()


def _above(fd: int) -> int:
    """A copy of `fd` numbered 30 or more, so that putting descriptors in place overwrites none still needed."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD, 30)


def _exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _await(ready: int) -> None:
    """Wait until a child has read its whole job; if it could not, the stream is out of step and this server must end."""
    if not select.select([ready], [], [], 20.0)[0] or os.read(ready, 1) != b"r":
        os._exit(3)


def _watch(pid: int, streams: dict[str, int], cap: int, deadline: float) -> tuple[dict[str, bytes], str]:
    """Collect what a child says until it ends, says too much, runs out of time, or our own parent is gone."""
    poll = select.poll()
    handle = os.pidfd_open(pid)
    poll.register(handle, select.POLLIN)
    poll.register(0, select.POLLHUP)
    names = {fd: name for name, fd in streams.items()}
    said = {name: bytearray() for name in streams}
    for fd in names:
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    ending = ""
    while not ending:
        events = dict(poll.poll(max(0.0, (deadline - time.monotonic()) * 1000)))
        if 0 in events:
            os._exit(0)
        ending = "ended" if handle in events else "timeout" if not events else ""
        for fd, name in list(names.items()):
            if (fd in events or ending == "ended") and not _drain(fd, said[name], cap):
                poll.unregister(fd)
                del names[fd]
        if any(len(text) > cap for text in said.values()):
            ending = "output"
    os.close(handle)
    return {name: bytes(text[:cap]) for name, text in said.items()}, ending


def _drain(fd: int, into: bytearray, cap: int) -> bool:
    """Read what is there, up to a little over `cap`; False when the other end is closed."""
    while len(into) <= cap:
        try:
            part = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        if not part:
            return False
        into += part
    return True


def main(kind: str, uid: str, scratch: str, size: str) -> NoReturn:
    """Set the process up, say hello, serve until stdin closes."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGPIPE else signal.SIG_IGN)
    kernel.die_with_parent()
    if kind == "unshare":
        if int(uid) and not all(os.stat(folder).st_mode & 1 for folder in _parents(sys.base_prefix)):
            kernel.bind(sys.base_prefix, "/mnt")  # the library must be within reach of the programs' user
            sys.path[:] = [path.replace(sys.base_prefix, "/mnt", 1) for path in sys.path]
        kernel.private_tmp(scratch, int(size))
    kernel.hide_memory()
    kernel.adopt_orphans()
    sys.path[:] = [path for path in sys.path if os.path.isdir(path) and path.startswith((sys.base_prefix, sys.base_exec_prefix, "/mnt"))]
    for name in _COMMON_MODULES:
        __import__(name)
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
                os._exit(0)
            line += byte
        answer = server.answer(json.loads(line))
        while answer:
            answer = answer[os.write(1, answer) :]
