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
    ("x86_64", "program"): "fc0812d40fe09e314ba36d494ccf5149e18c723ea2dd3119ab810843ecefcd7a",
    ("x86_64", "compiled"): "ab43cb2e8c9ebce40eba50eb25a3ae73c6b13b5ff9493cc271f328979b1512eb",
    ("x86_64", "command"): "9e0e96b2d4c8f3b271c4b7f9f609f7793daf9c7d85f10808ae6f6c1c069e99d2",
    ("aarch64", "program"): "b5433a42dfbd23d74ca19ef5d3ee9e78bc22e82eb099a2bb627683a52b3c24c5",
    ("aarch64", "compiled"): "fe70067f6b9ac1f905ae3721168f0d0f181224b19d6cb857bd8de99f335af9a6",
    ("aarch64", "command"): "44bb9b33010c3c07fa321d162614f130d9d5ed4537e2d0f4fa54130a9e3ed1b8",
}
"""SHA-256 of each filter's bytes, as they were when its numbers had no names (commit 8dfcfae)."""
OPTIONS = {"program": PROGRAM, "compiled": COMPILED, "command": COMMAND}

# Names of the instructions, from linux/bpf_common.h.
LOAD, IF_EQUAL, IF_AT_LEAST, IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
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
DECISIONS = {
    "program": {
        ALLOW: [
            (READ,),
            (CLONE, CLONE_THREAD),
            (PRCTL, PR_SET_NAME),
            (PRLIMIT64, 0),
            (FCNTL, 0, F_SETFL),
        ],
        EPERM: [
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
        ],
        EPERM: [
            (SOCKET, AF_INET),
            (MOUNT,),
            (UNSHARE,),
            (CLONE, CLONE_NEWUSER | SIGCHLD),
            (PRCTL, PR_SET_DUMPABLE),
            (X32_FORK,),
        ],
        ENOSYS: [(CLONE3,)],
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
