"""The system-call filter: byte for byte the one that was reviewed, and what may start it."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from linn.sandbox.inside import kernel
from linn.sandbox.inside.child import IMAGE

PROGRAM: dict[str, int] = {}
COMPILED = {"image": IMAGE}
COMMAND = {"processes": True}
GOLDEN = {
    ("x86_64", "program"): ("da7b375659c37961ed9a681c57e4b2f092beb1217efd9a0b616c95713640f8a2"),
    ("x86_64", "compiled"): ("be23dec30e251895112197a22babb663fd19bdc2983f2bb0c7a7f7843de6cebf"),
    ("x86_64", "command"): ("caa26469d35460bea0b8710eea533b577b4e50ebbcdcbd6a43639aa3b5c55b97"),
    ("x86_64", "program among others"): (
        "504f31c950c660c19ea5053b9dd7a002bde1df9784ea70884ab3b45746c9734a"
    ),
    ("x86_64", "command among others"): (
        "7ca2336d3c18ec95f82faed12a9cd020a40fc116dd87e33334601918d43e8e91"
    ),
    ("aarch64", "program"): ("56508d2ec63db8f14e398f6d1b9d2c7103ddb3a33dae3b06e092ca0176db1b6a"),
    ("aarch64", "compiled"): ("dea94710f95de979e97b1bd2127bcd86029bbade4684e3c4015a618c84ae2680"),
    ("aarch64", "command"): ("ab436fc27068cc86eb30b459ca824e7b9852a58cac186ce4b1b5ac8135c42903"),
    ("aarch64", "program among others"): (
        "7752e702dd6e8250087716a5dbef194ec42539cd58bd55a9d13acf54ce27ffbc"
    ),
    ("aarch64", "command among others"): (
        "5398ee56bb94ac43ca84ccb030afe2c0b0bbeed4b3df368961a94123f5885446"
    ),
}
"""SHA-256 of each filter's bytes, as they were last reviewed."""
OPTIONS = {
    "program": PROGRAM,
    "compiled": COMPILED,
    "command": COMMAND,
    "program among others": {"among_others": True},
    "command among others": {"processes": True, "among_others": True},
}

# Names of the instructions, from linux/bpf_common.h.
LOAD, IF_EQUAL, IF_AT_LEAST, IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EOPNOTSUPP = 0x50001, 0x50026, 0x5005F
AUDIT_ARCH_X86_64 = 0xC000003E


def decide(code: bytes, number: int, *arguments: int, machine: int = AUDIT_ARCH_X86_64) -> int:
    """What a filter decides of a call, by the machine of the kernel's documentation."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, machine, 0, *padded)
    instructions = list(struct.iter_unpack("HBBI", code))
    register = position = 0
    while True:
        operation, if_true, if_false, constant = instructions[position]
        position += 1
        if operation == LOAD:
            (register,) = struct.unpack_from("<I", data, constant)
        elif operation == RETURN:
            return int(constant)
        else:
            holds = {
                IF_EQUAL: register == constant,
                IF_AT_LEAST: register >= constant,
                IF_ANY_BIT: bool(register & constant),
            }[operation]
            position += if_true if holds else if_false


def filter_of(monkeypatch: pytest.MonkeyPatch, machine: str, kind: str) -> bytes:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    return kernel.program_filter(**OPTIONS[kind])


@pytest.mark.parametrize(("machine", "kind"), GOLDEN)
def test_the_bytes_are_those_that_were_reviewed(
    machine: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = filter_of(monkeypatch, machine, kind)
    assert hashlib.sha256(code).hexdigest() == GOLDEN[machine, kind]


def test_a_machine_whose_calls_are_not_known_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert filter_of(monkeypatch, "riscv64", "program") == b""


# Call numbers on x86_64, from the kernel's syscall_64.tbl.
READ, FORK, KILL_CALL, EXECVE, EXECVEAT, SOCKET, MOUNT, UNSHARE = 0, 57, 62, 59, 322, 41, 165, 272
CLONE, CLONE3, PRCTL, PRLIMIT64, FCNTL, IOCTL = 56, 435, 157, 302, 72, 16
CLONE_THREAD, CLONE_NEWUSER, SIGCHLD = 0x10000, 0x10000000, 17
X32_FORK = 0x40000000 + FORK
AF_UNIX, AF_INET = 1, 2
F_SETOWN, F_SETFL, FIOSETOWN = 8, 4, 0x8901
PR_SET_DUMPABLE, PR_SET_NAME = 4, 15
CHMOD, UTIMENSAT, SETXATTR, SYSLOG, SOCKETPAIR, FALLOCATE = 90, 280, 188, 103, 53, 285
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_CLOEXEC = 1, 2, 3, 5, 0o2000000
DECISIONS = {
    "program": {
        ALLOW: [
            (READ,),
            (CLONE, CLONE_THREAD),
            (PRCTL, PR_SET_NAME),
            (PRLIMIT64, 0),
            (FCNTL, 0, F_SETFL),
            (CHMOD,),
            (FALLOCATE,),
            (SOCKETPAIR, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC),
            (SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET),
        ],
        EPERM: [
            (SETXATTR,),
            (SYSLOG,),
            (SOCKETPAIR, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC),
            (SOCKETPAIR, AF_UNIX, SOCK_RAW),
            (FORK,),
            (KILL_CALL,),
            (EXECVE,),
            (EXECVEAT, IMAGE),
            (SOCKET, AF_UNIX),
            (MOUNT,),
            (UNSHARE,),
            (CLONE, SIGCHLD),
            (PRCTL, PR_SET_DUMPABLE),
            (PRLIMIT64, 1),
            (X32_FORK,),
            (FCNTL, 0, F_SETOWN),
            (IOCTL, 0, FIOSETOWN),
        ],
        ENOSYS: [(CLONE3,)],
    },
    "compiled": {
        ALLOW: [(READ,), (CLONE, CLONE_THREAD), (EXECVEAT, IMAGE)],
        EPERM: [(FORK,), (EXECVE,), (EXECVEAT, IMAGE + 1), (EXECVEAT, 3), (CLONE, SIGCHLD)],
        ENOSYS: [(CLONE3,)],
    },
    "command": {
        ALLOW: [
            (READ,),
            (FORK,),
            (KILL_CALL,),
            (EXECVE,),
            (CLONE, SIGCHLD),
            (SOCKET, AF_UNIX),
            (PRLIMIT64, 1),
            (FCNTL, 0, F_SETOWN),
            (CHMOD,),
            (SOCKETPAIR, AF_UNIX, SOCK_DGRAM),
        ],
        EPERM: [
            (SETXATTR,),
            (SOCKET, AF_INET),
            (MOUNT,),
            (UNSHARE,),
            (CLONE, CLONE_NEWUSER | SIGCHLD),
            (PRCTL, PR_SET_DUMPABLE),
            (X32_FORK,),
        ],
        ENOSYS: [(CLONE3,)],
    },
    "program among others": {
        ALLOW: [(READ,), (FALLOCATE,), (SOCKETPAIR, AF_UNIX, SOCK_STREAM)],
        EPERM: [(CHMOD,), (UTIMENSAT,), (SOCKET, AF_UNIX), (FORK,)],
    },
    "command among others": {
        ALLOW: [(READ,), (FORK,), (CHMOD,), (SOCKETPAIR, AF_UNIX, SOCK_STREAM)],
        EPERM: [(SOCKET, AF_UNIX), (SOCKETPAIR, AF_UNIX, SOCK_DGRAM)],
        EOPNOTSUPP: [(FALLOCATE,)],
    },
}


@pytest.mark.parametrize("kind", DECISIONS)
def test_what_it_decides(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = filter_of(monkeypatch, "x86_64", kind)
    for decision, calls in DECISIONS[kind].items():
        for number, *arguments in calls:
            assert decide(code, number, *arguments) == decision, (number, arguments)
    assert decide(code, READ, machine=0x40000003) == KILL, "another machine's numbers"


SMALL = (
    "__future__ ctypes enum errno marshal os resource select signal stat struct sys time".split()
)


def test_a_supervisor_imports_little() -> None:
    """Each command of a workspace pays for these imports."""
    package = Path(kernel.__file__).parents[1]
    text = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        f"import {', '.join(SMALL)}\n"
        "before = set(sys.modules)\n"
        "import inside.supervisor\n"
        "print(*sorted(name for name in set(sys.modules) - before if '.' not in name))"
    )
    words = [sys.executable, "-I", "-S", "-B", "-c", text, str(package)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["inside"]
