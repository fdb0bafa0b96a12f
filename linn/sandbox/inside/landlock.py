"""Landlock: rules of the kernel about which files a process may reach, whatever its user may.

This file runs inside the sandbox. Numbers are those of linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from . import kernel

TYPE_CHECKING = False  # importing typing costs every command's start
if TYPE_CHECKING:
    from collections.abc import Sequence

SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin")
"""Folders of the system's programs and libraries."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

# Call numbers, the same on every machine.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_GET_VERSION = 1
_RULE_PATH_BENEATH = 1
_RULE = struct.Struct("=Qi")
"""struct landlock_path_beneath_attr: access, and the descriptor of a path."""

# LANDLOCK_ACCESS_FS_*
_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_FIRST_VERSION = (1 << 13) - 1
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_READ = _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
"""What can be allowed for a file; the rest is for folders."""
_BIND_AND_CONNECT_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


def loaders() -> list[str]:
    """The programs that start every other: the kernel itself executes them."""
    paths = []
    for folder in ("/lib64", "/lib"):
        if not os.path.isdir(folder):
            continue
        for name in os.listdir(folder):
            if name.startswith("ld-") and ".so." in name:
                paths.append(f"{folder}/{name}")
    return paths


class Rules:
    """Which files may be reached: at and below certain paths only.

    TCP is refused. Where the kernel knows how, signals and abstract sockets to others are refused
    too. Paths that are not there are left out.
    """

    def __init__(
        self,
        readable: Sequence[str],
        writable: Sequence[str],
        executable: Sequence[str] | None = None,
    ) -> None:
        """`executable`: the only files that may be executed; None: all of these paths."""
        self._version = kernel.libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION)
        self._every = _every_access(self._version)
        if executable is None:
            read, self._write = _READ | _EXECUTE, self._every
        else:
            read, self._write = _READ, self._every & ~_EXECUTE

        # A path that is named twice has the access that is named last.
        access_of = {
            **dict.fromkeys(executable or (), _READ | _EXECUTE),
            **dict.fromkeys(readable, read),
            **dict.fromkeys(writable, self._write),
        }
        self._rules: list[bytes] = []
        for path, access in access_of.items():
            try:
                self._rules.append(_rule(path, access))
            except FileNotFoundError:
                continue

    def ruleset(self, *writable: str) -> int:
        """A descriptor of these rules and of further writable folders.

        Returns -1 where the kernel has no Landlock.
        """
        if self._version < 1:
            return -1
        ruleset = _ruleset(self._version, self._every)
        further = [_rule(path, self._write) for path in writable]
        for rule in (*self._rules, *further):
            result = kernel.libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
            kernel.require(result == 0, "landlock_add_rule")
        for rule in further:
            os.close(_RULE.unpack(rule)[1])
        return ruleset


def _every_access(version: int) -> int:
    """All kinds of access to files that this kernel knows. What a rule set names is refused."""
    every = _FIRST_VERSION
    if version >= 2:
        every |= _REFER
    if version >= 3:
        every |= _TRUNCATE
    return every


def _ruleset(version: int, every: int) -> int:
    """A new rule set (struct landlock_ruleset_attr) that allows nothing yet."""
    # An older kernel refuses attributes that are longer than those it knows.
    words = [every]
    if version >= 4:
        words.append(_BIND_AND_CONNECT_TCP)
    if version >= 6:
        words.append(_ABSTRACT_SOCKETS_AND_SIGNALS)

    attributes = struct.pack(f"{len(words)}Q", *words)
    size = ctypes.c_size_t(len(attributes))
    ruleset = int(kernel.libc.syscall(_CREATE_RULESET, attributes, size, 0))
    kernel.require(ruleset >= 0, "landlock_create_ruleset")
    return ruleset


def _rule(path: str, access: int) -> bytes:
    """A rule for a file, or a folder with all below; it holds an open descriptor of the path."""
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not stat.S_ISDIR(os.fstat(handle).st_mode):
        access &= _OF_FILES  # the kernel refuses a rule that gives a file what is for folders
    return _RULE.pack(access, handle)


def confine(ruleset: int) -> None:
    """Put this process, its threads to come and its forks under a rule set for good."""
    if ruleset >= 0:
        kernel.gain_no_privileges()
        result = kernel.libc.syscall(_RESTRICT_SELF, ruleset, 0)
        kernel.require(result == 0, "landlock_restrict_self")
