"""What a forked child does before and around a program: reads its bodies, settles, works.

This file runs inside the sandbox. Settling means to give up everything a program must not have.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import json
import math
import os
import random
import resource
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from . import check, kernel, landlock, program
from .watch import Header

IMAGE = 900
"""Descriptor of a compiled program that waits to be executed.

It is above the limit of open files, so that a program cannot put another there.
"""
READY = b"r"
"""What a child says when it has settled."""
_NOT_SETTLED, _NOT_WORKED = 70, 71
"""Exit codes of a child of ours that failed."""

_OPEN_FILES = 64
_LAST_DESCRIPTOR = 1024
_BEFORE_SECONDS = 0.1
_LARGEST_STACK = 256 << 20
_LINES = 3
"""Descriptor by which functions and scripts report, a line each."""
_PROGRAM_CALLS, _PROGRAM_ANSWERS = 3, 4
_TEST_LINES, _TEST_CALLS, _TEST_ANSWERS = 3, 4, 5
"""Descriptors of the two sides of a check."""

# fcntl(2), linux/fcntl.h: a sealed file in memory cannot change any more.
_F_ADD_SEALS = 1033
_F_SEAL_EVERYTHING = 0xF  # against sealing, shrinking, growing and writing


Bodies = list[bytes]
"""What follows the header: a job, a program's text, its stdin."""


class Place(NamedTuple):
    """What every child of a server settles by."""

    server: int
    """Process id of the server."""
    uid: int
    """The programs' own user; 0: none."""
    alone: bool
    """Whether the server is the first of a process space, so that all others are programs'."""
    scratch: str
    """The folder that a program may write to."""
    rules: int
    """Descriptor of the Landlock rules; -1: none."""
    filters: Mapping[bool, kernel.Filter]
    """System-call filters, by whether a compiled program is to be executed."""
    library: Sequence[int]
    """Descriptors of the standard library that stay open."""


class Task(NamedTuple):
    """What one child is to do."""

    sizes: Sequence[int]
    """Bytes of each body that it reads from stdin."""
    work: Callable[[Bodies], None]
    """What it does with the bodies."""
    descriptors: Mapping[int, int]
    """What it keeps of this process: number in the child -> number here."""
    files: Mapping[int, int]
    """Files in memory: number in the child -> which body is the content."""


def be_child(place: Place, header: Header, task: Task, ready: int) -> NoReturn:
    """Read the bodies, settle, say so on the descriptor `ready`, work; never come back."""
    code = _NOT_SETTLED
    try:
        try:
            # Read before anything is given up: stdin is the server's.
            bodies = [_exactly(0, size) for size in task.sizes]

            null = os.open("/dev/null", os.O_RDWR)
            sources = {0: null, 1: null, 2: null, **task.descriptors}
            for number, index in task.files.items():
                sources[number] = _sealed_file(bodies[index])
            # The files hold these now; the heap need not.
            for index in task.files.values():
                bodies[index] = b""

            # First out of the way, then each to its place.
            ready = _above(ready)
            descriptors = {number: _above(fd) for number, fd in sources.items()}
            _settle(place, header, descriptors, ready)

        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            os.write(ready, message[:900].encode("utf-8", "replace"))
            raise

        os.write(ready, READY)
        os.close(ready)

        code = _NOT_WORKED
        # A fork seeds anew, but the outcome must be a function of the program's text.
        random.seed(0)
        task.work(bodies)
        code = 0
    finally:
        os._exit(code)


def _settle(place: Place, header: Header, descriptors: dict[int, int], ready: int) -> None:
    """Give up everything a program must not have.

    `descriptors`: number that the program will use -> number now, all above 20.
    """
    # Counted while /proc can still be read.
    others = 0 if place.uid or place.alone else _threads_of(os.geteuid())

    os.setsid()
    landlock.confine(place.rules)
    for number, source in descriptors.items():
        os.dup2(source, number, inheritable=number != IMAGE)

    os.chdir(place.scratch)
    os.umask(0o077)
    _close_all_but({*descriptors, *place.library, ready})
    _set_limits(header, others)

    if place.uid:
        os.setgroups([])
        os.setresgid(place.uid, place.uid, place.uid)
        os.setresuid(place.uid, place.uid, place.uid)  # all capabilities go with it
    else:
        kernel.drop_capabilities()

    kernel.die_with_parent()  # now, since a change of user takes it back
    if os.getppid() != place.server:
        os._exit(_NOT_SETTLED)  # the server ended before that

    kernel.hide_memory()
    place.filters[IMAGE in descriptors].install()


def _close_all_but(descriptors: set[int]) -> None:
    bounds = sorted({-1, *descriptors, _LAST_DESCRIPTOR})
    for low, high in itertools.pairwise(bounds):
        if low + 1 < high:
            os.closerange(low + 1, high)


def _set_limits(header: Header, others: int) -> None:
    """Set the kernel's limits. `others`: threads of the same user that are not the program's."""
    memory, answers = int(header["memory"]), int(header["answers"])
    stack = min(memory // 2, _LARGEST_STACK)
    threads = int(header["threads"]) + 1 + others

    # The watch ends each answer by its own limit; the kernel only knows the sum, in whole seconds,
    # and counts what this process did before the program too.
    cpu = math.ceil(float(header["cpu"]) * answers + _BEFORE_SECONDS)
    limits = (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_STACK, stack),
        (resource.RLIMIT_FSIZE, int(header["file"])),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, threads),
    )
    for what, limit in limits:
        resource.setrlimit(what, (limit, limit))


def _threads_of(uid: int) -> int:
    """How many threads a user has, where programs run as that user.

    The system counts them all together.
    """
    count = 0
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended
    return count


def _above(fd: int) -> int:
    """A copy of `fd` numbered 30 or more.

    So putting descriptors in place overwrites none that is still needed.
    """
    return fcntl.fcntl(fd, fcntl.F_DUPFD, 30)


def _sealed_file(data: bytes) -> int:
    """A descriptor of a file in memory that nobody can change any more, at its start."""
    fd = os.memfd_create("", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_EVERYTHING)
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


# ------------------------------------------------------------ tasks


def call_task(sizes: Sequence[int], lines: int) -> Task:
    """Call functions of a program; one body: the job."""
    return Task(sizes, _call, descriptors={_LINES: lines}, files={})


def script_task(sizes: Sequence[int], lines: int, stdout: int, stderr: int, prelude: bool) -> Task:
    """Run a Python program; two bodies: its text, and its stdin."""
    work = functools.partial(_script, prelude=prelude)
    descriptors = {1: stdout, 2: stderr, _LINES: lines}
    return Task(sizes, work, descriptors, files={0: 1})


def binary_task(sizes: Sequence[int], stdout: int, stderr: int) -> Task:
    """Execute machine code; two bodies: the code, and its stdin."""
    descriptors = {1: stdout, 2: stderr}
    return Task(sizes, _execute, descriptors, files={IMAGE: 0, 0: 1})


def program_task(sizes: Sequence[int], calls: int, answers: int, cap: int) -> Task:
    """Hold the program of a check; one body: the job. `cap`: bytes of a message."""
    descriptors = {_PROGRAM_CALLS: calls, _PROGRAM_ANSWERS: answers}
    work = functools.partial(_hold_program, cap=cap)
    return Task(sizes, work, descriptors, files={})


def test_task(sizes: Sequence[int], lines: int, calls: int, answers: int, cap: int) -> Task:
    """Run the test text of a check; one body: the job. `cap`: bytes of a message."""
    descriptors = {_TEST_LINES: lines, _TEST_CALLS: calls, _TEST_ANSWERS: answers}
    work = functools.partial(_run_test, cap=cap)
    return Task(sizes, work, descriptors, files={})


def _call(bodies: Bodies) -> None:
    program.run_calls(json.loads(bodies[0]), _LINES)


def _script(bodies: Bodies, prelude: bool) -> None:
    program.run_script(bodies[0].decode("utf-8", "surrogateescape"), _LINES, prelude)


def _execute(bodies: Bodies) -> None:
    os.execve(IMAGE, ["program"], {})


def _hold_program(bodies: Bodies, cap: int) -> None:
    job = json.loads(bodies[0])
    check.serve_program(job, _PROGRAM_CALLS, _PROGRAM_ANSWERS, cap)


def _run_test(bodies: Bodies, cap: int) -> None:
    job = json.loads(bodies[0])
    check.run_check(job, _TEST_LINES, _TEST_CALLS, _TEST_ANSWERS, cap)
