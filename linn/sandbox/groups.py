"""Control groups: limits that the kernel itself counts, where this process may make such groups.

A group counts what no sum over processes does: memory that is shared or held by sockets, pipes and
the kernel, and the CPU time of processes whose end nobody waited for. Version 2 needs a place with
the controllers `memory` and `pids` in which no process runs: this process's own group, or the one
above it. Version 1 needs a writable group of this process in each hierarchy.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from linn.sandbox.inside.supervisor import Counters

_CONTROLLERS = ("memory", "pids", "cpuacct")
_PREFIX = "linn-"
_numbers = itertools.count()


@dataclass(frozen=True)
class Files:
    """Names of a version's files."""

    memory: tuple[str, ...]
    """Limits of memory, with and without what is swapped out."""
    swap: str
    """Limit of what is swapped out alone, or nothing."""
    usage: str
    """Memory that is held."""
    peak: str
    """The most memory that was held."""
    kills: str
    """How many processes were killed for memory: `oom_kill N` in a line."""
    cpu: str
    """CPU time: a number alone, in nanoseconds, or `usage_usec N` in a line."""


_V1 = Files(
    memory=("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    swap="",
    usage="memory.usage_in_bytes",
    peak="memory.max_usage_in_bytes",
    kills="memory.oom_control",
    cpu="cpuacct.usage",
)
_V2 = Files(
    memory=("memory.max",),
    swap="memory.swap.max",
    usage="memory.current",
    peak="memory.peak",
    kills="memory.events",
    cpu="cpu.stat",
)


@dataclass(frozen=True)
class Place:
    """Where groups can be made."""

    files: Files
    folders: tuple[Path, ...]
    """One folder of version 2; of version 1 one for each of memory, pids and CPU time."""


class Group:
    """One control group, for one server or one command. It is empty until somebody joins."""

    def __init__(self, place: Place) -> None:
        """Raises OSError where it cannot be made."""
        name = f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        self._files = place.files
        self._folders: list[Path] = []
        try:
            for folder in place.folders:
                (folder / name).mkdir()
                self._folders.append(folder / name)
        except OSError:
            self.remove()
            raise

    def limit(self, memory: int, processes: int) -> None:
        """Bytes of memory of all kinds, and processes and threads at once; raises OSError."""
        text = str(memory)
        # The two limits of version 1 must not cross on their way, up or down.
        for name in (*self._files.memory, *reversed(self._files.memory)):
            with contextlib.suppress(OSError):
                self._path(name).write_text(text)
        if self._files.swap and self._path(self._files.swap).exists():
            self._path(self._files.swap).write_text("0")
        self._path("pids.max").write_text(str(processes))

        # The kernel rounds down to whole pages.
        if int(self._path(self._files.memory[0]).read_text()) > memory:
            raise OSError(f"the memory of {self._folders[0]} cannot be limited")

    @contextlib.contextmanager
    def doors(self) -> Iterator[list[int]]:
        """Descriptors to inherit: who writes `0` to all of them has joined."""
        with contextlib.ExitStack() as stack:
            doors = []
            for folder in self._folders:
                door = os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                stack.callback(os.close, door)
                doors.append(door)
            yield doors

    @contextlib.contextmanager
    def counters(self) -> Iterator[Counters]:
        """Descriptors to inherit, by which CPU time and kills are read from inside."""
        with contextlib.ExitStack() as stack:
            found = []
            for name in (self._files.cpu, self._files.kills):
                descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                found.append(descriptor)
            yield Counters(*found)

    def peak(self) -> int:
        """The most bytes of memory that it held."""
        return int(self._path(self._files.peak).read_text())

    def held(self) -> tuple[int, int]:
        """Bytes of memory and processes that it holds now."""
        memory = int(self._path(self._files.usage).read_text())
        return memory, int(self._path("pids.current").read_text())

    def seconds(self) -> float:
        """CPU seconds of all that ever ran in it."""
        with self.counters() as counters:
            return counters.seconds()

    def remove(self) -> None:
        """Remove it, as soon as the last process in it has gone."""
        with _finding:
            _leaving.extend(self._folders)
            self._folders = []
        _remove_empty()

    def _path(self, name: str) -> Path:
        """A file of the group, in whichever hierarchy it stands."""
        controller = name.partition(".")[0]
        if len(self._folders) > 1:
            return self._folders[_CONTROLLERS.index(controller)] / name
        return self._folders[0] / name


# ------------------------------------------------------------ where


def new_group() -> Group | None:
    """A group of its own for what is started next; None where none can be made here."""
    place = _place()
    if place is None:
        return None
    _remove_empty()
    try:
        return Group(place)
    except OSError:
        return None


def find_place(mounts: str, memberships: str) -> Place | None:
    """Where groups can be made, by /proc/self/mountinfo and /proc/self/cgroup."""
    roots: dict[str, tuple[Path, str]] = {}
    unified: tuple[Path, str] | None = None
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        root, point = fields.split()[3:5]
        kind, _, options = rest.split()[:3]
        if kind == "cgroup2":
            unified = (Path(point), root)
        elif kind == "cgroup":
            for controller in set(options.split(",")) & set(_CONTROLLERS):
                roots[controller] = (Path(point), root)

    own: dict[str, str] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            own[controller] = path

    if unified and "" in own:
        folder = _below(unified, own[""])
        for candidate in (folder, folder.parent):
            if _is_writable(candidate) and _has_controllers(candidate):
                return Place(_V2, (candidate,))
    if all(controller in roots and controller in own for controller in _CONTROLLERS):
        folders = tuple(_below(roots[name], own[name]) for name in _CONTROLLERS)
        if all(map(_is_writable, folders)):
            return Place(_V1, folders)
    return None


def _below(mount: tuple[Path, str], path: str) -> Path:
    """The folder of a group, where its hierarchy is mounted from `root` on."""
    point, root = mount
    return point / os.path.relpath(path, root) if path.startswith(root) else point


def _is_writable(folder: Path) -> bool:
    is_mounted_to_write = folder.is_dir() and not os.statvfs(folder).f_flag & os.ST_RDONLY
    return is_mounted_to_write and os.access(folder, os.W_OK)


def _has_controllers(folder: Path) -> bool:
    """Whether groups in a folder of version 2 can limit memory and processes."""
    control = folder / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        # Refused where processes run in this very group.
        control.write_text("+memory +pids")
    try:
        return {"memory", "pids"} <= set(control.read_text().split())
    except OSError:
        return False


_known: list[Place | None] = []
_leaving: list[Path] = []
"""Groups to be removed: who was killed a moment ago may still be on its way out of one."""
_finding = threading.Lock()


@atexit.register
def _remove_empty() -> None:
    """Remove the groups that nobody needs and that nobody is in any more."""
    with _finding:
        for folder in list(_leaving):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                continue
            _leaving.remove(folder)


def _place() -> Place | None:
    """Where groups can be made here; looked for once."""
    with _finding:
        if not _known:
            place = None
            with contextlib.suppress(OSError, ValueError):
                mounts = Path("/proc/self/mountinfo").read_text()
                memberships = Path("/proc/self/cgroup").read_text()
                place = find_place(mounts, memberships)
            if place is not None:
                _sweep(place.folders)
            _known.append(place)
        return _known[0]


def _sweep(folders: Sequence[Path]) -> None:
    """Remove the empty groups of processes that ended before they could do so."""
    for folder in folders:
        for group in folder.glob(f"{_PREFIX}*-*"):
            owner = group.name.removeprefix(_PREFIX).partition("-")[0]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                _sweep([group])
                with contextlib.suppress(OSError):
                    group.rmdir()
