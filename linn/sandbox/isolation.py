"""How untrusted code is started: the strongest isolation this machine offers, from bubblewrap down to resource limits alone."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from linn.sandbox.inside.supervisor import WORK

_INSIDE = Path(__file__).parent / "inside"
_USERS = 512
"""User ids of each kind that a linn process has for itself: more than it runs servers."""
_FIRST_UID, _FIRST_WORKSPACE_UID = 0x40000000, 0x60000000
_server, _workspace = itertools.count(), itertools.count()


def _start(kind: str, package: str, uid: int, scratch: str, size: int) -> tuple[str, ...]:
    text = f"import sys; sys.path.insert(0, {package!r}); from inside.server import main; main(*sys.argv[1:])"
    return (python(), "-s", "-S", "-B", "-c", text, kind, str(uid), scratch, str(size))


def python() -> str:
    """The interpreter itself, not a virtual environment's link to it: programs get the standard library only."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    inner = Path(sys.base_prefix) / "bin" / version
    return str(inner.resolve() if inner.exists() else Path(sys.executable).resolve())


def _uid(first: int, index: int) -> int:
    """Where we are root: a user of its own for each server, so process limits count its programs only. 0: none, or none of its own here."""
    uid = first + (os.getpid() % (1 << 20)) * _USERS + index % _USERS
    with open(
        "/proc/self/uid_map"
    ) as lines:  # a container's root may have few users, or itself alone
        spans = [list(map(int, line.split())) for line in lines]
    return (
        uid
        if os.geteuid() == 0 and any(begin <= uid < begin + count for begin, _, count in spans)
        else 0
    )


def _bwrap(tool: str, capabilities: Sequence[str]) -> list[str]:
    """Everything but what is writable: own process, network and message spaces, and a read-only system."""
    command = [tool, "--die-with-parent", "--new-session", "--as-pid-1"]
    command += ["--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--setenv", "LC_ALL", "C.UTF-8"]
    command += [
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
        "--unshare-cgroup-try",
    ]
    command += ["--cap-drop", "ALL"] if os.geteuid() == 0 else ["--unshare-user"]
    for capability in capabilities:
        command += ["--cap-add", capability]
    for folder in ("/usr", "/lib", "/lib64", "/lib32", "/bin"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    for folder in {sys.base_prefix, sys.base_exec_prefix}:
        if not folder.startswith("/usr"):
            command += _bound(folder)
    command += ["--ro-bind", str(_INSIDE), "/package/inside", "--proc", "/proc", "--dev", "/dev"]
    return command


def _bound(folder: str) -> list[str]:
    parents: list[str] = []
    for parent in list(Path(folder).parents)[-2::-1]:
        parents += [
            "--perms",
            "0755",
            "--dir",
            str(parent),
        ]  # bwrap would copy their modes, which may shut our users out
    return [*parents, "--ro-bind", folder, folder]


def _bwrap_server(tool: str, uid: int, size: int) -> tuple[str, ...]:
    capabilities = (
        ("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_FOWNER")
        if os.geteuid() == 0
        else ()
    )
    command = _bwrap(tool, capabilities)
    command += [
        "--perms",
        "1777",
        "--size",
        str(size),
        "--tmpfs",
        "/tmp",
        "--remount-ro",
        "/dev",
        "--remount-ro",
        "/",
    ]
    return (*command, *_start("bwrap", "/package", uid, "/tmp", size))


def _spaces(tool: str) -> list[str]:
    spaces = ["-n", "-p", "-f", "-m", "-i", "-u", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        spaces = ["-U", "-r", *spaces]
    return [tool, *spaces]


def kinds() -> list[str]:
    """Kinds of isolation whose tool is here, strongest first; `plain` needs none."""
    return [*(tool for tool in ("bwrap", "unshare") if shutil.which(tool)), "plain"]


def command(kind: str, size: int, scratch: str) -> tuple[str, ...]:
    """The command line that starts a server. `size` bounds its scratch folder in bytes; `scratch` is used by `plain` only."""
    tool, uid = shutil.which(kind) or kind, _uid(_FIRST_UID, next(_server))
    if kind == "bwrap":
        return _bwrap_server(tool, uid, size)
    if kind == "unshare":
        return (*_spaces(tool), *_start("unshare", str(_INSIDE.parent), uid, "/tmp", size))
    os.chmod(scratch, 0o777)
    return _start("plain", str(_INSIDE.parent), uid, scratch, size)


def workspace_uid() -> int:
    """Where we are root: a user of its own for each workspace, so that process limits count its commands only; else 0."""
    return _uid(_FIRST_WORKSPACE_UID, next(_workspace))


def installed_packages() -> list[str]:
    """Folders of third-party packages below what every workspace command may read; they are hidden, or a task's solution might stand there."""
    library = (
        Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    )
    known = [
        library / "site-packages",
        library / "ensurepip",
        library / "dist-packages",
        Path("/usr/lib/python3/dist-packages"),
    ]
    known += sorted(Path("/usr/local/lib").glob("python3*"))
    return [str(path) for path in dict.fromkeys(known) if path.is_dir() and not path.is_symlink()]


def supervised(
    kind: str, uid: int, folder: str, readable: Sequence[str], size: int, job: int, report: int
) -> tuple[str, ...]:
    """The command line that starts one supervised command in `folder`. `size`: bytes of /tmp; `job`, `report`: inherited descriptors."""
    tool = shutil.which(kind) or kind
    words, package = [], str(_INSIDE.parent)
    if kind == "bwrap":
        package = "/package"
        words = _bwrap(
            tool,
            (
                "CAP_SETUID",
                "CAP_SETGID",
                "CAP_KILL",
                "CAP_DAC_OVERRIDE",
                "CAP_FOWNER",
                "CAP_SYS_PTRACE",
            ),
        )
        for installed in installed_packages():
            words += ["--tmpfs", installed]
        words += ["--perms", "0755", "--dir", "/etc"]
        for known in (
            "/etc/alternatives",
            "/etc/ld.so.cache",
        ):  # where a system's compilers and libraries are looked up
            words += ["--ro-bind-try", known, known]
        words += ["--perms", "1777", "--size", str(size), "--tmpfs", "/tmp"]
        for path in readable:
            words += _bound(path)
        words += ["--bind", folder, WORK, "--remount-ro", "/dev", "--remount-ro", "/"]
    elif kind == "unshare":
        words = _spaces(tool)
    places = (*installed_packages(), "--", *readable)
    text = f"import sys; sys.path.insert(0, {package!r}); from inside.supervisor import main; main(*sys.argv[1:])"
    return (
        *words,
        python(),
        "-I",
        "-S",
        "-B",
        "-c",
        text,
        kind,
        str(uid),
        folder,
        str(size),
        str(job),
        str(report),
        *places,
    )


starter = ThreadPoolExecutor(1, "linn-sandbox")
"""Starts everything: a child dies with the thread that started it (PR_SET_PDEATHSIG), so that thread must live as long as this process."""
_warned = threading.Event()


def warn_plain(causes: Sequence[str]) -> None:
    """Say once, loudly, that nothing better than `plain` works here."""
    if not _warned.is_set():
        _warned.set()
        why = f" ({'; '.join(causes)})" if causes else ""
        print(
            f"WARNING: neither bubblewrap nor user namespaces work here{why}: programs written by the model run with resource limits and a"
            " system-call filter only, and can read and change this user's files. Install bubblewrap.",
            file=sys.stderr,
        )
