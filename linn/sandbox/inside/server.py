"""The fork server: for each request it forks a child (or two, for a check), bounds it, kills it.

A request comes on stdin: a header of JSON, then bodies of the sizes it names. The server reads the
header only. Each child reads its own bodies straight from stdin before any untrusted code runs, and
what a child says is kept outside the heap. So no later program inherits memory that holds an
earlier program, input, test or output.

An answer goes to stdout: a header line of JSON, then the child's lines, its stdout and its stderr.
An answer with `failed` says that the machine, and not the program, is at fault; the server then
ends, since bodies may be left unread.

This file runs inside the sandbox.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from . import child, kernel, landlock, library, mounts, program
from .child import IMAGE, Task
from .scratch import FILES, Scratch
from .watch import HEADER_BLOCK, Header, Watch

_FAILED = b'{"ending": "failed", "failed": '
_SETTLE_SECONDS = 20.0
_LAST_PID = "kernel/ns_last_pid"
"""The setting that holds the last process id that was given in this process space."""
_LIMIT_SIGNALS = (signal.SIGXCPU, signal.SIGKILL)
_OUTPUTS = ("lines", "stdout", "stderr")
"""What is read of children, in the order of an answer."""
Pipe = tuple[int, int]
"""Descriptors: where to read, where to write."""
Statuses = dict[int, tuple[int, float]]
"""How processes ended: wait status and CPU seconds of each."""


class Failed(Exception):
    """The machine is at fault: no fork, no memory, no disk."""


class ForkServer:
    """One server in one isolation; one request at a time."""

    def __init__(
        self, kind: str, uid: int, home: str, in_memory: bool = False, last_pid: int = -1
    ) -> None:
        """`uid`: the programs' own user, 0: none. `home`: where programs' folders are made.

        `in_memory`: whether this process may mount over `home`. `last_pid`: descriptor by which
        the next process id is chosen; -1: none.
        """
        self.kind, self.home, self.last_pid = kind, home, last_pid
        # The first process of a process space: every other process in it is a program's.
        self.alone = os.getpid() == 1
        self.dirty = False

        self.scratch = Scratch(home, uid, in_memory)
        self.is_on_disk = not in_memory
        self.rules = landlock.Rules(
            [*landlock.SYSTEM, *sys.path], landlock.DEVICES, executable=landlock.loaders()
        )
        # There a program that runs as this user owns more than its folder.
        among_others = self.is_on_disk and not uid
        self.place = child.Place(
            server=os.getpid(),
            uid=uid,
            alone=self.alone,
            scratch=self.scratch.path,
            rules=-1,
            filters={
                False: kernel.Filter(kernel.program_filter(among_others=among_others)),
                True: kernel.Filter(kernel.program_filter(among_others=among_others, image=IMAGE)),
            },
            library=library.descriptors(),
        )

    # ------------------------------------------------------------ the children

    def _fork(self, header: Header, task: Task) -> int:
        """Start a child with its task; its process id, once it has settled. Raises Failed."""
        receiver, ready = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            raise Failed(f"fork: {error}") from None
        if pid == 0:
            child.be_child(self.place, header, task, ready)  # it never comes back

        # The child says in one message that it has settled, or why it cannot.
        os.close(ready)
        try:
            if not select.select([receiver], [], [], _SETTLE_SECONDS)[0]:
                raise Failed("a child did not start in time")
            message = os.read(receiver, 1000)
        finally:
            os.close(receiver)

        if message != child.READY:
            raise Failed(message.decode("utf-8", "replace") or "a child ended before it started")
        return pid

    def _start_children(self, header: Header, streams: Mapping[str, Pipe]) -> list[int]:
        """Start what a request asks for; process ids, last the one that answers."""
        # Its own ends of the pipes are all that a child gets of this process.
        sizes = header["sizes"]
        ends = {name: pipe[1] for name, pipe in streams.items()}
        match header["kind"]:
            case "check":
                return self._start_check(header, ends["lines"])
            case "call":
                task = child.call_task(sizes, lines=ends["lines"])
            case "binary":
                task = child.binary_task(sizes, stdout=ends["stdout"], stderr=ends["stderr"])
            case _:
                prelude = bool(header["prelude"])
                task = child.script_task(sizes, **ends, prelude=prelude)
        return [self._fork(header, task)]

    def _start_check(self, header: Header, lines: int) -> list[int]:
        """Start the two sides of a check, with pipes between them."""
        sizes, cap = header["sizes"], int(header["output"])
        with _pipe() as calls, _pipe() as answers:
            side = child.program_task(sizes[:1], calls=calls[0], answers=answers[1], cap=cap)
            first = self._fork(header, side)
            side = child.test_task(
                sizes[1:], lines=lines, calls=calls[1], answers=answers[0], cap=cap
            )
            return [first, self._fork(header, side)]

    def _kill_all(self, pids: Sequence[int]) -> Statuses:
        """Kill and reap every process that a request left; wait status and CPU seconds of each."""
        statuses: Statuses = {}
        # Orphans come to this process, one after the other, as their parents are killed. So this
        # goes on until there is no child any more.
        while True:
            if self.alone:
                targets = [-1]  # everything in this process space but this process
            else:
                targets = [pid for pid in (*pids, *_children()) if pid not in statuses]
            for pid in targets:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

            try:
                while True:
                    pid, status, usage = os.wait4(-1, 0)
                    statuses[pid] = (status, usage.ru_utime + usage.ru_stime)
            except ChildProcessError:
                return statuses

    # ------------------------------------------------------------ one request

    def answer(self, header: Header) -> list[bytes | memoryview]:
        """Run one request to its end.

        Nothing of it lives on afterwards, once the answer's parts are let go.
        """
        has_streams = header["kind"] in ("script", "binary")
        names = _OUTPUTS if has_streams else ("lines",)
        with contextlib.ExitStack() as stack:
            streams = {name: stack.enter_context(_pipe()) for name in names}

            # The disk and the processes are the machine's part: their failure is not the program's.
            pids: list[int] = []
            try:
                self._prepare(FILES * int(header["file"]))
                pids += self._start_children(header, streams)
            except (Failed, OSError) as error:
                self._kill_all(pids)
                self._clean()
                why = json.dumps(str(error)).encode()
                return [_FAILED + why + b', "last": true, "sizes": []}\n']

            # With our copies of their ends closed, a stream ends with its last process.
            for pipe in streams.values():
                os.close(pipe[1])
            readable = {name: pipe[0] for name, pipe in streams.items()}
            watch = Watch(pids, readable, header)

            ending = watch.run()
            statuses = self._kill_all(pids)

        self._clean()
        if ending == "unwanted":
            self.leave()

        ending, code = _judged(ending, statuses, pids[-1], float(header["cpu"]))
        texts = [watch.text(name) for name in _OUTPUTS]
        reply = {
            "ending": ending,
            "code": code,
            "last": self.dirty,
            "sizes": [len(text) for text in texts],
        }
        return [json.dumps(reply).encode() + b"\n", *texts]

    def _prepare(self, size: int) -> None:
        """A folder, rules and process ids that know nothing of earlier programs."""
        self.scratch.make(size)
        if self.is_on_disk:
            # A program must not fail because someone else has filled the disk.
            status = os.statvfs(self.scratch.path)
            if status.f_bavail * status.f_frsize < size:
                raise Failed("the scratch disk is full")

        self.place = self.place._replace(rules=self.rules.ruleset(self.scratch.path))
        if self.last_pid >= 0:
            os.pwrite(self.last_pid, b"1", 0)

    def _clean(self) -> None:
        """Throw the program's folder away; where that fails, this server asks to be replaced."""
        if self.place.rules >= 0:
            os.close(self.place.rules)
            self.place = self.place._replace(rules=-1)
        try:
            self.scratch.clear()
        except OSError:
            self.dirty = True

    def leave(self) -> NoReturn:
        """End, since our owner has; nothing of ours stays."""
        if self.kind == "plain":
            with contextlib.suppress(OSError):
                os.rmdir(self.home)
        os._exit(0)


def _judged(ending: str, statuses: Statuses, last: int, cpu: float) -> tuple[str, int]:
    """The ending and the exit code of a request, from how its processes ended.

    `last`: the child that answers. `cpu`: the limit, in seconds, of each.
    """
    code = 0
    if ending == "ended":
        code = os.waitstatus_to_exitcode(statuses[last][0])

    # A child may have passed its limit between two looks of the watch.
    for status, seconds in statuses.values():
        by_limit = os.WIFSIGNALED(status) and os.WTERMSIG(status) in _LIMIT_SIGNALS
        if by_limit and seconds >= cpu:
            return "timeout", code

    # Programs cannot send signals, and we had sent none yet: the system killed it.
    if code == -signal.SIGKILL:
        return "killed", code
    return ending, code


def _children() -> list[int]:
    """Process ids of this process's children."""
    own = os.getpid()
    pids = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()

            # State, then parent, stand after the name in brackets.
            if int(fields[1]) == own:
                pids.append(int(name))
        except (OSError, ValueError, IndexError):
            continue  # it has ended
    return pids


@contextlib.contextmanager
def _pipe() -> Iterator[Pipe]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


# ------------------------------------------------------------ the process


def _settable_last_pid(folder: str) -> int:
    """A descriptor by which the next process id is chosen; -1 where the kernel refuses.

    `folder`: one that may be mounted over.
    """
    if os.getpid() != 1:
        return -1  # these process ids are the machine's
    try:
        descriptor = mounts.open_setting(_LAST_PID, folder)
        os.pwrite(descriptor, b"1", 0)
    except OSError:
        return -1
    return descriptor


def main(kind: str, uid: str, home: str, *groups: str) -> NoReturn:
    """Set the process up, say hello, serve until stdin closes.

    `groups`: descriptors by which this process joins control groups.
    """
    for group in map(int, groups):
        os.write(group, b"0")
        os.close(group)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    # Under `plain` it lives on to clean up, and learns of its owner's end by its stdin.
    if kind != "plain":
        kernel.die_with_parent()

    library.prepare(home, kind, int(uid), first_descriptor=IMAGE + 1)
    last_pid = _settable_last_pid(home)
    if kind == "unshare":
        mounts.read_only_tree()
    has_own_space = kind != "plain" or mounts.own_space()
    in_memory = has_own_space and mounts.may_mount(home)
    kernel.hide_memory()
    kernel.adopt_orphans()
    program.load_prelude()
    os.chdir("/")
    server = ForkServer(kind, int(uid), home, in_memory, last_pid)

    # What is here now is shared by all forks; the collector need not touch it in each.
    gc.collect()
    gc.freeze()
    os.write(1, b'{"hello": true}\n')

    while True:
        header = _next_header()
        if header is None:
            server.leave()
        _reply(server, header)


def _next_header() -> Header | None:
    """What the next request begins with; None where stdin has ended."""
    text = bytearray()
    while not text.endswith(b"\n"):
        # Never past a block: what follows is for the children to read.
        block = os.read(0, HEADER_BLOCK - len(text) % HEADER_BLOCK)
        if not block:
            return None
        text += block
    header: Header = json.loads(text)
    return header


def _reply(server: ForkServer, header: Header) -> None:
    answer = server.answer(header)
    for part in answer:
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(1, rest) :]
    if bytes(answer[0][: len(_FAILED)]) == _FAILED:
        os._exit(0)
