"""How untrusted code is started: by the strongest isolation that this machine offers.

From bubblewrap (`bwrap`) over `unshare` down to resource limits alone (`plain`). The command lines
are made here; what the started Python does stands in `inside/`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from linn.sandbox.inside.landlock import SYSTEM
from linn.sandbox.inside.supervisor import WORK
from linn.terminal import echo

_INSIDE = Path(__file__).parent / "inside"
_PACKAGE = str(_INSIDE.parent)
"""Where `inside` is imported from."""
_BOUND_PACKAGE = "/package"
"""The same under bubblewrap."""

_USERS = 512
"""User ids of each kind that a linn process has for itself: more than it runs servers."""
_PROCESSES = 1 << 20
"""linn processes with user ids of their own, by their process ids."""
_FIRST_SERVER_UID, _FIRST_WORKSPACE_UID = 0x40000000, 0x60000000
_server_count, _workspace_count = itertools.count(), itertools.count()

_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_FOWNER")
_SERVER_CAPABILITIES = (*_CAPABILITIES, "CAP_CHOWN", "CAP_SYS_ADMIN")
"""What the server keeps under bubblewrap, to mount a folder for each program: programs drop all."""
_SUPERVISOR_CAPABILITIES = (*_CAPABILITIES, "CAP_SYS_PTRACE")
"""What a supervisor keeps there: commands drop all."""
_LOOK_UP = ("/etc/alternatives", "/etc/ld.so.cache")
"""Where a system's compilers and libraries are looked up."""


@dataclass(frozen=True)
class Place:
    """Where the commands of a workspace run."""

    kind: str
    """Of isolation: `bwrap`, `unshare` or `plain`."""
    uid: int
    """The commands' own user; 0: none."""
    folder: str
    """The workspace's folder on this machine."""
    readable: Sequence[str]
    """Further folders that commands may read."""


# ------------------------------------------------------------ kinds and users


def kinds() -> list[str]:
    """Kinds of isolation whose tool is here, strongest first; `plain` needs none."""
    tools = [tool for tool in ("bwrap", "unshare") if shutil.which(tool)]
    return [*tools, "plain"]


def python() -> str:
    """The interpreter itself, not a virtual environment's link to it.

    So programs get the standard library only.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    inner = Path(sys.base_prefix) / "bin" / version
    interpreter = inner if inner.exists() else Path(sys.executable)
    return str(interpreter.resolve())


def server_uids() -> range:
    """The user ids of this process's servers; empty where it has none to give."""
    first = _uid(_FIRST_SERVER_UID, 0)
    return range(first, first + _USERS) if first else range(0)


def workspace_uid() -> int:
    """A user of its own for each workspace where we are root, else 0.

    So process limits count its commands only.
    """
    return _uid(_FIRST_WORKSPACE_UID, next(_workspace_count))


def _uid(first: int, index: int) -> int:
    """A user of its own for each server where we are root, else 0.

    So process limits count its programs only.
    """
    uid = first + (os.getpid() % _PROCESSES) * _USERS + index % _USERS
    if os.geteuid() != 0:
        return 0

    # A container's root may have few users, or itself alone.
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        begin, _, count = map(int, line.split())
        if begin <= uid < begin + count:
            return uid
    return 0


# ------------------------------------------------------------ a server's command line


def command(kind: str, size: int, home: str, groups: Sequence[int] = ()) -> tuple[str, ...]:
    """The command line that starts a server.

    `size` bounds the folders of its programs in bytes where they are not mounted one by one;
    `home`, where they are made, is used by `plain` only. `groups`: inherited descriptors by which
    it joins control groups.
    """
    uid = _uid(_FIRST_SERVER_UID, next(_server_count))

    # These two have a /tmp of their own, in memory.
    if kind == "bwrap":
        return (*_bwrap_server(size), *_server(kind, uid, "/tmp", groups))
    if kind == "unshare":
        return (*_unshare(), *_server(kind, uid, "/tmp", groups))

    # The programs' user must be able to reach its folder in it.
    os.chmod(home, 0o711)
    return _server(kind, uid, home, groups)


def _server(kind: str, uid: int, home: str, groups: Sequence[int]) -> tuple[str, ...]:
    start = _import_and_run("server", kind)
    words = (kind, str(uid), home, *map(str, groups))
    return (python(), "-s", "-S", "-B", "-c", start, *words)


def _import_and_run(module: str, kind: str) -> str:
    """Python that runs the `main` of a module of `inside` with the words that follow."""
    package = _BOUND_PACKAGE if kind == "bwrap" else _PACKAGE
    return (
        f"import sys; sys.path.insert(0, {package!r}); "
        f"from inside.{module} import main; main(*sys.argv[1:])"
    )


def _unshare() -> list[str]:
    """Process, network, mount, message and name spaces of its own."""
    words = ["-n", "-p", "-f", "-m", "-i", "-u", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        words = ["-U", "-r", *words]
    return [shutil.which("unshare") or "unshare", *words]


def _bwrap(capabilities: Sequence[str]) -> list[str]:
    """Everything but what is writable: spaces of its own, and a read-only system.

    `capabilities`: what it keeps where we are root.
    """
    words = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--as-pid-1"]
    words += ["--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--setenv", "LC_ALL", "C.UTF-8"]
    words += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    words += ["--unshare-cgroup-try"]

    # As another user than the root of its space, bubblewrap would start in one more user space,
    # where nothing can be mounted.
    as_root = ["--unshare-user", "--uid", "0", "--gid", "0"]
    words += ["--cap-drop", "ALL"] if os.geteuid() == 0 else as_root
    for capability in capabilities:
        words += ["--cap-add", capability]

    # Where /bin is a link to /usr/bin, it has to be one inside too.
    for folder in SYSTEM:
        if os.path.islink(folder):
            words += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            words += ["--ro-bind", folder, folder]
    for folder in dict.fromkeys((sys.base_prefix, sys.base_exec_prefix)):
        if not folder.startswith("/usr"):
            words += _bound(folder)

    words += ["--ro-bind", str(_INSIDE), f"{_BOUND_PACKAGE}/inside"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    return words


def _may_keep_capabilities() -> bool:
    """Whether bubblewrap leaves capabilities to what it starts.

    Where it is installed with root's rights for all users, only root may ask for that.
    """
    path = shutil.which("bwrap")
    has_roots_rights = path is not None and bool(os.stat(path).st_mode & stat.S_ISUID)
    return os.geteuid() == 0 or not has_roots_rights


def _bound(folder: str) -> list[str]:
    """Show a folder at its own path, read-only."""
    words: list[str] = []
    # bubblewrap would copy the modes of its parents, which may shut our users out.
    for parent in reversed(Path(folder).parents[:-1]):
        words += ["--perms", "0755", "--dir", str(parent)]
    return [*words, "--ro-bind", folder, folder]


def _own_tmp(size: int) -> list[str]:
    return ["--perms", "1777", "--size", str(size), "--tmpfs", "/tmp"]


def _bwrap_server(size: int) -> list[str]:
    words = _bwrap(_SERVER_CAPABILITIES if _may_keep_capabilities() else ())
    words += _own_tmp(size)
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return words


# ------------------------------------------------------------ a supervisor's command line


def installed_packages() -> list[str]:
    """Folders of third-party packages below what every workspace command may read.

    They are hidden, or a task's solution might stand there.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sys.base_prefix) / "lib" / version
    folders = [library / "site-packages", library / "ensurepip", library / "dist-packages"]
    folders += [Path("/usr/lib/python3/dist-packages")]
    folders += sorted(Path("/usr/local/lib").glob("python3*"))

    unique = dict.fromkeys(folders)
    return [str(path) for path in unique if path.is_dir() and not path.is_symlink()]


def supervised(place: Place, size: int, job: int, report: int) -> tuple[str, ...]:
    """The command line that starts one supervised command.

    `size`: bytes of /tmp; `job`, `report`: inherited descriptors.
    """
    # `plain` runs the supervisor as it is.
    wrapper: list[str] = []
    if place.kind == "bwrap":
        wrapper = _bwrap_supervisor(place, size)
    elif place.kind == "unshare":
        wrapper = _unshare()

    start = _import_and_run("supervisor", place.kind)
    interpreter = (python(), "-I", "-S", "-B", "-c", start)
    words = (place.kind, str(place.uid), place.folder, str(size), str(job), str(report))
    return (*wrapper, *interpreter, *words, *installed_packages(), "--", *place.readable)


def _bwrap_supervisor(place: Place, size: int) -> list[str]:
    words = _bwrap(_SUPERVISOR_CAPABILITIES)
    # An empty folder over each: what is bound above would show them.
    for installed in installed_packages():
        words += ["--tmpfs", installed]

    words += ["--perms", "0755", "--dir", "/etc"]
    for path in _LOOK_UP:
        words += ["--ro-bind-try", path, path]
    words += _own_tmp(size)
    for path in place.readable:
        words += _bound(path)
    words += ["--bind", place.folder, WORK, "--remount-ro", "/dev", "--remount-ro", "/"]
    return words


# ------------------------------------------------------------ starting


starter = ThreadPoolExecutor(1, "linn-sandbox")
"""Starts everything.

A child dies with the thread that started it (PR_SET_PDEATHSIG), so that thread must live as long
as this process."""
_warned = threading.Event()


def warn_plain(causes: Sequence[str]) -> None:
    """Say once, loudly, that nothing better than `plain` works here."""
    if _warned.is_set():
        return
    _warned.set()
    why = f" ({'; '.join(causes)})" if causes else ""
    echo(
        f"WARNING: neither bubblewrap nor user namespaces work here{why}: programs written by the"
        " model run with resource limits and a system-call filter only, and can read and change"
        " this user's files. Install bubblewrap.",
        err=True,
    )
