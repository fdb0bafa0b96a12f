"""The few kernel calls Python lacks: process flags, dropping capabilities, and the system-call filter of a program."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_SUBREAPER, _PR_SET_NO_NEW_PRIVS = (
    1,
    4,
    22,
    36,
    38,
)
_CLONE_THREAD = 0x10000
_CLONE_SPACES = 0x7E020000  # every flag that asks for a namespace
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | 1, 0x50000 | 38

# Names -> numbers on (x86_64, aarch64); None: the machine has no such call.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "memfd_create": (319, 279),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "mount_setattr": (442, 442),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "pidfd_getfd": (438, 438), "inotify_init": (253, None), "inotify_init1": (294, 26),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setaffinity": (203, 122),
    "sched_setparam": (142, 118), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
}  # fmt: skip
# Name -> numbers, which argument, the values of it that are refused.
_DENIED_VALUES = {
    "prctl": (
        (157, 167),
        0,
        (_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE),
    ),  # to outlive the parent, to open the memory to others
    "fcntl": ((72, 25), 1, (8, 15)),  # to let a descriptor send signals to a process
    "ioctl": ((16, 29), 1, (0x8901, 0x8902)),  # the same for a socket
}
_CLONE, _CLONE3, _PRLIMIT, _SOCKET, _EXECVEAT = (56, 220), 435, (302, 261), (41, 198), (322, 281)
_OF_PROCESSES = (
    "fork", "vfork", "execve", "execveat", "kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "setpriority",
    "sched_setscheduler", "sched_setaffinity", "sched_setparam", "sched_setattr", "ioprio_set", "inotify_init", "inotify_init1", "socket",
    "fcntl", "ioctl",
)  # fmt: skip
_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CAPS_VERSION_3 = 0x20080522
_SYSTEM = ("usr", "lib", "lib32", "lib64", "libx32", "bin", "sbin", "etc", "dev", "proc")
"""Folders of the root that a workspace command may read."""
_RULESET = 444  # landlock_create_ruleset; landlock_add_rule and landlock_restrict_self follow; the same on every machine
_EXECUTE, _READ, _OF_FILES = (
    0b1,
    0b1100,
    0x4007,
)  # execute; read a file, read a folder; of a file: execute, write, read, cut
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin")
"""Folders of the system's programs and libraries."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int, pointer: object = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), pointer, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def hide_memory() -> None:
    """Close /proc/PID/{mem,fd,environ} of this process and of its forks to processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ended."""
    _prctl(_PR_SET_SUBREAPER, 1)


def drop_capabilities() -> None:
    """Give up every capability for good; children gain none by exec either."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("Ii", _CAPS_VERSION_3, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def program_filter(processes: bool = False, image: int = 0) -> bytes:
    """Filter code: no new processes (threads stay), no exec, no signals, no sockets, none of the calls a plain program has no use for.

    `processes`: a command may start others, signal them and use sockets of its own machine, but enter no new namespace.
    `image`: the one descriptor that may be executed, a number above the limit of open files, so that nothing can be put there later.
    Empty on a machine whose call numbers are not known here; resource limits and the kill after each run then stand alone.
    """
    machine = os.uname().machine
    if machine not in _ARCH:
        return b""
    column = list(_ARCH).index(machine)
    code: list[tuple[int, int, int, int]] = [
        (0x20, 0, 0, 4),
        (0x15, 1, 0, _ARCH[machine]),
        (0x06, 0, 0, _KILL),
        (0x20, 0, 0, 0),
    ]
    code += [(0x35, 0, 1, 0x40000000), (0x06, 0, 0, _EPERM)]  # the second ABI of x86_64
    code += [
        (0x15, 0, 1, _CLONE3),
        (0x06, 0, 0, _ENOSYS),
    ]  # its flags cannot be read by a filter; the C library then uses clone
    for name, numbers in _DENIED.items():
        if (
            numbers[column] is not None
            and not (processes and name in _OF_PROCESSES)
            and not (image and name == "execveat")
        ):
            code += [(0x15, 0, 1, numbers[column] or 0), (0x06, 0, 0, _EPERM)]
    # Arguments start at offset 16 of the filter's data.
    for name, (call, argument, values) in _DENIED_VALUES.items():
        if not (processes and name in _OF_PROCESSES):
            code += [(0x15, 0, 2 * len(values) + 2, call[column]), (0x20, 0, 0, 16 + 8 * argument)]
            code += [
                line for value in values for line in ((0x15, 0, 1, value), (0x06, 0, 0, _EPERM))
            ] + [(0x20, 0, 0, 0)]
    if processes:
        # Sockets: AF_UNIX (1) only, for where there is no own network space. clone: no new namespace.
        code += [
            (0x15, 0, 3, _SOCKET[column]),
            (0x20, 0, 0, 16),
            (0x15, 1, 0, 1),
            (0x06, 0, 0, _EPERM),
            (0x20, 0, 0, 0),
        ]
        code += [
            (0x15, 0, 3, _CLONE[column]),
            (0x20, 0, 0, 16),
            (0x45, 0, 1, _CLONE_SPACES),
            (0x06, 0, 0, _EPERM),
            (0x06, 0, 0, _ALLOW),
        ]
        return b"".join(struct.pack("HBBI", *line) for line in code)
    if image:
        code += [
            (0x15, 0, 3, _EXECVEAT[column]),
            (0x20, 0, 0, 16),
            (0x15, 1, 0, image),
            (0x06, 0, 0, _EPERM),
            (0x20, 0, 0, 0),
        ]
    # Limits: of this process only. clone: allowed only for threads.
    code += [
        (0x15, 0, 3, _PRLIMIT[column]),
        (0x20, 0, 0, 16),
        (0x15, 1, 0, 0),
        (0x06, 0, 0, _EPERM),
        (0x20, 0, 0, 0),
    ]
    code += [
        (0x15, 0, 3, _CLONE[column]),
        (0x20, 0, 0, 16),
        (0x45, 1, 0, _CLONE_THREAD),
        (0x06, 0, 0, _EPERM),
        (0x06, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in code)


def install_filter(code: bytes) -> None:
    """Apply filter code to this process, its threads to come and its forks; it cannot be taken back."""
    if not code:
        return
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    text = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    )
    _prctl(_PR_SET_SECCOMP, 2, program)


def loaders() -> list[str]:
    """The programs that start every other: the kernel itself executes them."""
    folders = [folder for folder in ("/lib64", "/lib") if os.path.isdir(folder)]
    return [
        f"{folder}/{name}"
        for folder in folders
        for name in os.listdir(folder)
        if name.startswith("ld-") and ".so." in name
    ]


def confinement(
    readable: Sequence[str], writable: Sequence[str], executable: Sequence[str] | None = None
) -> int:
    """A descriptor of a Landlock rule set: files only at and below these paths, no TCP, no signals and abstract sockets to others.

    `executable`: the only files that may be executed; None: all of these. -1 where the kernel has no Landlock. Paths that are not there
    are left out.
    """
    version = _libc.syscall(_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return -1
    every = (
        (1 << 13) - 1 | (version >= 2) << 13 | (version >= 3) << 14
    )  # the kinds of access to files that this kernel knows
    parts = (every, 3, 3)[: 1 + (version >= 4) + (version >= 6)]
    rules = struct.pack(f"{len(parts)}Q", *parts)
    made = int(_libc.syscall(_RULESET, rules, ctypes.c_size_t(len(rules)), 0))
    if made < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset failed")
    read, write = (
        (_READ, every & ~_EXECUTE) if executable is not None else (_READ | _EXECUTE, every)
    )
    rules_of = {
        **dict.fromkeys(executable or (), _READ | _EXECUTE),
        **dict.fromkeys(readable, read),
        **dict.fromkeys(writable, write),
    }
    for path, access in rules_of.items():
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        allowed = access if stat.S_ISDIR(os.fstat(handle).st_mode) else access & _OF_FILES
        if _libc.syscall(_RULESET + 1, made, 1, struct.pack("=Qi", allowed, handle), 0) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule failed for {path}")
        os.close(handle)
    return made


def confine(ruleset: int) -> None:
    """Put this process, its threads to come and its forks under a rule set for good."""
    if ruleset >= 0:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if _libc.syscall(_RULESET + 2, ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self failed")


def private_tmp(folder: str, size: int) -> None:
    """Make the whole tree read-only and put an empty writable memory folder at `folder` (needs an own mount namespace)."""
    private_recursive, nosuid_nodev = 0x44000, 6
    _mount(b"none", b"/", None, private_recursive, None)
    _read_only(b"/", True)
    _mount(b"tmpfs", folder.encode(), b"tmpfs", nosuid_nodev, f"size={size},mode=777".encode())


def bind(source: str, target: str) -> None:
    """Show the folder `source` at `target` too (needs an own mount namespace)."""
    bind_recursive = 0x5000
    _mount(source.encode(), target.encode(), None, bind_recursive, None)


def _mount(
    source: bytes, target: bytes, kind: bytes | None, flags: int, options: bytes | None
) -> None:
    if _libc.mount(source, target, kind, ctypes.c_ulong(flags), options) != 0:
        raise OSError(ctypes.get_errno(), f"mounting {target.decode()} failed")


def workspace_mounts(
    folder: str,
    target: str,
    size: int,
    hidden: tuple[str, ...],
    prefixes: tuple[str, ...],
    readable: tuple[str, ...],
) -> None:
    """Leave the system's folders, read-only, and an own /tmp of `size` bytes in which `folder` stands at `target`, writable (own mount namespace).

    Over all other folders of the root and the `hidden` ones an empty one is put. `prefixes` and `readable` folders stay within reach of every
    user: where a parent of one is hidden or shut to others, an empty folder is put over it and the one wanted is shown in it.
    """
    shown = (*prefixes, *readable)
    handles = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (folder, *shown)}
    shut = {
        f"/{name}"
        for name in os.listdir("/")
        if name not in _SYSTEM and stat.S_ISDIR(os.lstat(f"/{name}").st_mode)
    }
    for path in shown:
        parts = path.split("/")
        parents = ["/".join(parts[:count]) for count in range(2, len(parts))]
        shut |= set(
            [parent for parent in parents if parent in shut or not os.stat(parent).st_mode & 1][:1]
        )
    _mount(b"none", b"/", None, 0x44000, None)  # private, with all below
    shut = {
        path for path in shut if not any(path.startswith(parent + "/") for parent in shut)
    }  # one below another is covered already
    for parent in sorted(shut):
        mode = "1777" if parent == "/tmp" else "755"
        _mount(
            b"tmpfs", parent.encode(), b"tmpfs", 6, f"size={size},mode={mode}".encode()
        )  # no set-user-id, no devices
    for path in dict.fromkeys(shown):
        if any(
            (path + "/").startswith(parent + "/")
            for parent in (*shut, *(hidden if path in readable else ()))
        ):
            os.makedirs(path, mode=0o755, exist_ok=True)
            bind(f"/proc/self/fd/{handles[path]}", path)
        if path == prefixes[-1]:
            for empty in hidden:
                _mount(b"tmpfs", empty.encode(), b"tmpfs", 6, b"size=1m,mode=755")
    _read_only(b"/", True)
    _read_only(b"/tmp", False)
    os.makedirs(target)
    bind(f"/proc/self/fd/{handles[folder]}", target)
    _read_only(target.encode(), False)
    for handle in handles.values():
        os.close(handle)


def _read_only(path: bytes, whether: bool) -> None:
    """Set or lift the mark of a mount; set, it reaches every mount below."""
    attributes = struct.pack("QQQQ", 1 if whether else 0, 0 if whether else 1, 0, 0)
    if (
        _libc.syscall(
            442, -100, path, 0x8000 if whether else 0, attributes, ctypes.c_size_t(len(attributes))
        )
        != 0
    ):
        raise OSError(ctypes.get_errno(), f"remounting {path.decode()} failed")
