"""The kernel calls that Python lacks for a process: flags, capabilities, the system-call filter.

This file runs inside the sandbox, at the start of every command: it imports little.
Numbers are those of the kernel's headers, which each block names.
"""

from __future__ import annotations

import ctypes
import os
import struct

# prctl(2), linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2
_SIGKILL = 9

# capset(2), linux/capability.h
_CAPABILITY_VERSION_3 = 0x20080522
_NO_CAPABILITIES = bytes(24)
"""Two sets of three words each: effective, permitted and inheritable, all empty."""

libc = ctypes.CDLL(None, use_errno=True)


def require(success: bool, what: str) -> None:
    """Raise the C library's last error as `{what} failed`, unless the call was a success."""
    if not success:
        raise OSError(ctypes.get_errno(), f"{what} failed")


def _prctl(option: int, value: int, pointer: object = 0) -> None:
    result = libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0)
    require(result == 0, f"prctl({option})")


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def hide_memory() -> None:
    """Close /proc/PID/{mem,fd,environ} of this process and its forks to the same user's others."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def gain_no_privileges() -> None:
    """Let no `exec` of this process or its children gain a privilege, for good."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability for good; children gain none by exec either."""
    gain_no_privileges()
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    require(libc.capset(header, _NO_CAPABILITIES) == 0, "capset")


# ------------------------------------------------------------ the system-call filter

# The filter is a program of the kernel's classic BPF machine: linux/bpf_common.h, linux/filter.h.
# The machine has one register. A jump skips as many instructions as the field says: the second
# field if the test holds, the third if it does not.
_INSTRUCTION = struct.Struct("HBBI")
"""What to do, instructions to skip if true, instructions to skip if false, constant."""
_LOAD = 0x20
"""BPF_LD | BPF_W | BPF_ABS: the register becomes the word at this offset of the call's data."""
_IF_EQUAL = 0x15
"""BPF_JMP | BPF_JEQ | BPF_K: whether the register equals the constant."""
_IF_AT_LEAST = 0x35
"""BPF_JMP | BPF_JGE | BPF_K: whether the register is at least the constant."""
_IF_ANY_BIT = 0x45
"""BPF_JMP | BPF_JSET | BPF_K: whether the register and the constant share a bit."""
_RETURN = 0x06
"""BPF_RET | BPF_K: the filter ends with this decision."""

# struct seccomp_data, linux/seccomp.h: where a call's data lies.
_CALL_NUMBER = 0
_MACHINE = 4
_ARGUMENTS = 16
_ARGUMENT_BYTES = 8

# Decisions, linux/seccomp.h. SECCOMP_RET_ERRNO carries the error in its low bits.
_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_EPERM = 1
_ENOSYS = 38
_EOPNOTSUPP = 95

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""linux/audit.h: by the name that uname gives. Call tables have their columns in this order."""
_X32_BIT = 0x40000000
"""Calls of the second ABI of x86_64 have numbers from here on."""

_DENIED: dict[str, tuple[int | None, int | None]] = {
    # new processes and programs
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    # other machines, other processes' memory
    "socket": (41, 198),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    # memory and messages that no limit counts, or that outlive the process
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # notes on files, which the next program could read
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    # parts of the kernel that a plain program has no use for
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "pidfd_getfd": (438, 438),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "landlock_create_ruleset": (444, 444),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "open_by_handle_at": (304, 265),
    # the kernel's log, where a crash leaves addresses that the program chose
    "syslog": (103, 116),
    # signals to other processes, and their share of the processor
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
}
"""Calls that are refused: name -> numbers on (x86_64, aarch64); None: the machine has none."""

_OF_OTHERS_FILES: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "file_setattr": (469, 469),
}
"""What Landlock leaves to the owner of a file, wherever it stands: numbers as above."""

_F_SETOWN, _F_SETOWN_EX = 8, 15
_F_NOTIFY = 1026
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
_FS_IOC_SETFLAGS, _FS_IOC_FSSETXATTR = 0x40086602, 0x401C5820
_DENIED_VALUES = {
    # to outlive the parent; to open the memory to others
    "prctl": ((157, 167), 0, (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE)),
    # to let a descriptor send signals to a process; to hear of what others read
    "fcntl": ((72, 25), 1, (_F_SETOWN, _F_SETOWN_EX, _F_NOTIFY)),
    # the same for a socket; flags of files
    "ioctl": ((16, 29), 1, (_FIOSETOWN, _SIOCSPGRP, _FS_IOC_SETFLAGS, _FS_IOC_FSSETXATTR)),
}
"""Calls that some values are refused to: name -> numbers, which argument, which values."""

_ALLOWED_WITH_PROCESSES = frozenset(
    "fork vfork execve execveat kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo "
    "pidfd_send_signal setpriority sched_setscheduler sched_setaffinity sched_setparam "
    "sched_setattr ioprio_set inotify_init inotify_init1 landlock_create_ruleset socket fcntl "
    "ioctl".split()
)
"""What the tables above leave to a command that may start processes."""

# Calls that are looked at more closely: numbers on (x86_64, aarch64).
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_EXECVEAT = (322, 281)
_PRLIMIT64 = (302, 261)
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_FALLOCATE = (285, 47)
_AF_UNIX = 1
_SOCK_DGRAM = 2
"""Also a bit of SOCK_RAW, which is the same for AF_UNIX, and of no other type."""
_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020000
"""Every flag of clone that asks for a namespace: CLONE_NEWNS, CLONE_NEWCGROUP … CLONE_NEWNET."""


Instruction = tuple[int, int, int, int]


def _load_argument(index: int) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS + _ARGUMENT_BYTES * index)


_LOAD_CALL_NUMBER = (_LOAD, 0, 0, _CALL_NUMBER)
_REFUSE = (_RETURN, 0, 0, _ERRNO | _EPERM)


def _for_call(number: int, *body: Instruction) -> list[Instruction]:
    """Instructions that run for this call only; the register must hold the call's number."""
    return [(_IF_EQUAL, 0, len(body), number), *body]


def _right_machine(machine: str) -> list[Instruction]:
    """Kill a process that calls the kernel by another machine's numbers."""
    return [
        (_LOAD, 0, 0, _MACHINE),
        (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        _LOAD_CALL_NUMBER,
        (_IF_AT_LEAST, 0, 1, _X32_BIT),
        _REFUSE,
    ]


def _denied(column: int, allowed: frozenset[str], of_owner: bool) -> list[Instruction]:
    """Refuse the calls and the values of the tables above, except those `allowed`.

    `of_owner`: those that the owner of a file may use on it too.
    """
    code = []
    calls = {**_DENIED, **_OF_OTHERS_FILES} if of_owner else _DENIED
    for name, numbers in calls.items():
        number = numbers[column]  # None where this machine has no such call
        if number is not None and name not in allowed:
            code += _for_call(number, _REFUSE)

    for name, (numbers, argument, values) in _DENIED_VALUES.items():
        if name in allowed:
            continue

        # Each value has a test of its own; past them the number is loaded for the next call.
        tests = []
        for value in values:
            tests += [(_IF_EQUAL, 0, 1, value), _REFUSE]
        body = (_load_argument(argument), *tests, _LOAD_CALL_NUMBER)
        code += _for_call(numbers[column], *body)
    return code


def _only_first_argument(number: int, value: int) -> list[Instruction]:
    """Refuse a call whose first argument is not this one."""
    is_value = (_IF_EQUAL, 1, 0, value)
    return [*_for_call(number, _load_argument(0), is_value, _REFUSE), _LOAD_CALL_NUMBER]


def program_filter(processes: bool = False, image: int = 0, among_others: bool = False) -> bytes:
    """Filter code for a program, or for a command that may start others.

    A program gets no new processes (threads stay), no exec, no signals, no sockets but pairs of
    connected ones, and none of the calls that a plain program has no use for. Empty on a machine
    whose call numbers are not known here: resource limits and the kill after each run then stand
    alone.

    `processes`: a command may start others, signal them and use sockets of its own machine, but
    enter no new namespace. `image`: the one descriptor that may be executed. It is a number above
    the limit of open files, so that nothing can be put there later. `among_others`: it sees the
    files and sockets of this machine's users. A program then changes no mode, owner or time of a
    file; a command connects to nobody, and takes no room on a disk without writing.
    """
    machine = os.uname().machine
    if machine not in _AUDIT_ARCH:
        return b""
    column = list(_AUDIT_ARCH).index(machine)
    allowed = frozenset[str]()
    if processes:
        allowed = _ALLOWED_WITH_PROCESSES
    elif image:
        allowed = frozenset({"execveat"})

    code = _right_machine(machine)
    # The flags of clone3 lie in memory, where a filter cannot read them. Told that there is no
    # such call, the C library uses clone.
    code += _for_call(_CLONE3[column], (_RETURN, 0, 0, _ERRNO | _ENOSYS))
    code += _denied(column, allowed, of_owner=among_others and not processes)

    if processes:
        code += _for_command(column, among_others)
        clone_test = (_IF_ANY_BIT, 0, 1, _CLONE_NAMESPACES)
    else:
        if image:
            code += _only_first_argument(_EXECVEAT[column], image)
        code += _only_connected_pairs(_SOCKETPAIR[column])
        # Limits of this process only (PID 0), and clone for threads only.
        code += _only_first_argument(_PRLIMIT64[column], 0)
        clone_test = (_IF_ANY_BIT, 1, 0, _CLONE_THREAD)
    code += _for_call(_CLONE[column], _load_argument(0), clone_test, _REFUSE)
    code += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def _for_command(column: int, among_others: bool) -> list[Instruction]:
    """What a command may not do that may start others."""
    if not among_others:
        return _only_first_argument(_SOCKET[column], _AF_UNIX)
    # Told that the file system cannot, the C library writes instead, and writing is counted.
    cannot = (_RETURN, 0, 0, _ERRNO | _EOPNOTSUPP)
    return [
        *_for_call(_SOCKET[column], _REFUSE),
        *_only_connected_pairs(_SOCKETPAIR[column]),
        *_for_call(_FALLOCATE[column], cannot),
    ]


def _only_connected_pairs(number: int) -> list[Instruction]:
    """Refuse pairs of sockets that carry datagrams: such a one can send to any other socket."""
    has_datagrams = (_IF_ANY_BIT, 0, 1, _SOCK_DGRAM)
    return [*_for_call(number, _load_argument(1), has_datagrams, _REFUSE), _LOAD_CALL_NUMBER]


class Filter:
    """Filter code as the kernel reads it; where there is none, nothing is filtered.

    It is made once before forks: making it in each child would cost more than to install it.
    """

    def __init__(self, code: bytes) -> None:
        """`code`: see `program_filter`."""
        self._instructions = ctypes.create_string_buffer(code, len(code))
        # struct sock_fprog: the count of instructions, and a pointer to them.
        count = len(code) // _INSTRUCTION.size
        program = struct.pack("HxxxxxxP", count, ctypes.addressof(self._instructions))
        self._program = ctypes.create_string_buffer(program)
        self._is_empty = not code

    def install(self) -> None:
        """Apply it to this process, its threads to come and its forks, for good."""
        if self._is_empty:
            return
        gain_no_privileges()
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._program)


def install_filter(code: bytes) -> None:
    """Apply filter code to this process, its threads to come and its forks, for good."""
    Filter(code).install()
